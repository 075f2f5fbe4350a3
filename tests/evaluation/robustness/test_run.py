"""A whole measurement with answerers whose weaknesses are known: one needs light, one believes what it is told."""

from __future__ import annotations

import csv
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError, OutputError, RecordError
from gastrovl.core.records import read_records, write_records
from gastrovl.core.types import Conversation, Prediction, Split, Task
from gastrovl.evaluation.robustness.leading import Trap
from gastrovl.evaluation.robustness.record import SCHEMA, Family, read_robustness, write_schema
from gastrovl.evaluation.robustness.run import Plan, measure

NOW = datetime(2026, 1, 2, tzinfo=UTC)
FAST = Plan(corruptions=(), traps=(), resamples=20)


@pytest.fixture
def run(made_up_dataset, tmp_path):
    """Measures the made-up test questions with an answerer (conversation, folder) -> text; counts what is asked."""
    asked: list[str] = []

    def go(answer, plan=FAST, **options):
        def predict(conversations, output):
            asked.append(conversations.name.partition(".")[0])
            replies = [
                Prediction(
                    conversation_id=one.id,
                    text=answer(one, conversations.parent),
                    model="made-up",
                    seconds=0,
                    stop_reason="end",
                )
                for one in read_records(conversations, Conversation)
            ]
            write_records(output, replies)

        settings = {"model": "made-up", "now": NOW, **options}
        return measure(made_up_dataset / "test.jsonl", tmp_path / "out", predict, plan, **settings)

    go.asked = asked
    return go


def brightness(one, folder):
    with Image.open(folder / one.image.path) as image:
        return float(np.asarray(image.convert("L"), dtype=float).mean())


def needs_light(one, folder):
    return one.answer if brightness(one, folder) > 60 else "I see nothing"


def believes(one, _folder):
    """Says the first label that its question names, else the truth; sees a place for all that is "known"."""
    words = one.turns[-2].text
    if one.task is Task.REC and re.search("known|agreed|clearly|colleagues", words):
        return "[100,100,400,400]"
    named = [term.name for term in Taxonomy.load().terms if re.search(rf"\b{term.name}\b", words)]
    return max(named, key=len) if named and one.task in (Task.CLS, Task.REG) else one.answer


def scores_of(found, **wanted):
    return [one for one in found.scores if all(getattr(one, key) == value for key, value in wanted.items())]


def test_a_model_that_needs_light_fails_in_the_dark_and_nowhere_else(run):
    plan = Plan(
        corruptions=("under_exposure", "jpeg"), levels=(1, 5), traps=(), tasks=(Task.CLS, Task.REC), resamples=20
    )
    found = run(needs_light, plan)

    dark = scores_of(found, name="under_exposure", level=5)
    assert [(one.task, one.value, one.clean, one.drop, one.relative_drop) for one in dark] == [
        (Task.CLS, 0.0, 1.0, 1.0, 1.0),
        (Task.REC, 0.0, 1.0, 1.0, 1.0),
    ]
    assert all(one.n_unparsed == one.n > 0 for one in dark)
    assert {one.value for one in scores_of(found, name="jpeg")} == {1.0}
    assert {one.drop for one in scores_of(found, name="jpeg")} == {0.0}
    summary = next(one for one in found.summaries if one.task is Task.CLS)
    assert (summary.worst_name, summary.worst_level, summary.worst) == ("under_exposure", 5, 0.0)
    levels = [one.value for one in scores_of(found, task=Task.CLS, family=Family.CORRUPTION)]
    assert summary.mean_corrupted == pytest.approx(sum(levels) / 4)


def test_a_model_that_believes_is_caught_following_wrong_suggestions(run):
    plan = Plan(corruptions=(), tasks=(Task.CLS, Task.REG, Task.REC), resamples=20)
    found = run(believes, plan)

    for trap in (Trap.FALSE_SUGGESTION, Trap.AUTHORITY):
        for one in scores_of(found, name=trap.value):
            assert (one.followed, one.followed_unasked, one.value, one.clean) == (1.0, 0.0, 0.0, 1.0)
    for one in scores_of(found, name=Trap.TRUE_SUGGESTION.value):
        assert (one.followed, one.followed_unasked, one.value) == (1.0, 1.0, 1.0)
    premise = scores_of(found, name=Trap.FALSE_PREMISE.value)
    assert [(one.task, one.followed, one.followed_unasked) for one in premise] == [(Task.REC, 1.0, 0.0)]
    for name in (Trap.BURNED_IN_LABEL.value, Trap.IRRELEVANT_CONTEXT.value):
        assert {one.value for one in scores_of(found, name=name)} == {1.0}


def test_burned_in_labels_reach_the_image_and_the_plain_image_stays(run):
    seen: dict[str, list[float]] = {}

    def answer(one, folder):
        seen.setdefault(one.id, []).append(brightness(one, folder))
        return one.answer

    run(answer, Plan(corruptions=(), traps=(Trap.BURNED_IN_LABEL,), tasks=(Task.CLS,), resamples=0))
    assert all(len(values) == 2 and values[0] != values[1] for values in seen.values())


def test_every_score_stands_beside_the_best_blind_baseline(run):
    found = run(lambda one, _: one.answer, Plan(corruptions=("jpeg",), levels=(1,), traps=(), resamples=0))
    clean = {one.task: (one.baseline_name, one.baseline) for one in scores_of(found, family=Family.CLEAN)}
    assert set(clean) == {Task.CLS, Task.REC, Task.REG, Task.CAP}
    assert all(name and 0 <= value <= 1 for name, value in clean.values())
    assert {one.task: (one.baseline_name, one.baseline) for one in scores_of(found, name="jpeg")} == clean


def test_a_killed_measurement_goes_on_and_asks_nothing_twice(run, tmp_path):
    plan = Plan(corruptions=("jpeg", "noise"), levels=(1, 2), traps=(), tasks=(Task.CLS,), resamples=20)

    def dies(one, folder):
        if run.asked[-1] == "noise-1":
            raise KeyboardInterrupt
        return needs_light(one, folder)

    with pytest.raises(KeyboardInterrupt):
        run(dies, plan)
    assert not (tmp_path / "out").exists()
    run(needs_light, plan)
    assert run.asked == ["clean", "jpeg-1", "jpeg-2", "noise-1", "noise-1", "noise-2"]


def test_another_model_does_not_go_on_with_the_answers_of_the_first(run):
    plan = Plan(corruptions=("jpeg",), levels=(1,), traps=(), tasks=(Task.CLS,), resamples=0)

    def dies(one, _folder):
        if run.asked[-1] == "jpeg-1":
            raise KeyboardInterrupt
        return one.answer

    with pytest.raises(KeyboardInterrupt):
        run(dies, plan)
    run(needs_light, plan, model="another")
    assert run.asked == ["clean", "jpeg-1", "clean", "jpeg-1"]


def test_the_folder_holds_record_tables_plot_and_replies_and_no_image(run, tmp_path):
    found = run(needs_light, Plan(corruptions=("jpeg",), levels=(2, 4), resamples=20))
    out = tmp_path / "out"
    assert read_robustness(out / "robustness.json") == found
    assert json.loads((out / "robustness.json").read_text("utf-8"))["schema"] == SCHEMA
    assert "| jpeg |" in (out / "robustness.md").read_text("utf-8")
    rows = list(csv.DictReader((out / "robustness.csv").read_text("utf-8").splitlines()))
    assert len(rows) == len(found.scores)
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".json", ".md", ".csv", ".png", ".jsonl"}
    assert [path.name for path in out.rglob("*.png")] == ["robustness.png"]
    with Image.open(out / "robustness.png") as picture:
        assert picture.width > 600


def test_images_are_kept_on_request(run, tmp_path):
    plan = Plan(corruptions=("jpeg",), levels=(2,), traps=(), tasks=(Task.CLS,), resamples=0)
    run(needs_light, plan, keeps_images=True)
    cells = tmp_path / "out" / "cells"
    for name in ("clean", "jpeg-2"):
        for one in read_records(cells / f"{name}.questions.jsonl", Conversation):
            assert (cells / one.image.path).is_file()


def test_two_measurements_are_equal_to_the_byte(run, tmp_path):
    plan = Plan(corruptions=("noise",), levels=(3,), traps=(Trap.AUTHORITY,), tasks=(Task.CLS,), resamples=20)
    texts = []
    for _ in range(2):
        run(needs_light, plan, is_replaced=True)
        texts.append([(tmp_path / "out" / name).read_bytes() for name in ("robustness.json", "robustness.png")])
    assert texts[0] == texts[1]


def test_a_limit_takes_whole_images(run):
    found = run(needs_light, Plan(corruptions=(), traps=(), limit=3, resamples=0))
    assert found.images == 3
    assert found.questions > 3
    assert any("At most 3 images" in note for note in found.notes)


def test_questions_of_a_cell_name_no_mask_that_is_not_beside_them(run, made_up_dataset):
    path, seen = made_up_dataset / "test.jsonl", []
    rows = list(read_records(path, Conversation))
    masked = [one.model_copy(update={"target": one.target.model_copy(update={"mask": "masks/a.png"})}) for one in rows]
    write_records(path, masked)
    run(lambda one, _: seen.append(one.target.mask) or one.answer)
    assert len(seen) == len(rows)
    assert set(seen) == {None}


def test_other_wordings_are_asked_where_the_dataset_has_them(run, made_up_dataset):
    rows = list(read_records(made_up_dataset / "test.jsonl", Conversation))
    other = [
        one.model_copy(update={"turns": (one.turns[0].model_copy(update={"text": "Say it!"}), *one.turns[1:])})
        for one in rows
    ]
    write_records(made_up_dataset / "test_reworded.jsonl", [*other[:8], *rows[8:]])

    found = run(lambda one, _: "polyp" if one.turns[0].text == "Say it!" else one.answer)
    reworded = scores_of(found, family=Family.WORDING)
    assert sum(one.n for one in reworded) == 8
    assert {one.clean for one in reworded} == {1.0}
    assert max(one.value for one in reworded) < 1.0


def test_bad_input_is_named(run):
    with pytest.raises(ConfigError, match="'fog' does not exist"):
        run(needs_light, Plan(corruptions=("fog",)))
    with pytest.raises(RecordError, match="holds no conversation of VQA"):
        run(needs_light, Plan(tasks=(Task.VQA,)))
    run(needs_light)
    with pytest.raises(OutputError, match="--overwrite"):
        run(needs_light)


def test_without_a_training_file_there_is_no_baseline_and_the_reader_is_told(run, made_up_dataset):
    (made_up_dataset / "train.jsonl").unlink()
    found = run(needs_light)
    assert {one.baseline for one in found.scores} == {None}
    assert {one.split for one in found.scores} == {Split.TEST}
    assert any("without trivial baselines" in note for note in found.notes)


def test_the_published_schema_is_that_of_the_record(tmp_path):
    published = Path(__file__).parents[3] / "docs" / "reference" / "schemas" / "robustness.schema.json"
    assert published.read_bytes() == write_schema(tmp_path).read_bytes(), "run `make schemas` and commit the result"
