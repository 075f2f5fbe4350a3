"""What two texts state, paired and scored; pairs and counts worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.statements import Fact
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Status
from gastrovl.evaluation.measures.facts import best_reference, explain, measures
from gastrovl.evaluation.measures.measure import value

TAXONOMY = Taxonomy.load()
MARKS = {Status.PRESENT: "+", Status.ABSENT: "-", Status.UNCERTAIN: "?"}
PAIRS = yaml.safe_load(Path(__file__).with_name("fact_pairs.yaml").read_text(encoding="utf-8"))


def written(fact: Fact) -> str:
    return f"{MARKS[fact.status]}{fact.kind} {fact.value}" + (f" of {fact.of}" if fact.of else "")


def scores(*pairs: tuple[str | tuple[str, ...], str | None]) -> dict[str, float | None]:
    references = [wanted if isinstance(wanted, tuple) else (wanted,) for wanted, _ in pairs]
    return {one.metric: value(one) for one in measures(references, [reply for _, reply in pairs], TAXONOMY)}


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["about"] for pair in PAIRS])
def test_a_pair_of_texts_agrees_where_its_sentences_do(pair: dict[str, Any]):
    found = explain(pair["reference"], pair["reply"], TAXONOMY)
    matched = sorted(written(one) for one, _ in found.matched)
    assert matched == sorted(pair.get("matched", ()))
    assert sorted(map(written, found.missed)) == sorted(pair.get("missed", ()))
    assert sorted(map(written, found.invented)) == sorted(pair.get("invented", ()))
    assert len(found.contradicted) == pair.get("contradicted", 0)
    assert len(found.hedged) == pair.get("hedged", 0)
    assert len(found.near) == pair.get("near", 0)


def test_scores_sum_facts_over_conversations():
    found = scores(
        # 2 of 2 stated, 2 of 3 replied; the surplus one is the site
        ("Gastric ulcer, 8 mm.", "Gastric ulcer of 8 mm in the antrum."),
        # 1 of 3 stated, 1 of 1 replied; missed are a site and an attribute
        ("Red polyp in the fundus.", "Polyp."),
        (("Gastric polyp.",), None),  # 0 of 1
    )
    assert found["fact_precision"] == pytest.approx(3 / 4)
    assert found["fact_recall"] == pytest.approx(3 / 6)
    assert found["fact_f1"] == pytest.approx(2 * 3 / (4 + 6))
    assert found["fact_f1_lesion"] == pytest.approx(2 * 2 / (2 + 3))
    assert found["fact_f1_size"] == 1
    assert found["fact_f1_site"] == 0  # one invented, one missed
    assert found["fact_f1_attribute"] == 0
    assert found["fact_f1_grade"] is None
    assert found["fact_f1_count"] is None


def test_a_perfect_reply_scores_one_everywhere():
    text = "Two red gastric polyps of 8 mm in the antrum, mild gastritis. No ulcer."
    found = scores((text, text))
    assert found.pop("contradictions") == 0
    assert set(found.values()) == {1.0}


def test_lenient_credit_goes_to_what_is_implied_and_to_nothing_else():
    found = scores(("Gastric ulcer in the antrum.", "Ulcer in the stomach and a polyp."))
    assert found["fact_f1"] == 0
    # Of the reply 2 of 3, of the reference 2 of 2.
    assert found["fact_f1_lenient"] == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))


def test_negation_counts_what_is_denied_or_named_in_both():
    found = scores(
        ("Gastric ulcer. No polyp. No varices.", "Gastric ulcer. Polyp."),  # right: the ulcer; wrong: polyp, varices
        ("Possible gastric ulcer.", "Gastric ulcer. Gastric polyp."),  # wrong: the ulcer; the polyp is in one text only
    )
    assert found["negation_accuracy"] == pytest.approx(1 / 4)
    assert found["contradictions"] == pytest.approx(1 / 2)


def test_the_reference_that_is_met_best_counts():
    references = ("Gastric polyp in the antrum.", "Gastric ulcer in the antrum.", "Gastric ulcer in the red antrum.")
    assert best_reference(references, "Gastric ulcer in the antrum.", TAXONOMY) == references[1]
    assert scores((references, "Gastric ulcer in the antrum."))["fact_f1"] == 1
    assert scores((references, "Gastric polyp in the antrum."))["fact_f1"] == 1


def test_a_reference_that_states_nothing_leaves_its_conversation_out():
    found = measures([("A picture.",), ("Polyp.",)], ["Gastric ulcer.", "Polyp."], TAXONOMY)
    by_name = {one.metric: one for one in found}
    assert by_name["fact_f1"].applies.tolist() == [False, True]
    assert by_name["fact_f1"].counts.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert value(by_name["fact_precision"]) == 1
    assert all(not one.counts[0].any() for one in found)
    assert all(found is None for found in scores(("A picture.", "Gastric ulcer.")).values())


def test_an_unread_reply_states_nothing():
    found = scores(("Gastric ulcer.", None))
    assert found["fact_precision"] is None
    assert found["fact_recall"] == found["fact_f1"] == found["fact_f1_lenient"] == found["contradictions"] == 0


def test_no_conversation_gives_no_value():
    found = measures([], [], TAXONOMY)
    assert {value(one) for one in found} == {None}
    assert len({one.metric for one in found}) == len(found) == 12


TEXTS = st.lists(
    st.sampled_from(
        ["gastric ulcer", "polyp", "no", "possible", "red", "8 mm", "two", "antrum", "and", ",", ".", "small",
         "grade a", "without", "the", "is", "not seen", "mild", "stomach", "lesion", "ulcer", "with"]
    ),
    max_size=14,
).map(" ".join)  # fmt: skip


@given(TEXTS, TEXTS)
def test_pairing_puts_each_fact_in_one_place(reference: str, reply: str):
    found = explain(reference, reply, TAXONOMY)
    same = explain(reference, reference, TAXONOMY)
    assert not same.missed
    assert not same.invented
    back = explain(reply, reference, TAXONOMY)
    assert len(found.matched) == len(back.matched) or found.missed or found.invented
    counts = {one.metric: value(one) for one in measures([(reference,)], [reply], TAXONOMY)}
    stated = len(found.matched) + len(found.missed)
    if stated:
        expected = 2 * len(found.matched) / (2 * len(found.matched) + len(found.missed) + len(found.invented))
        assert counts["fact_f1"] == pytest.approx(expected)
        assert counts["fact_f1"] <= counts["fact_f1_lenient"] + 1e-12
    assert all(0 <= number <= 1 for name, number in counts.items() if number is not None and name != "contradictions")


def test_places_are_those_of_the_words():
    found = explain("A red polyp. No ulcer.", "No polyp here, but an ulcer.", TAXONOMY)
    pairs = {("polyp", "polyp"), ("ulcer", "ulcer")}
    reference, reply = "A red polyp. No ulcer.", "No polyp here, but an ulcer."
    assert {
        (reference[slice(*one.spans[0])], reply[slice(*other.spans[0])]) for one, other in found.contradicted
    } == pairs
    assert [reference[slice(*one.spans[0])] for one in found.missed if one.kind == "attribute"] == ["red"]
