"""LLaVA and ColonINST JSON: tasks, labels and boxes out of dialogues, and texts kept word by word."""

from __future__ import annotations

import json

import pytest

from gastrovl.core.errors import SourceError
from gastrovl.core.types import Task
from gastrovl.data.formats.conversations import Options, read
from gastrovl.data.images import list_images

LABELS = ["polyp", "hyperplastic polyp", "ulcer"]


def record(question, answer, **changes):
    """A record as ColonINST has it: the image's path is the id."""
    said = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": "Set/Train/polyp/a.png", "conversations": said, **changes}


@pytest.fixture
def read_dialogues(tmp_path, draw):
    """Annotations of polyp/a.png, 200 x 100 px, by the records of a JSON list."""

    def run(*records, **options):
        draw(tmp_path / "images/polyp/a.png", size_wh=(200, 100))
        (tmp_path / "d.json").write_text(json.dumps(records), encoding="utf-8")
        images = list_images(tmp_path, ["images/**/*.png"], max_px=100_000)
        options = {"files": ("d.json",), "labels": LABELS, **options}
        return list(read(tmp_path, Options(**options), images))

    return run


def test_a_label_is_a_label_of_the_whole_image(read_dialogues):
    (found,) = read_dialogues(record("Categorize the object.", "polyp"))
    assert (found.image.name, found.label, found.box, found.dialogue) == ("polyp/a.png", "polyp", None, None)


def test_a_box_of_raw_pixels_belongs_to_the_label_that_was_asked_for(read_dialogues):
    (found,) = read_dialogues(record("Where is the hyperplastic polyp?", "{<20><5><120><45>}"))
    assert (found.label, found.box.xyxy) == ("hyperplastic polyp", (0.1, 0.05, 0.6, 0.45))


def test_a_label_belongs_to_the_box_that_was_asked_about(read_dialogues):
    (found,) = read_dialogues(record("What is in {<20><5><120><45>}?", "ulcer"))
    assert (found.label, found.box.xyxy) == ("ulcer", (0.1, 0.05, 0.6, 0.45))


def test_free_text_is_kept_word_by_word(read_dialogues):
    answer = "A  sessile polyp,\nabout 5 mm: \u201cIs\u201d."
    (found,) = read_dialogues(record("Describe the image.", answer, task="CAP"))
    assert found.label is None
    assert found.dialogue.task is Task.CAP
    assert found.dialogue.turns == (("Describe the image.", answer),)


def test_an_answer_that_is_no_label_is_a_free_answer(read_dialogues):
    (found,) = read_dialogues(record("Is it a polyp?", "Yes, one."))
    assert (found.dialogue.task, found.dialogue.turns) == (Task.VQA, (("Is it a polyp?", "Yes, one."),))


def test_several_turns_are_one_dialogue(read_dialogues):
    one = record("What is it?", "polyp")
    one["conversations"] += [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "One."}]
    (found,) = read_dialogues(one)
    assert found.dialogue.turns == (("What is it?", "polyp"), ("How many?", "One."))


def test_wording_of_the_source_is_kept_with_its_boxes_in_our_form(read_dialogues):
    fact, kept = read_dialogues(record("Where is the polyp?", "{<20><5><120><45>}"), wording="source")
    assert fact.box is not None
    assert kept.dialogue.task is Task.REC
    # bins 0-999: 0.1 * 999 = 99.9, 0.05 * 999 = 49.95, 0.6 * 999 = 599.4, 0.45 * 999 = 449.55
    assert kept.dialogue.turns == (("Where is the polyp?", "[100,050,599,450]"),)
    assert kept.dialogue.labels == ("polyp",)
    assert [box.xyxy for box in kept.dialogue.boxes] == [(0.1, 0.05, 0.6, 0.45)]


def test_all_boxes_of_free_text_are_kept_with_their_exact_edges(read_dialogues):
    one = record("Is {<20><5><120><45>} a polyp?", "Yes, like {<1><3><7><9>}.")
    one["conversations"] += [{"from": "human", "value": "And {<20><5><120><45>}?"}, {"from": "gpt", "value": "Too."}]
    (found,) = read_dialogues(one)
    assert [box.xyxy for box in found.dialogue.boxes] == [(0.1, 0.05, 0.6, 0.45), (0.005, 0.03, 0.035, 0.09)]


@pytest.mark.parametrize("value", ["<image>\nWhat?", "What?\n<image>", "<image>What?", "What?"])
def test_the_image_marker_is_taken_off(read_dialogues, value):
    said = [{"from": "human", "value": value}, {"from": "gpt", "value": "It is red."}]
    (found,) = read_dialogues({"image": "a.png", "conversations": said})
    assert found.dialogue.turns == (("What?", "It is red."),)


@pytest.mark.parametrize(
    "names", [{"image": "polyp/a.png", "id": "17"}, {"id": "polyp/a.png"}, {"id": "a", "image": ""}]
)
def test_id_or_image_may_name_the_image(read_dialogues, names):
    one = record("Categorize.", "polyp")
    del one["id"]
    assert read_dialogues({**one, **names})[0].image.name == "polyp/a.png"


def test_group_and_split_of_a_record_are_carried(read_dialogues):
    (found,) = read_dialogues(record("Categorize.", "polyp", group="P7", split="val"))
    assert (found.group, found.split) == ("P7", "val")


def test_an_absent_thing_is_no_annotation_but_a_dialogue(read_dialogues):
    absent = record("Where is the ulcer?", "absent", task="REC", labels=["ulcer"])
    assert read_dialogues(absent) == []
    (found,) = read_dialogues(absent, wording="source")
    assert (found.dialogue.labels, found.dialogue.boxes) == (("ulcer",), ())


def test_json_lines_name_their_line(tmp_path, draw):
    draw(tmp_path / "images/polyp/a.png", size_wh=(200, 100))
    rows = [record("Categorize.", "polyp"), record("Where is the polyp?", "{<20><5><420><45>}")]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    images = list_images(tmp_path, ["images/**/*.png"], max_px=100_000)
    with pytest.raises(SourceError, match=r"d\.jsonl:2: turn 1: .*leaves the image of 200x100"):
        list(read(tmp_path, Options(files=("d.jsonl",), labels=LABELS), images))


@pytest.mark.parametrize(
    ("one", "options", "message"),
    [
        (record("Where is it?", "{<1><2><3><4>}"), {}, "names no label; expected one of the 3 labels"),
        (record("Is the polyp near the ulcer?", "{<1><2><3><4>}"), {}, "names polyp, ulcer"),
        (record("Where is the polyp?", "{<30><2><3><4>}"), {}, "turn 1: .*reversed"),
        (record("What is it?", "polyp"), {"labels": []}, "nothing tells whether 'polyp' is a label or free text"),
        (record("What is it?", "polyp", task="cls"), {}, "found task 'cls', expected one of CLS"),
        (record("What is it?", "a <image> b"), {}, "one <image> at the start or end"),
        (record("", "polyp"), {}, "turn 0 is ''"),
        ({"id": "a", "conversations": []}, {}, "even number of turns"),
        ({"id": "a", "conversations": [{"from": "gpt", "value": "x"}] * 2}, {}, "expected {from: human"),
        ({"conversations": []}, {}, "names no image in image or id"),
        ({"id": 7, "image": ["a", "b"]}, {}, "names no image in image or id"),
        ("text", {}, "expected an object"),
    ],
)
def test_a_record_that_cannot_be_told_is_named(read_dialogues, one, options, message):
    with pytest.raises(SourceError, match=rf"d\.json \(\[0\]\).*{message}"):
        read_dialogues(one, **options)
