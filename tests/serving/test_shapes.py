"""Schemas that a client asks for: those our answers keep to are found, all others refused before anything is asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.serving.schemas import BoxesAnswer, LabelsAnswer
from gastrovl.serving.shapes import MisfitError, check_fit, cut

LABELS = LabelsAnswer.model_json_schema(mode="serialization")
BOXES = BoxesAnswer.model_json_schema(mode="serialization")


def of(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


NUMBER, TEXT = {"type": "number"}, {"type": "string"}
FITTING = {
    "nothing in particular": ({}, LABELS),
    "one property": (of(text=TEXT), LABELS),
    "bounds that ours keep": (of(confidence={"type": "number", "minimum": 0, "maximum": 1}), LABELS),
    "looser bounds": (of(confidence={"type": "number", "minimum": -1}), LABELS),
    "a list of parts": (of(labels={"type": "array", "items": of(id=TEXT)}), LABELS),
    "what may be null": (
        of(labels={"type": "array", "items": of(probability={"anyOf": [NUMBER, {"type": "null"}]})}),
        LABELS,
    ),
    "types in a list": (of(present={"type": ["boolean", "null"]}), BOXES),
    "a mapping": (
        of(probabilities={"anyOf": [{"type": "object", "additionalProperties": NUMBER}, {"type": "null"}]}),
        LABELS,
    ),
    "four corners": (
        of(boxes={"type": "array", "items": of(pixels={"type": "array", "items": NUMBER, "minItems": 4})}),
        BOXES,
    ),
    "a definition": (
        {"$defs": {"B": of(fractions={})}, **of(boxes={"type": "array", "items": {"$ref": "#/$defs/B"}})},
        BOXES,
    ),
    "our own schema": (BOXES, BOXES),
    "our other schema": (LABELS, LABELS),
}
UNFIT = {
    "another property": (of(diagnosis=TEXT), LABELS, "ours has no 'diagnosis'"),
    "another type": (of(text=NUMBER), LABELS, "ours is of type string"),
    "null left out": (of(present={"type": "boolean"}), BOXES, "ours is of type null"),
    "tighter bounds": (of(confidence={"type": "number", "minimum": 0.5}), LABELS, "minimum"),
    "listed words": (of(text={"type": "string", "enum": ["polyp"]}), LABELS, "other values"),
    "a pattern": (of(text={"type": "string", "pattern": "^p"}), LABELS, "'pattern' is not supported"),
    "at least one box": (of(boxes={"type": "array", "minItems": 1}), BOXES, "minItems"),
    "required, not described": (
        {"type": "object", "properties": {"text": TEXT}, "required": ["model"]},
        LABELS,
        "must stand",
    ),
    "nothing else, of a mapping": ({"type": "object", "additionalProperties": False}, LABELS, "more properties"),
    "a far reference": (of(text={"$ref": "http://elsewhere/schema"}), LABELS, "another document"),
    "no such definition": (of(text={"$ref": "#/$defs/A"}), LABELS, "not there"),
    "a loop": ({"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}, LABELS, "refers to itself"),
}


@pytest.mark.parametrize("name", FITTING)
def test_a_schema_that_our_answer_keeps_to_is_accepted(name):
    check_fit(*FITTING[name])


@pytest.mark.parametrize("name", UNFIT)
def test_a_schema_that_our_answer_need_not_keep_to_is_refused(name):
    theirs, ours, complaint = UNFIT[name]

    with pytest.raises(MisfitError, match=complaint):
        check_fit(theirs, ours)


def test_an_answer_is_cut_to_what_was_asked_for():
    theirs = of(
        labels={"type": "array", "items": of(id=TEXT)}, probabilities={"anyOf": [{"type": "object"}, {"type": "null"}]}
    )
    answer = {"labels": [{"id": "polyp", "name": "polyp"}], "text": "polyp", "probabilities": {"polyp": 0.5}}

    assert cut(answer, theirs) == {"labels": [{"id": "polyp"}], "probabilities": {"polyp": 0.5}}
    assert cut({"labels": [], "probabilities": None}, theirs) == {"labels": [], "probabilities": None}


KEYWORDS = ["type", "properties", "required", "additionalProperties", "items", "prefixItems", "anyOf", "enum", "const"]
KEYWORDS += ["minimum", "minItems", "$ref", "$defs", "title", "text", "boxes", "pixels", "labels"]
JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.sampled_from(["object", "array", "string", "#/$defs/A", "text"])
    ),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), below, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), JUNK, max_size=5))
def test_no_junk_is_more_than_refused(schema):
    for ours in (LABELS, BOXES):
        try:
            check_fit(schema, ours)
        except MisfitError:
            continue
        cut(dict.fromkeys(ours["properties"]), schema)
