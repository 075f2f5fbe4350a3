"""A caption file in a build: matched by id and image, checked again, counted, and used in training only."""

from __future__ import annotations

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.records import write_records
from gastrovl.core.types import Caption, Finding, ImageRef, Sample, Split, Task, Verdict
from gastrovl.data.captioning.file import (
    Use,
    caption_for,
    caption_section,
    caption_statistics,
    load_captions,
)
from gastrovl.data.instructions import InstructionOptions, conversations_of
from gastrovl.data.wordings import Phrasing

TAXONOMY, PHRASING = Taxonomy.load(), Phrasing.load()
SAID = "An antrum whose surface shines, with a gastric ulcer."


def sample_of(name="a", split=Split.TRAIN, terms=("antrum", "gastric_ulcer"), sha256="0" * 64):
    image = ImageRef(path=f"images/{name}.jpg", width_px=320, height_px=288, sha256=sha256)
    findings = tuple(Finding(term=term) for term in terms)
    return Sample(id=f"own/{name}", image=image, source="own", group=name, split=split, findings=findings)


def caption_of(name="a", text=SAID, verdict=Verdict.ACCEPTED, **changes):
    fields = {
        "sample_id": f"own/{name}",
        "image_sha256": "0" * 64,
        "text": text,
        "verdict": verdict,
        "attempts": 1,
        "model": "tiny",
        "template": "note",
        "template_sha256": "1" * 64,
        "request_sha256": "2" * 64,
    }
    return Caption(**(fields | changes))


def use(sample, *captions):
    return caption_for(sample, {caption.sample_id: caption for caption in captions}, TAXONOMY)


def test_a_caption_that_holds_is_used():
    assert use(sample_of(), caption_of()) == (SAID, Use.USED)


@pytest.mark.parametrize(
    ("sample", "caption", "expected"),
    [
        (sample_of(), caption_of("b"), Use.NONE),
        (sample_of(sha256="3" * 64), caption_of(), Use.CHANGED_IMAGE),
        (sample_of(terms=("antrum", "gastric_polyp")), caption_of(), Use.CHANGED_RECORD),
        (sample_of(), caption_of(text="Gastric ulcer of 8 mm."), Use.CHANGED_RECORD),  # edited by hand
        (sample_of(), caption_of(text=None, verdict=Verdict.REJECTED, reasons=("form: x",)), Use.REJECTED),
        (sample_of(split=Split.TEST), caption_of(), Use.NOT_TRAINING),
        (sample_of(split=Split.VAL), caption_of("b"), Use.NONE),
    ],
)
def test_a_caption_that_does_not_hold_is_not_used_and_counted(sample, caption, expected):
    assert use(sample, caption) == (None, expected)


def test_what_became_of_captions_is_listed_in_a_fixed_order_without_what_did_not_occur():
    found = {"no caption": 1, "used": 2, "of another image": 0}
    assert list(caption_statistics([], found)["uses"].items()) == [("used", 2), ("no caption", 1)]
    assert caption_statistics([])["uses"] == {}


def test_a_file_with_two_captions_of_a_sample_is_refused(tmp_path):
    write_records(tmp_path / "c.jsonl", [caption_of(), caption_of()])
    with pytest.raises(RecordError, match="two captions of 'own/a'"):
        load_captions(tmp_path / "c.jsonl")


def test_a_rejected_caption_has_no_text_and_every_other_has_one():
    with pytest.raises(ValueError, match="expected a text unless it was rejected"):
        caption_of(verdict=Verdict.REJECTED)
    with pytest.raises(ValueError, match="expected a text unless it was rejected"):
        caption_of(text=None)


STATISTICS = caption_statistics(
    [
        caption_of("a"),
        caption_of("b", attempts=2),
        caption_of("c", verdict=Verdict.REPAIRED, reasons=("invented size: 8 mm", "invented size: 2 cm")),
        caption_of("d", None, Verdict.REJECTED, attempts=2, reasons=("invented size: 8 mm", "form: not English")),
    ]
)


def test_statistics_count_captions_by_verdict_reason_and_attempts():
    assert STATISTICS["captions"] == 4
    assert STATISTICS["verdicts"] == {"accepted": 2, "repaired": 1, "rejected": 1}
    assert STATISTICS["reasons"] == {"invented size": 2, "form": 1}  # captions, not faults
    assert STATISTICS["attempts"] == {"1": 2, "2": 2}
    assert STATISTICS["made_by"][0]["captions"] == 4


def test_the_card_states_shares_reasons_and_the_model():
    section = caption_section(STATISTICS)
    assert section.startswith("## Captions by a model\n")
    assert "| accepted | 2 | 50.0% |" in section
    assert "| invented size | 2 |" in section
    assert "`tiny`, template `note` (111111111111): 4" in section


def test_the_card_of_an_empty_file_can_be_written():
    assert "| accepted | 0 |  |" in caption_section(caption_statistics([]))


def cap(sample, caption, **options):
    found = conversations_of(
        sample, TAXONOMY, PHRASING, InstructionOptions(**options), 7, ("gastric_ulcer",), caption=caption
    )
    return [turn for one in found for turn in one.turns if one.task is Task.CAP and turn.role == "assistant"]


def test_a_caption_comes_first_in_training_and_the_grammar_stays_behind_it():
    (plain,), (said,) = cap(sample_of(), None), cap(sample_of(), SAID)
    assert said.text == SAID
    assert said.alternatives == (plain.text, plain.alternatives[0])  # three wordings in all, as before


def test_a_caption_stands_beside_the_grammar_even_where_one_wording_is_wanted():
    (plain,), (said,) = cap(sample_of(), None, captions_per_image=1), cap(sample_of(), SAID, captions_per_image=1)
    assert (said.text, said.alternatives) == (SAID, (plain.text,))


def test_a_caption_is_said_in_dialogues_too():
    turns = cap(sample_of(), SAID, tasks=("CLS", "CAP"), dialogues=1)
    assert [turn.text for turn in turns if turn.text == SAID] == [SAID, SAID]  # alone, and at a dialogue's end


@pytest.mark.parametrize("split", [Split.VAL, Split.TEST])
def test_evaluation_is_never_in_a_models_words(split):
    assert cap(sample_of(split=split), SAID) == cap(sample_of(split=split), None)


def test_no_other_conversation_changes_with_a_caption():
    def others(caption):
        found = conversations_of(
            sample_of(), TAXONOMY, PHRASING, InstructionOptions(), 7, ("gastric_ulcer",), caption=caption
        )
        return [one for one in found if one.task is not Task.CAP]

    assert others(SAID) == others(None)
