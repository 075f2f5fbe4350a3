"""Scores by source, and folders and tables that leave one source out."""

from __future__ import annotations

import pytest
import yaml

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Split, Task
from gastrovl.evaluation.items import read_items
from gastrovl.evaluation.robustness import leftout
from gastrovl.evaluation.robustness.drops import Draws
from gastrovl.evaluation.robustness.shift import GroupBy, shifts

CONFIG = {"name": "nano", "model": {"preset": "nano"}, "stages": [], "train": "old", "seed": 3}


@pytest.fixture
def items(made_up_dataset, reply_with, tmp_path):
    """Right about the source "drawn", never about "sketched"."""
    test = made_up_dataset / "test.jsonl"
    replies = reply_with(test, tmp_path / "replies.jsonl", lambda one: one.answer if one.source == "drawn" else "?")
    return read_items(replies, test, Taxonomy.load())


@pytest.fixture
def prepared(made_up_dataset, tmp_path):
    return leftout.prepare(made_up_dataset, tmp_path / "left", CONFIG, seed=3), tmp_path / "left"


def questions(path):
    return list(read_records(path, Conversation))


def test_the_worst_source_and_the_gap_to_the_best_are_found(items):
    found = next(one for one in shifts(items, GroupBy.SOURCE, Draws(50, 7)) if one.task is Task.CLS)
    assert [(one.group, one.value) for one in found.groups] == [("drawn", 1.0), ("sketched", 0.0)]
    assert (found.best, found.worst, found.gap) == ("drawn", "sketched", 1.0)
    assert (found.gap_low, found.gap_high) == (1.0, 1.0)


def test_a_group_of_few_questions_is_shown_but_never_called_the_worst(items):
    few = [item for item in items if item.question.source == "drawn"]
    few += [item for item in items if item.question.source == "sketched" and item.question.task is Task.CLS][:4]
    found = next(one for one in shifts(few, GroupBy.SOURCE, Draws(50, 7)) if one.task is Task.CLS)
    assert [one.n for one in found.groups][1] == 4
    assert (found.worst, found.gap) == (None, None)


def test_images_of_one_size_are_one_group(items):
    found = shifts(items, GroupBy.SIZE, Draws(0, 7))[0]
    assert [one.group for one in found.groups] == ["320x240"]
    assert found.gap is None


def test_nothing_of_a_left_out_source_or_its_patients_is_trained_on(prepared, made_up_dataset):
    held, folder = prepared
    assert [one.source for one in held] == ["drawn", "sketched"]
    for one in held:
        everything = [
            row for split in Split for row in questions(made_up_dataset / f"{split}.jsonl") if row.source == one.source
        ]
        for split in (Split.TRAIN, Split.VAL):
            rows = questions(folder / one.source / f"{split}.jsonl")
            assert one.source not in {row.source for row in rows}
            assert not {row.group for row in rows} & {row.group for row in everything}
        asked = questions(folder / one.source / "test.jsonl")
        assert {row.source for row in asked} == {one.source}
        assert len(asked) == one.test


def test_a_shared_patient_leaves_training_and_is_counted(prepared, made_up_dataset):
    """Examinations of the made-up set hold images of both sources."""
    held, _ = prepared
    others = [
        row
        for split in (Split.TRAIN, Split.VAL)
        for row in questions(made_up_dataset / f"{split}.jsonl")
        if row.source != "sketched"
    ]
    without = next(one for one in held if one.source == "sketched")
    assert without.shared > 0
    val = len(questions(prepared[1] / "sketched" / "val.jsonl"))
    assert without.train + val + without.shared == len(others)


def test_every_folder_has_its_images_and_a_config_that_points_there(prepared):
    _, folder = prepared
    for name in ("drawn", "sketched", leftout.ALL_SOURCES):
        for row in questions(folder / name / "train.jsonl"):
            assert (folder / name / row.image.path).is_file()
        config = yaml.safe_load((folder / name / "train.yaml").read_text("utf-8"))
        assert config["train"] == str(folder / name / "train.jsonl")
        assert config["name"].startswith("nano-")
        assert config["seed"] == 3


def test_the_table_compares_both_models_on_the_same_questions(prepared, reply_with):
    _, folder = prepared
    everything = folder / leftout.ALL_SOURCES
    reply_with(everything / "test.jsonl", everything / "replies.jsonl", lambda one: one.answer)
    for name in ("drawn", "sketched"):
        place = folder / name
        reply_with(
            place / "test.jsonl", place / "replies.jsonl", lambda one: "?" if one.source == "drawn" else one.answer
        )

    found = leftout.gather(folder, Draws(50, 7))
    drops = {(one.source, one.task): (one.seen, one.unseen, one.drop) for one in found}
    assert drops["drawn", Task.CLS] == (1.0, 0.0, 1.0)
    assert drops["sketched", Task.CLS] == (1.0, 1.0, 0.0)
    assert "| CLS | **mean of sources** | accuracy | | 100.0 | 50.0 | 50.0 |" in leftout.to_markdown(found)


def test_missing_replies_and_a_single_source_are_named(prepared, made_up_dataset, tmp_path):
    with pytest.raises(RecordError, match=r"replies.jsonl: no such file; train with .*train.yaml"):
        leftout.gather(prepared[1], Draws(0, 7))
    for split in Split:
        path = made_up_dataset / f"{split}.jsonl"
        lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if '"source":"drawn"' in line]
        path.write_text("".join(lines), encoding="utf-8")
    with pytest.raises(RecordError, match="leaving one out needs two at least"):
        leftout.prepare(made_up_dataset, tmp_path / "other", CONFIG, seed=3)
