"""Cases: what is shown as the truth, whose reply is whose, and which questions are drawn."""

from __future__ import annotations

from collections import Counter

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import PredictionError, RecordError
from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Conversation, ImageRef, Split, Target, Task, Turn
from gastrovl.evaluation.items import pair
from gastrovl.evaluation.judging.cases import by_rules, choose, read_cases, reference_text, with_dialogue


def test_the_reference_says_text_other_wordings_terms_and_places():
    box = Box(x0=0.05, y0=0.05, x1=0.2, y1=0.2)
    said = (("A polyp.", "One polyp."), ("gastric_polyp", "unheard_of"), (box,), Taxonomy.load())
    text = reference_text(Task.CAP, *said)
    assert text.splitlines() == [
        "True answer: A polyp.",
        "Equally true: One polyp.",
        "On record: gastric polyp, unheard_of",
        "Place: at the upper left (small in view)",
    ]


def test_what_a_question_is_about_is_not_said_to_be_there():
    text = reference_text(Task.VQA, ("no",), ("gastric_polyp",), (), Taxonomy.load())
    assert text.splitlines() == ["True answer: no", "Asked about: gastric polyp"]


def test_replies_are_named_after_their_models_and_after_their_files_where_these_are_the_same(captions, replies):
    asked = captions(2)
    one = replies(asked, "org/net", lambda _, truth: truth)
    two = replies(asked, "other", lambda *_: "no")
    assert list(read_cases([one, two], asked)[0].replies) == ["org/net", "other"]
    again = replies(asked, "org/net", lambda *_: "no", name="later")
    assert list(read_cases([one, again], asked)[0].replies) == ["org/net (org-net)", "org/net (later)"]
    with pytest.raises(PredictionError, match="named twice"):
        read_cases([one, one], asked)


def test_rules_call_short_answers_right_or_wrong_and_captions_by_the_share_of_facts(captions, replies):
    asked = captions(2, tasks=(Task.CAP, Task.VQA))
    cases = read_cases([replies(asked, "m", lambda number, truth: truth if number < 2 else "no")], asked)
    assert {(one.id, one.rules["m"]) for one in cases} == {
        ("drawn/0#CAP", 1.0),
        ("drawn/0#VQA", 1.0),
        ("drawn/1#CAP", 0.0),
        ("drawn/1#VQA", 0.0),
    }


@pytest.mark.parametrize(
    ("caption", "reply", "said"),
    [
        # 1 of 3 stated facts (lesion, size, site), 1 of 2 replied ones
        ("Gastric ulcer of 8 mm in the antrum.", "Gastric ulcer and a polyp.", 2 * 1 / (3 + 2)),
        ("Gastric ulcer.", "", 0.0),  # unread
        ("A picture.", "Gastric ulcer.", None),  # nothing is stated, so nothing can be said
    ],
)
def test_the_rule_of_a_caption_is_its_fact_f1(question, prediction, caption, reply, said):
    one = question(Task.CAP, "a#CAP", caption=caption)
    [item] = pair([one], {one.id: prediction(one.id, reply)}, Taxonomy.load())
    assert by_rules(item) == (None if said is None else pytest.approx(said))


@pytest.fixture
def forty(captions, replies):
    asked = captions(40, tasks=(Task.CAP, Task.VQA), sources=("a", "a", "a", "b"))
    return read_cases([replies(asked, "m", lambda _, truth: truth)], asked)


def test_a_sample_holds_each_task_and_each_dataset_by_its_share(forty):
    chosen = choose(forty, tasks=None, most=8, seed=7)
    assert Counter((one.task, one.source) for one in chosen) == {
        (Task.CAP, "a"): 6,
        (Task.CAP, "b"): 2,
        (Task.VQA, "a"): 6,
        (Task.VQA, "b"): 2,
    }
    assert Counter(one.task for one in choose(forty, tasks=None, most=8, seed=7, per_task=False)) == {
        Task.CAP: 4,
        Task.VQA: 4,
    }


def test_a_small_dataset_is_drawn_at_least_once(forty):
    few = [one for one in forty if one.source == "a"] + [one for one in forty if one.source == "b"][:1]
    assert "b" in {one.source for one in choose(few, tasks=[Task.CAP], most=3, seed=1)}


def test_the_seed_alone_decides_not_the_order_of_the_file(forty):
    chosen = {one.id for one in choose(forty, tasks=None, most=8, seed=7)}
    assert {one.id for one in choose(forty[::-1], tasks=None, most=8, seed=7)} == chosen
    assert {one.id for one in choose(forty, tasks=None, most=8, seed=8)} != chosen


def test_a_larger_sample_holds_the_smaller_one_where_shares_are_even(forty):
    small, large = ({one.id for one in choose(forty, tasks=None, most=most, seed=7)} for most in (8, 16))
    assert small < large


def test_a_task_that_is_not_there_is_answered_with_those_that_are(forty):
    with pytest.raises(RecordError, match="which ask CAP, VQA"):
        choose(forty, tasks=[Task.REPORT], most=3, seed=1)


def test_earlier_turns_of_a_dialogue_stand_before_the_question(tmp_path, replies):
    turns = [("user", "What is it?"), ("assistant", "A polyp."), ("user", "Where?"), ("assistant", "Left.")]
    path = tmp_path / "talk.jsonl"
    write_records(
        path,
        [
            Conversation(
                id="t",
                sample_id="t",
                task=Task.VQA,
                image=ImageRef(path="t.png", width_px=1, height_px=1, sha256="0" * 64),
                source="s",
                group="g",
                split=Split.TEST,
                turns=tuple(Turn(role=role, text=text) for role, text in turns),
                target=Target(),
            )
        ],
    )
    cases = read_cases([replies(path, "m", lambda *_: "Left.")], path)
    assert with_dialogue(cases, path)[0].question == "user: What is it?\nassistant: A polyp.\nuser: Where?"
