"""Replies of models that were never taught our answer texts: read in their declared form, and in no other."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gastrovl.clinical import foreign
from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, ParseFailure, TextAnswer, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import BoxTextError
from gastrovl.core.replyform import BoxForm, LabelForm, Order, ReplyForm, Scale, Syntax, TextForm
from gastrovl.core.types import Box, Task

TAXONOMY = Taxonomy.load()
WH = (640, 480)
BOX = Box(x0=0.25, y0=0.5, x1=0.75, y1=0.875)


def read(text, task=Task.REC, wh=WH, **form):
    """Read a reply in a form given by the fields of its boxes, or of its labels or texts for other tasks."""
    part = {Task.REC: ("boxes", BoxForm), Task.CLS: ("labels", LabelForm), Task.CAP: ("texts", TextForm)}[task]
    return parse_answer(task, text, TAXONOMY, ReplyForm(**{part[0]: part[1](**form)}), wh)


def boxes(text, **form):
    answer = read(text, **form)
    assert isinstance(answer, BoxAnswer), answer
    return [tuple(round(value, 9) for value in box.xyxy) for box in answer.boxes]


def reason(text, **form):
    answer = read(text, **form)
    assert isinstance(answer, ParseFailure), answer
    assert answer.text == text
    return answer.reason


QUARTER = [(0.25, 0.5, 0.75, 0.875)]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("[160, 240, 480, 420]", {"scale": "pixels"}),
        ("[160.0, 240.0, 480.0, 420.0]", {"scale": "pixels"}),
        ("[0.25, 0.5, 0.75, 0.875]", {"scale": "0-1"}),
        ("[25, 50, 75, 87.5]", {"scale": "0-100"}),
        ("[250, 500, 750, 875]", {"scale": "0-1000"}),
        ("[250, 500, 500, 375]", {"scale": "0-1000", "order": "xywh"}),
        ("[500, 687.5, 500, 375]", {"scale": "0-1000", "order": "cxcywh"}),
        ("[500, 250, 875, 750]", {"scale": "0-1000", "order": "yxyx"}),
        ("[[250, 500, 750, 875]]", {"scale": "0-1000"}),
        ("250, 500, 750, 875", {"scale": "0-1000", "syntax": "numbers"}),
        ("250 500 750 875", {"scale": "0-1000", "syntax": "numbers"}),
        ('{"bbox_2d": [250, 500, 750, 875]}', {"scale": "0-1000", "syntax": "json", "key": "bbox_2d"}),
        ('[{"box": [250, 500, 750, 875], "label": "polyp"}]', {"scale": "0-1000", "syntax": "json"}),
        ('{"box": [[250, 500, 750, 875]]}', {"scale": "0-1000", "syntax": "json"}),
        (
            '```json\n[{"box": [250, 500, 750, 875]}]\n```',
            {"scale": "0-1000", "syntax": "json", "json_in_fence": True},
        ),
        ("<box>(250,500),(750,875)</box>", {"scale": "0-1000", "syntax": "tags"}),
        ("<ref>polyp</ref><box>[[250, 500, 750, 875]]</box>", {"scale": "0-1000", "syntax": "tags",
                                                               "names": ("<ref>", "</ref>")}),
        (
            "<|box_start|>(250,500),(750,875)<|box_end|>",
            {"scale": "0-1000", "syntax": "tags", "opening": "<|box_start|>", "closing": "<|box_end|>"},
        ),
        ("<loc0512><loc0256><loc0896><loc0768> polyp", {"scale": "0-1024", "syntax": "loc", "order": "yxyx"}),
    ],
)  # fmt: skip
def test_one_box_in_every_form_is_the_same_box(text, form):
    assert boxes(text, **form) == QUARTER


def test_several_boxes_stand_in_the_order_of_the_reply():
    pair = [(0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)]
    assert boxes("[100, 200, 300, 400] [500, 600, 700, 800]", scale="0-1000") == pair
    assert boxes("[[100, 200, 300, 400], [500, 600, 700, 800]]", scale="0-1000") == pair
    listed = [{"box": [100, 200, 300, 400]}, {"box": [500, 600, 700, 800]}]
    assert boxes(json.dumps(listed), scale="0-1000", syntax="json") == pair
    assert boxes('{"box": [[100, 200, 300, 400], [500, 600, 700, 800]]}', scale="0-1000", syntax="json") == pair
    tagged = "<box>(100,200),(300,400)</box><box>(500,600),(700,800)</box>"
    assert boxes(tagged, scale="0-1000", syntax="tags") == pair


def test_pixels_count_in_the_image_that_the_prediction_names():
    form = ReplyForm(boxes=BoxForm(scale=Scale.PIXELS))
    assert parse_answer(Task.REC, "[0, 0, 320, 240]", TAXONOMY, form, (640, 480)).boxes[0].xyxy == (0, 0, 0.5, 0.5)
    assert parse_answer(Task.REC, "[0, 0, 320, 240]", TAXONOMY, form, (320, 240)).boxes[0].xyxy == (0, 0, 1, 1)
    assert "does not say of what image size" in parse_answer(Task.REC, "[0, 0, 320, 240]", TAXONOMY, form).reason


@pytest.mark.parametrize("said", ["absent", "Absent.", " none ", "NONE"])
def test_absence_is_a_declared_word(said):
    assert boxes(said, scale="0-1000", absent=("absent", "none")) == []


def test_an_empty_list_is_absence_only_where_it_is_declared():
    for text in ("[]", '{"box": null}', '{"box": []}', '[{"box": []}]'):
        assert boxes(text, syntax="json", scale="0-1000", empty_is_absent=True) == []
        assert "empty" in reason(text, syntax="json", scale="0-1000")
    assert "'none'" in reason("none", scale="0-1000")


@pytest.mark.parametrize(
    ("text", "form", "message"),
    [
        ("[250, 500, 750, 875]", {"scale": "0-1"}, "outside the scale 0-1"),
        ("[0.25, 0.5, 0.75, 0.875]", {"scale": "0-1000"}, "no number is above 1"),
        ("[0.25, 0.5, 0.75, 0.875]", {"scale": "pixels"}, "no number is above 1"),
        ("[25, 50, 75, 187.5]", {"scale": "0-100"}, "outside the scale 0-100"),
        ("[250, 500, 750, 875]", {"scale": "pixels"}, "lies outside the image of 640x480 px"),
        ("[250, 500, 750, 1000]", {"scale": "0-999"}, "outside the scale 0-999"),
        ("[250.5, 500, 750, 875]", {"scale": "0-999"}, "whole numbers"),
        ("[750, 500, 250, 875]", {"scale": "0-1000"}, "reversed or empty in the order xyxy"),
        ("[250, 500, 750, 875]", {"scale": "0-1000", "order": "xywh"}, "outside the scale"),
        ("[-20, 500, 750, 875]", {"scale": "0-1000"}, "outside the scale"),
        ("The polyp is at [250, 500, 750, 875].", {"scale": "0-1000"}, "'The polyp is at .' besides boxes"),
        ("[250, 500, 750]", {"scale": "0-1000"}, "holds no box"),
        ("[250, 500, 750, 875, 3]", {"scale": "0-1000"}, "holds no box"),
        ("[250, 500, 750, 875", {"scale": "0-1000"}, "holds no box"),
        ("250, 500, 750, 875, 900", {"scale": "0-1000", "syntax": "numbers"}, "not four numbers"),
        ("[250, 500, 750, 875]", {"scale": "0-1000", "syntax": "json"}, "where an object with 'box' belongs"),
        ('{"bbox": [250, 500, 750, 875]}', {"scale": "0-1000", "syntax": "json"}, "an object with 'box' belongs"),
        ('{"box": [1, 2, 3], "box": [4]}', {"scale": "0-1000", "syntax": "json"}, "a key twice"),
        ('{"box": [250, 500, 750]}', {"scale": "0-1000", "syntax": "json"}, "not four numbers"),
        ('{"box": ["250", 500, 750, 875]}', {"scale": "0-1000", "syntax": "json"}, "expected four numbers"),
        ('{"box": [true, 500, 750, 875]}', {"scale": "0-1000", "syntax": "json"}, "expected four numbers"),
        ('{"box": [NaN, 500, 750, 875]}', {"scale": "0-1000", "syntax": "json"}, "NaN, which is no number"),
        ('{"box": [1e999, 500, 750, 875]}', {"scale": "0-1000", "syntax": "json"}, "not four numbers"),
        ('Here: {"box": [250, 500, 750, 875]}', {"scale": "0-1000", "syntax": "json"}, "is not JSON"),
        ('```json\n[{"box": [250, 500, 750, 875]}]\n```', {"scale": "0-1000", "syntax": "json"}, "is not JSON"),
        ("[" * 100_000, {"scale": "0-1000", "syntax": "json"}, "nested too deeply"),
        ("<box>(250,500),(750,875)", {"scale": "0-1000", "syntax": "tags"}, "is not numbers between"),
        ("<box>(250,500),(750)</box>", {"scale": "0-1000", "syntax": "tags"}, "not four numbers for each box"),
        ("<box>left of 250,500,750,875</box>", {"scale": "0-1000", "syntax": "tags"}, "not four numbers for each"),
        ("<loc0512><loc0256><loc0896>", {"scale": "0-1024", "syntax": "loc"}, "is not four <locNNNN>"),
        ("<loc0512><loc0256><loc0896><loc1999>", {"scale": "0-1024", "syntax": "loc"}, "outside the scale"),
    ],
)
def test_what_is_written_otherwise_is_a_failure_that_says_why(text, form, message):
    assert message in reason(text, **form)


def test_scale_and_syntax_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="loc tokens count 0-1024"):
        BoxForm(syntax=Syntax.LOC, scale=Scale.UNIT)
    with pytest.raises(ValueError, match="nothing else does"):
        BoxForm(syntax=Syntax.LISTS, scale=Scale.LOC)


FORMS = [
    BoxForm(scale=scale, order=order, syntax=syntax)
    for syntax in Syntax
    for order in Order
    for scale in Scale
    if (syntax is Syntax.LOC) == (scale is Scale.LOC) and not (syntax is Syntax.LOC and order is Order.CXCYWH)
]
edges = st.floats(0, 1, allow_subnormal=False)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.syntax}-{form.order}-{form.scale}")
@given(a=edges, b=edges, c=edges, d=edges)
@example(a=0.0, b=0.0, c=1.0, d=1.0)
@example(a=0.0, b=0.0, c=0.002, d=0.002)
def test_a_box_comes_back_within_the_rounding_of_its_form(form, a, b, c, d):
    assume(abs(a - c) > 0.0015 and abs(b - d) > 0.0015 and max(a, b, c, d) > 0.02)
    box = Box(x0=min(a, c), y0=min(b, d), x1=max(a, c), y1=max(b, d))

    answer = parse_answer(Task.REC, foreign.write_boxes([box], form, WH), TAXONOMY, ReplyForm(boxes=form), WH)

    step = 1 / 480 if form.scale is Scale.PIXELS else 1 / 999
    assert isinstance(answer, BoxAnswer), answer
    assert answer.boxes[0].xyxy == pytest.approx(box.xyxy, abs=1.01 * step)


@given(a=edges, b=edges, c=edges, d=edges)
def test_a_box_in_thousandths_is_never_taken_for_fractions_or_the_other_way_round(a, b, c, d):
    assume(abs(a - c) > 0.0015 and abs(b - d) > 0.0015 and max(a, b, c, d) > 0.02)
    box = Box(x0=min(a, c), y0=min(b, d), x1=max(a, c), y1=max(b, d))
    unit, thousand = BoxForm(scale=Scale.UNIT), BoxForm(scale=Scale.THOUSAND)

    assert isinstance(read(foreign.write_box(box, unit), scale="0-1000"), ParseFailure)
    assert isinstance(read(foreign.write_box(box, thousand), scale="0-1"), ParseFailure)


@given(st.text(max_size=60) | st.text("[](){}<>0123456789.,-:\"'boxlcre \n", max_size=60))
def test_no_text_raises_in_any_form(text):
    for form in FORMS:
        parsed = parse_answer(Task.REC, text, TAXONOMY, ReplyForm(boxes=form), WH)
        assert isinstance(parsed, BoxAnswer | ParseFailure)
    for task in Task:
        form = ReplyForm(labels=LabelForm(syntax="json"), texts=TextForm(syntax="json"), answer_after="</think>")
        assert parse_answer(task, text, TAXONOMY, form, WH) is not None


@pytest.mark.parametrize("syntax", list(Syntax))
def test_a_megabyte_of_brackets_is_refused_at_once(syntax):
    scale = Scale.LOC if syntax is Syntax.LOC else Scale.THOUSAND
    for text in ("[" * 10**6, "[1," * 300_000, "<box>" * 200_000, "1 " * 500_000, '{"box":' * 150_000, "[ " * 500_000):
        assert read(text, scale=scale, syntax=syntax).reason


def test_labels_are_names_or_synonyms_and_nothing_else():
    polyp = TAXONOMY.find("gastric polyp")
    assert read("Gastric polyp.", Task.CLS) == LabelAnswer((polyp.id,))
    assert read("Answer: gastric polyp", Task.CLS, prefixes=("answer:",)) == LabelAnswer((polyp.id,))
    assert isinstance(read("Answer: gastric polyp", Task.CLS), ParseFailure)
    assert read("gastric polyp, esophagitis", Task.CLS, separator=",") == LabelAnswer((polyp.id, "esophagitis"))


@pytest.mark.parametrize(
    "text",
    [
        '{"label": "gastric polyp"}',
        '{"label": ["gastric polyp"]}',
        '[{"label": "gastric polyp"}]',
        '["gastric polyp"]',
        '```json\n{"label": "gastric polyp"}\n```',
    ],
)
def test_labels_in_json_stand_under_their_key(text):
    answer = read(text, Task.CLS, syntax="json", json_in_fence=True)
    assert answer == LabelAnswer(("gastric_polyp",))


@pytest.mark.parametrize("text", ["gastric polyp", '{"class": "gastric polyp"}', "[]", "[3]", '{"label": null}', "{}"])
def test_labels_elsewhere_in_json_are_failures(text):
    assert isinstance(read(text, Task.CLS, syntax="json"), ParseFailure)


def test_free_text_is_taken_as_it_stands_or_from_its_key():
    assert read(" Diffuse redness. ", Task.CAP) == TextAnswer("Diffuse redness.")
    assert read('{"answer": "Redness."}', Task.CAP, syntax="json") == TextAnswer("Redness.")
    assert isinstance(read('{"text": "Redness."}', Task.CAP, syntax="json"), ParseFailure)


def test_a_thinking_model_is_read_behind_its_mark_only():
    form = ReplyForm(answer_after="</think>")
    said = "<think>esophagitis? no.</think>\n\ngastric polyp"
    assert parse_answer(Task.CLS, said, TAXONOMY, form) == LabelAnswer(("gastric_polyp",))
    assert "0 times" in parse_answer(Task.CLS, "gastric polyp", TAXONOMY, form).reason
    assert "2 times" in parse_answer(Task.CLS, f"</think>{said}", TAXONOMY, form).reason


def test_the_default_form_reads_what_ours_reads():
    text = "[045,120,310,400]"
    assert parse_answer(Task.REC, text, TAXONOMY, ReplyForm()) == parse_answer(Task.REC, text, TAXONOMY)


def test_what_a_form_cannot_say_is_not_written():
    with pytest.raises(BoxTextError, match="no way to say that a thing is absent"):
        foreign.write_boxes([], BoxForm(absent=()))
    with pytest.raises(BoxTextError, match="2 boxes cannot be written as four numbers"):
        foreign.write_boxes([BOX, BOX], BoxForm(syntax=Syntax.NUMBERS))
    assert foreign.write_boxes([], BoxForm(syntax=Syntax.JSON, absent=(), empty_is_absent=True)) == "[]"
    assert foreign.write_boxes([BOX], BoxForm(scale=Scale.PIXELS), WH) == "[160, 240, 480, 420]"
