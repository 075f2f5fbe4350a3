"""Source labels to terms: all mapped, excluded with a reason, or refused with the whole list."""

from __future__ import annotations

from pathlib import Path

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import LabelError
from gastrovl.core.types import Box, Task
from gastrovl.data.annotation import Annotation, SourceDialogue
from gastrovl.data.harmonise import check_labels, check_rules, harmonise, with_named_labels
from gastrovl.data.images import ImageFile
from gastrovl.data.source import SourceDescription

TAXONOMY = Taxonomy.load()
LEFT, RIGHT = Box(x0=0, y0=0, x1=0.4, y1=1), Box(x0=0.6, y0=0, x1=1, y1=1)


def source(labels):
    return SourceDescription(
        name="own",
        title="Own",
        licence="CC0",
        citation="none",
        images=("*.png",),
        annotations=({"format": "class_folders"},),
        labels=labels,
    )


def image(name):
    return ImageFile(Path(name), name, (100, 100))


def said(picture, label, box=None, **more):
    return Annotation(picture, label, f"labels.csv:{len(label)}", box=box, **more)


def test_all_boxes_of_a_term_become_one_finding():
    a = image("a.png")
    rules = {"BE": "barretts_esophagus", "barrett": "barretts_esophagus"}
    found = harmonise(
        source(rules), [a], [said(a, "BE", LEFT), said(a, "barrett", RIGHT), said(a, "BE", LEFT)], TAXONOMY
    )
    (finding,) = found.images[0].findings
    assert (finding.term, finding.boxes, finding.origin) == ("barretts_esophagus", (LEFT, RIGHT), "BE; barrett")


def test_findings_stand_in_taxonomy_order():
    a = image("a.png")
    rules = {"polyp": "polyp_unspecified", "BE": "barretts_esophagus"}
    found = harmonise(source(rules), [a], [said(a, "polyp", LEFT), said(a, "BE", RIGHT)], TAXONOMY)
    assert [finding.term for finding in found.images[0].findings] == ["barretts_esophagus", "polyp_unspecified"]


def test_a_lesion_lies_at_the_one_site_in_view():
    a = image("a.png")
    rules = {"antrum": "antrum", "pylorus": "pylorus", "polyp": "gastric_polyp"}
    one = harmonise(source(rules), [a], [said(a, "antrum"), said(a, "polyp", LEFT)], TAXONOMY).images[0]
    assert {finding.term: finding.site for finding in one.findings} == {"antrum": None, "gastric_polyp": "antrum"}
    two = harmonise(source(rules), [a], [said(a, "antrum"), said(a, "pylorus"), said(a, "polyp")], TAXONOMY).images[0]
    assert {finding.site for finding in two.findings} == {None}


def test_a_rule_may_state_site_and_grade():
    a = image("a.png")
    rules = {"LA-A": {"term": "esophagitis_la_a", "grade": "A", "site": "lower_esophagus"}}
    (finding,) = harmonise(source(rules), [a], [said(a, "LA-A")], TAXONOMY).images[0].findings
    assert (finding.grade, finding.site) == ("A", "lower_esophagus")


def test_the_tasks_of_an_image_are_those_all_its_labels_allow():
    a = image("a.png")
    rules = {"polyp": {"term": "polyp_unspecified", "tasks": ["REC", "REG"]}, "BE": "barretts_esophagus"}
    found = harmonise(source(rules), [a], [said(a, "polyp", LEFT), said(a, "BE", RIGHT)], TAXONOMY)
    assert found.images[0].tasks == {Task.REC, Task.REG}


def test_excluded_and_silent_images_are_told_apart():
    kept, left_out, silent = image("a.png"), image("b.png"), image("c.png")
    rules = {"antrum": "antrum", "stool": {"exclude": "lower GI"}}
    found = harmonise(
        source(rules), [kept, left_out, silent], [said(kept, "antrum"), said(left_out, "stool")], TAXONOMY
    )
    assert [labelled.image for labelled in found.images] == [kept]
    assert (found.excluded, found.silent) == ([left_out], [silent])


def test_every_label_that_occurs_is_listed_with_its_fate():
    a = image("a.png")
    rules = {"antrum": "antrum", "stool": {"exclude": "lower GI"}, "never": "pylorus"}
    found = harmonise(source(rules), [a], [said(a, "antrum"), said(a, "stool"), said(a, "stool")], TAXONOMY)
    assert [(use.label, use.term, use.reason, use.images, use.annotations) for use in found.uses] == [
        ("antrum", "antrum", None, 1, 1),
        ("stool", None, "lower GI", 1, 2),
    ]


def test_unknown_labels_stop_with_all_of_them_over_all_sources():
    a, b = image("a.png"), image("b.png")
    first, second = source({"antrum": "antrum"}), source({"BE": "barretts_esophagus"})
    with pytest.raises(LabelError) as caught:
        check_labels(
            [first, second], [[said(a, "antrun"), said(b, "antrun")], [said(a, "BE"), said(b, "xyzzy")]], TAXONOMY
        )
    message = str(caught.value)
    assert "2 labels are not in the label map" in message
    assert "'antrun', 2 times, first in labels.csv:6; nearest terms: antrum" in message
    assert "'xyzzy', 1 times, first in labels.csv:5; no term comes near" in message
    assert "`label: {exclude: reason}`" in message


def test_a_synonym_is_suggested_for_an_unknown_label():
    with pytest.raises(LabelError, match=r"nearest terms: .*z_line"):
        check_labels([source({})], [[said(image("a.png"), "squamocolumnar-junction")]], TAXONOMY)


def test_rules_with_unknown_terms_are_listed_together():
    wrong = source({"a": "antrun", "b": {"term": "antrum", "site": "stomack"}, "c": "antrum"})
    with pytest.raises(LabelError) as caught:
        check_rules(wrong, TAXONOMY, "own.yaml")
    assert "own.yaml: found 2 ids" in str(caught.value)
    assert "labels.a: term 'antrun'; nearest terms: antrum" in str(caught.value)
    assert "labels.b: site 'stomack'" in str(caught.value)


def test_one_image_in_two_official_splits_is_refused():
    a = image("a.png")
    rows = [said(a, "antrum", split="train"), said(a, "antrum", split="test")]
    with pytest.raises(LabelError, match=r"image a\.png is in split 'test' and elsewhere in 'train'"):
        harmonise(source({"antrum": "antrum"}), [a], rows, TAXONOMY)


TALK = SourceDialogue(Task.VQA, (("Clean?", "Yes."),))


def test_an_image_with_a_dialogue_alone_is_kept_and_one_with_a_group_alone_is_not():
    a, b = image("a.png"), image("b.png")
    found = harmonise(
        source({}),
        [a, b],
        [Annotation(a, None, "qa.csv:2", group="P1", dialogue=TALK), Annotation(b, None, "t.csv:2", group="P2")],
        TAXONOMY,
    )
    (kept,) = found.images
    assert (kept.image, kept.findings, kept.groups) == (a, (), ("P1",))
    (dialogue,) = kept.dialogues
    assert [(turn.role, turn.text) for turn in dialogue.turns] == [("user", "Clean?"), ("assistant", "Yes.")]
    assert found.silent == [b]


def test_a_dialogue_about_a_label_is_mapped_with_it():
    a = image("a.png")
    talk = SourceDialogue(Task.REC, (("Where is the ulcer?", "[...]"),), ("ulcer",), (LEFT,))
    (kept,) = harmonise(
        source({"ulcer": "gastric_ulcer"}), [a], [Annotation(a, None, "d.json", dialogue=talk)], TAXONOMY
    ).images
    assert (kept.dialogues[0].task, kept.dialogues[0].target.terms) == (Task.REC, ("gastric_ulcer",))
    assert kept.dialogues[0].target.boxes == (LEFT,)


def test_a_dialogue_about_an_excluded_label_goes_with_it():
    a = image("a.png")
    talk = SourceDialogue(Task.CLS, (("What?", "stool"),), ("stool",))
    found = harmonise(
        source({"stool": {"exclude": "lower GI"}}), [a], [Annotation(a, None, "d.json", dialogue=talk)], TAXONOMY
    )
    assert (found.images, found.excluded) == ([], [a])
    assert [(use.label, use.annotations) for use in found.uses] == [("stool", 1)]


def test_a_label_that_only_a_dialogue_names_must_be_mapped_too():
    talk = SourceDialogue(Task.CLS, (("What?", "tumour"),), ("tumour",))
    with pytest.raises(LabelError, match="'tumour', 1 times"):
        check_labels([source({})], [[Annotation(image("a.png"), None, "d.json", dialogue=talk)]], TAXONOMY)


def test_names_and_synonyms_mean_their_term_where_the_source_allows_it():
    a, b = image("a.png"), image("b.png")
    annotations = [said(a, "Gastric_Polyp"), said(b, "angulus"), said(b, "odd")]
    by_name = source({"odd": {"exclude": "unclear"}}).model_copy(update={"labels_by_name": True})
    known = with_named_labels(by_name, annotations, TAXONOMY)
    check_labels([known], [annotations], TAXONOMY)
    found = harmonise(known, [a, b], annotations, TAXONOMY)
    assert [one.findings[0].term for one in found.images] == ["gastric_polyp", "angle"]
    strict = source({"odd": {"exclude": "unclear"}})
    assert with_named_labels(strict, annotations, TAXONOMY) is strict


def test_a_label_of_its_own_entry_is_not_overruled_by_its_name():
    annotations = [said(image("a.png"), "gastric polyp")]
    own = source({"gastric polyp": "polyp_unspecified"}).model_copy(update={"labels_by_name": True})
    assert with_named_labels(own, annotations, TAXONOMY).labels["gastric polyp"].term == "polyp_unspecified"


def test_an_unknown_label_still_stops_where_names_are_known():
    annotations = [said(image("a.png"), "no such thing")]
    known = with_named_labels(source({}).model_copy(update={"labels_by_name": True}), annotations, TAXONOMY)
    with pytest.raises(LabelError, match="own: 'no such thing', 1 times"):
        check_labels([known], [annotations], TAXONOMY)


def test_the_use_of_a_label_names_every_level_above_its_term():
    a = image("a.png")
    rules = {"polyp": "gastric_polyp", "odd": {"exclude": "unclear"}}
    uses = {use.label: use for use in harmonise(source(rules), [a], [said(a, "polyp"), said(a, "odd")], TAXONOMY).uses}
    assert uses["polyp"].hierarchy == ("pathological_findings", "gastric_diseases", "gastric_polyp")
    assert uses["odd"].hierarchy == ()


def test_boxes_that_differ_by_the_rounding_of_a_file_are_one():
    a = image("a.png")
    near = Box(x0=0, y0=0, x1=0.400001, y1=1)
    apart = Box(x0=0, y0=0, x1=0.401, y1=1)
    found = harmonise(source({"p": "gastric_polyp"}), [a], [said(a, "p", one) for one in (LEFT, near, apart)], TAXONOMY)
    assert found.images[0].findings[0].boxes == (LEFT, apart)
