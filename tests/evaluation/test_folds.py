"""Folds of a cross-validation: questions together, each fold's baselines by its own training split."""

from __future__ import annotations

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError, PredictionError, RecordError
from gastrovl.core.types import Split, Task
from gastrovl.evaluation.evaluate import evaluate
from gastrovl.evaluation.folds import read_folds, rivals


@pytest.fixture
def two_folds(made_up_dataset, reply_with, tmp_path):
    """Replies and conversations of two folds: `test` learns from train, `val` from test."""
    found = []
    for split, train in (("test", "train"), ("val", "test")):
        conversations = made_up_dataset / f"{split}.jsonl"
        replies = reply_with(conversations, tmp_path / f"{split}.jsonl", lambda one: one.answer)
        found.append((replies, conversations, made_up_dataset / f"{train}.jsonl"))
    return found


def as_test(path, folder):
    """A copy of a conversations file whose split is called test, as in every fold."""
    copy = folder / "as_test.jsonl"
    copy.write_text(path.read_text("utf-8").replace('"split":"val"', '"split":"test"'), "utf-8")
    return copy


def test_baselines_of_a_fold_know_its_own_training_split_only(two_folds):
    replies, conversations, train = zip(*two_folds, strict=True)
    both = read_folds(replies, conversations, train, Taxonomy.load())
    alone = [read_folds([one[0]], [one[1]], [one[2]], Taxonomy.load()) for one in two_folds]

    for split, single in ((Split.TEST, alone[0]), (Split.VAL, alone[1])):
        for task in (Task.CLS, Task.REC, Task.REG, Task.CAP):
            assert rivals(both, split, task, None, seed=7) == rivals(single, split, task, None, seed=7)
            assert rivals(single, split, task, None, seed=7) != []


def test_folds_are_scored_together_and_the_page_says_so(two_folds, tmp_path):
    (replies_a, asked_a, train_a), (replies_b, asked_b, train_b) = two_folds
    replies, asked = [replies_a, replies_b], [asked_a, as_test(asked_b, tmp_path)]

    results = evaluate(replies, asked, tmp_path / "out", train=[train_a, train_b], resamples=20, uses_images=False)
    alone = evaluate(replies_a, asked_a, tmp_path / "alone", train=train_a, resamples=0, uses_images=False)

    n = {one.task: one.n for one in results.replies}
    n_alone = {one.task: one.n for one in alone.replies}
    assert all(n[task] > n_alone[task] for task in n_alone)
    assert "2 folds of a cross-validation" in results.notes[1]
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "2 folds of a cross-validation" in page
    assert "--conversations test.jsonl --conversations as_test.jsonl" in page


def test_files_that_do_not_match_are_refused(two_folds, tmp_path):
    (replies_a, asked_a, train_a), (replies_b, asked_b, _) = two_folds
    with pytest.raises(ConfigError, match="found 2 files of predictions, 1 of conversations and 1 of training"):
        evaluate([replies_a, replies_b], asked_a, tmp_path / "out")
    with pytest.raises(PredictionError, match=r"stand in an earlier fold, too, e.g. .* expected folds that divide"):
        evaluate([replies_a, replies_a], [asked_a, asked_a], tmp_path / "out")
    with pytest.raises(RecordError, match=r"nowhere\.jsonl: no such file"):
        evaluate(replies_b, asked_b, tmp_path / "out", train=tmp_path / "nowhere.jsonl")
    assert train_a.is_file()
    assert not (tmp_path / "out").exists()
