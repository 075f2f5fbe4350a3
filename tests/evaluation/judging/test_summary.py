"""Means, harm, agreement and order effects of ratings that are written out in sight."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import RecordError
from gastrovl.core.types import Judgement, Rating, Task
from gastrovl.evaluation.judging.comparisons import cautious_level, middle_level
from gastrovl.evaluation.judging.judged import write_schema
from gastrovl.evaluation.judging.preferences import verdict
from gastrovl.evaluation.judging.rubric import load_rubric
from gastrovl.evaluation.judging.summary import summarise

RUBRIC = load_rubric("caption")
GROUPS = {f"c{number}": f"g{number // 2}" for number in range(8)}
TASKS = {name: Task.CAP if int(name[1]) < 4 else Task.REPORT for name in GROUPS}


def rating(number, correct, rater="anna", model="m", *, harmful=0, is_repeat=False, rubric="caption/1"):
    scores = {"correct": correct, "complete": 2, "harmful": harmful}
    return Rating(
        conversation_id=f"c{number}", model=model, rater=rater, rubric=rubric, scores=scores, is_repeat=is_repeat
    )


def judged(number, correct, *, is_swapped=False, repeat=0, judge="j", model="m", harmful=0):
    return Judgement(
        conversation_id=f"c{number}",
        models=(model,),
        judge=judge,
        rubric="caption/1",
        is_swapped=is_swapped,
        repeat=repeat,
        scores={"correct": correct, "complete": 2, "harmful": harmful},
        request_sha256="0" * 64,
    )


def compared(number, better, *, is_swapped, judge="j"):
    return Judgement(
        conversation_id=f"c{number}",
        models=("a", "b"),
        judge=judge,
        rubric="caption/1",
        is_swapped=is_swapped,
        better=better,
        request_sha256="0" * 64,
    )


def summary(judgements=(), ratings=(), **named):
    options = {"criteria": RUBRIC.criteria, "group_of": GROUPS, "task_of": TASKS, "resamples": 100} | named
    return summarise(list(judgements), list(ratings), **options)


def test_a_mean_counts_each_reply_once_however_often_it_was_rated():
    people = [rating(0, 4), rating(0, 2, "ben"), rating(1, 0)]
    found = [one for one in summary(ratings=people).means if one.criterion == "correct"]
    assert [(one.by, one.task, one.value, one.n) for one in found] == [("people", "all", 1.5, 2)]


def test_means_are_given_by_task_where_there_are_several():
    people = [rating(0, 4), rating(1, 2), rating(4, 0)]
    found = {one.task: one.value for one in summary(ratings=people).means if one.criterion == "correct"}
    assert found == {"all": 2.0, "CAP": 3.0, "REPORT": 0.0}


def test_the_hidden_repeat_of_a_reply_does_not_count_in_the_mean():
    people = [rating(0, 4), rating(0, 0, is_repeat=True)]
    assert summary(ratings=people).means[0].value == 4.0


def test_agreement_takes_the_middle_level_and_leans_to_no_side():
    assert [middle_level([0, 1]), middle_level([1, 2]), middle_level([2, 3]), middle_level([3, 4])] == [0, 2, 2, 4]
    assert middle_level([0, 1, 4]) == 1


def test_for_harm_the_worse_of_two_middle_levels_counts():
    assert cautious_level([4, 1], RUBRIC.criterion("correct")) == 1
    assert cautious_level([0, 2], RUBRIC.criterion("harmful")) == 2
    assert cautious_level([0, 0, 2], RUBRIC.criterion("harmful")) == 0


def test_harm_is_counted_by_the_median_of_the_raters():
    people = [rating(0, 0, name, harmful=level) for name, level in (("anna", 0), ("ben", 1), ("cleo", 2))]
    people += [rating(number, 0, name) for number in (1, 2, 3) for name in ("anna", "ben", "cleo")]
    found = [(one.name, one.count, one.n) for one in summary(ratings=people).harms]
    assert found == [("possible", 1, 4), ("severe", 0, 4)]
    assert summary(ratings=people).harms[1].high == pytest.approx(1 - 0.025**0.25)


def agreement(found, kind, coefficient="Cohen's kappa", criterion="correct"):
    return {
        one.between: one.value
        for one in found.agreements
        if (one.kind, one.coefficient, one.criterion) == (kind, coefficient, criterion)
    }


def test_every_pair_of_people_and_all_together_are_compared():
    people = [rating(n, level, name) for name in ("anna", "ben", "cleo") for n, level in enumerate((0, 4, 2, 3))]
    found = summary(ratings=people)
    assert agreement(found, "person, person") == {"anna / ben": 1.0, "anna / cleo": 1.0, "ben / cleo": 1.0}
    assert agreement(found, "people, all", "ICC(2,1)") == {"all 3 people": pytest.approx(1.0)}


def test_a_rater_is_compared_with_themselves_over_hidden_repeats():
    people = [rating(n, level) for n, level in enumerate((0, 4, 2))]
    people += [rating(n, level, is_repeat=True) for n, level in ((0, 0), (1, 3))]
    found = agreement(summary(ratings=people), "person, again", "same level")
    assert found == {"same person, reply shown twice": 0.5}


def test_a_judge_is_compared_with_itself_in_the_other_order_and_in_the_next_repeat():
    both = [judged(n, n, is_swapped=swapped, repeat=r) for n in range(4) for swapped in (False, True) for r in (0, 1)]
    both = [one for one in both if (one.conversation_id, one.is_swapped, one.repeat) != ("c3", True, 1)]
    both.append(judged(3, 0, is_swapped=True, repeat=1))
    found = summary(both)
    assert agreement(found, "judge, order", "same level") == {"j: as it is / swapped": 7 / 8}
    assert agreement(found, "judge, repeat", "same level") == {"j: one asking / the next": 7 / 8}


def test_two_judges_and_the_median_of_people_are_compared():
    judges = [judged(n, 4 - n, judge=name) for name in ("j", "k") for n in range(4)]
    people = [rating(n, n, name) for name in ("anna", "ben", "cleo") for n in range(4)]
    found = summary(judges, people)
    assert agreement(found, "judge, judge", "Spearman") == {"j / k": pytest.approx(1.0)}
    assert agreement(found, "judge, people", "Spearman") == {
        "j / median of people": pytest.approx(-1.0),
        "k / median of people": pytest.approx(-1.0),
    }


def test_rules_are_compared_with_correctness_alone():
    judgements = [judged(n, level) for n, level in enumerate((4, 3, 1, 0))]
    rules = {(f"c{n}", "m"): said for n, said in enumerate((1.0, 1.0, 0.0, 0.0))}
    found = summary(judgements, rules=rules, task_of=dict.fromkeys(TASKS, Task.VQA))
    assert agreement(found, "rules", "Cohen's kappa, level 3 or more") == {"j / rules": 1.0}
    assert agreement(found, "rules", "Spearman", criterion="harmful") == {}
    graded = summary(judgements, rules={key: 0.25 + one / 2 for key, one in rules.items()})
    assert agreement(graded, "rules", "Cohen's kappa, level 3 or more") == {}
    # ranks 4 3 2 1 against 3.5 3.5 1.5 1.5: covariance 4, spreads 5 and 4
    assert agreement(graded, "rules", "Spearman") == {"j / fact F1": pytest.approx(4 / 20**0.5)}  # of captions


def test_rules_of_answers_and_of_captions_are_compared_apart():
    judgements = [judged(n, level) for n, level in enumerate((4, 3, 1, 0))]
    # Captions c0, c1 are ordered as the judge orders them; answers c2, c3 the other way round.
    rules = {("c0", "m"): 0.75, ("c1", "m"): 0.5, ("c2", "m"): 0.0, ("c3", "m"): 1.0}
    tasks = {**TASKS, "c2": Task.VQA, "c3": Task.VQA}
    found = summary(judgements, rules=rules, task_of=tasks)
    assert agreement(found, "rules", "Spearman") == {
        "j / fact F1": pytest.approx(1.0),
        "j / rules": pytest.approx(-1.0),
    }
    # Levels 1 and 0 are both below 3, so that the judge calls both wrong: agreement as by chance.
    assert agreement(found, "rules", "Cohen's kappa, level 3 or more") == {"j / rules": pytest.approx(0.0)}


def test_a_shift_by_the_order_is_reported_with_its_size():
    both = [judged(n, 2 + swapped, is_swapped=bool(swapped)) for n in range(4) for swapped in (0, 1)]
    found = {one.criterion: one.value for one in summary(both).shifts}
    assert found == {"correct": 1.0, "complete": 0.0, "harmful": 0.0}


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (("first", "second"), 1),
        (("second", "first"), -1),
        (("tie", "tie"), 0),
        (("first", "first"), 0),
        (("second", "second"), 0),
        (("first", "tie"), 0),
        (("tie", "first"), 0),
    ],
)
def test_only_a_preference_of_both_orders_counts(pair, expected):
    assert verdict(pair) == expected


def test_the_place_that_wins_twice_is_counted_and_half_a_change_of_mind_as_well():
    pairs = [("first", "second"), ("first", "first"), ("second", "second"), ("first", "first"), ("tie", "first")]
    judgements = [
        compared(n, one, is_swapped=bool(place)) for n, both in enumerate(pairs) for place, one in enumerate(both)
    ]
    found = summary(judgements).preferences[0]
    assert (found.first_wins, found.second_wins, found.ties) == (1, 0, 4)
    assert (found.pairs, found.inconsistent, found.first_place, found.second_place) == (5, 4, 2, 1)


def test_a_pair_of_which_one_order_failed_does_not_count():
    found = summary([compared(0, "first", is_swapped=False), compared(1, "first", is_swapped=False)])
    assert found.preferences == ()


def test_a_judge_of_its_own_replies_is_pointed_out():
    assert any("judges its own replies" in note for note in summary([judged(0, 4, judge="m")]).notes)


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ([rating(9, 4)], "not among the conversations"),
        ([rating(0, 5)], "correct 5 fits no criterion"),
        ([rating(0, 4), rating(1, 4, rubric="caption/2")], "versions"),
    ],
)
def test_what_does_not_fit_together_is_refused(people, message):
    with pytest.raises(RecordError, match=message):
        summary(ratings=people, group_of=dict.fromkeys(GROUPS, "g"))


def test_a_judgement_holds_scores_a_preference_or_a_failure_and_never_two():
    base = {"conversation_id": "c", "models": ("m",), "judge": "j", "rubric": "r/1", "request_sha256": "0" * 64}
    for wrong in ({}, {"scores": {"correct": 1}, "failure": "no"}, {"better": "tie"}, {"scores": {}, "better": "tie"}):
        with pytest.raises(ValueError, match=r"exactly one|one with scores"):
            Judgement(**base, **wrong)


def test_the_published_schema_is_that_of_the_file(repository, tmp_path):
    published = repository / "docs" / "reference" / "schemas" / "judged.schema.json"
    assert published.read_bytes() == write_schema(tmp_path).read_bytes(), "make schemas"
