from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pytest
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ImageError, OutputError, PredictionError, RecordError
from gastrovl.core.types import Score, Split, Task
from gastrovl.evaluation.evaluate import evaluate, score_items
from gastrovl.evaluation.items import read_items
from gastrovl.evaluation.questions import read_questions
from gastrovl.evaluation.results import SCHEMA, read_results, results_schema, write_schema

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def run(made_up_dataset, reply_with, tmp_path):
    """Answers every test question with `reply` and evaluates."""

    def go(reply, **options):
        predictions = reply_with(made_up_dataset / "test.jsonl", tmp_path / "replies.jsonl", reply)
        settings = {"resamples": 20, "now": NOW, **options}
        return evaluate(predictions, made_up_dataset / "test.jsonl", tmp_path / "out", **settings)

    return go


@pytest.fixture
def score(finished_run, reply_with, tmp_path):
    """Answers every question of a split with `reply` and scores that in memory, without images and files."""

    def go(reply, split="test", tasks=tuple(Task), **options):
        conversations = finished_run / "data" / f"{split}.jsonl"
        predictions = reply_with(conversations, tmp_path / "replies.jsonl", reply)
        known = [one for one in read_questions(finished_run / "data" / "train.jsonl") if one.task in tasks]
        items = read_items(predictions, conversations, Taxonomy.load())
        return score_items(items, known, None, Taxonomy.load(), **{"resamples": 0, "seed": 7, **options})

    return go


@pytest.fixture(scope="module")
def perfect(finished_run, reply_with, tmp_path_factory):
    """Results and folder of an evaluation in which every reply is the true text; not to be changed."""
    folder = tmp_path_factory.mktemp("perfect")
    conversations = finished_run / "data" / "test.jsonl"
    predictions = reply_with(conversations, folder / "replies.jsonl", lambda one: one.answer)
    return evaluate(predictions, conversations, folder / "out", resamples=20, now=NOW), folder / "out"


# Nothing of the kind is in the made-up captions; and the one metric of which a perfect reply has none.
UNSTATED = {"fact_f1_size", "fact_f1_grade", "fact_f1_count", "fact_f1_site", "contradictions"}


def test_perfect_replies_score_exactly_one_everywhere(perfect):
    results, _ = perfect
    assert {score.value for score in results.scores if score.metric not in UNSTATED} == {1.0}
    assert {score.value for score in results.scores if score.metric == "contradictions"} == {0.0}
    assert {score.n_unparsed for score in results.scores} == {0}
    bounds = {(score.low, score.high): score.reason for score in results.scores if score.metric not in UNSTATED}
    assert set(bounds) <= {(1.0, 1.0), (None, None)}
    assert "one group" in bounds.get((None, None), "one group")  # a size of box that one patient alone has


# -1 for a missing box; no label or fact was said, so none was wrong
WITHOUT_ZERO = {"giou", "hierarchical_precision", "fact_precision", "negation_accuracy"} | UNSTATED


def test_empty_replies_are_all_unread_and_score_zero(score):
    results = score(lambda _: "")
    assert {score.value for score in results.scores if score.metric not in WITHOUT_ZERO} == {0.0}
    assert {score.value for score in results.scores if score.metric == "giou"} == {-1.0}
    assert all(score.n_unparsed == score.n for score in results.scores)
    assert {reason for replies in results.replies for reason in replies.reasons} == {"the reply is empty"}


def test_every_score_stands_beside_the_best_of_its_baselines(perfect):
    results, _ = perfect
    for score in results.scores:
        rivals = [
            one.value
            for one in results.baselines
            if (one.task, one.metric, one.dataset) == (score.task, score.metric, score.dataset)
        ]
        if score.metric in UNSTATED - {"contradictions"}:
            assert score.baseline is None
            assert score.value is None
            continue
        best = min if score.metric == "contradictions" else max
        assert score.baseline == best(value for value in rivals if value is not None)
        assert score.baseline_name


def test_every_task_is_scored_by_dataset_overall_and_as_unweighted_mean(score):
    results = score(lambda one: "gastric ulcer" if one.source == "drawn" and one.task is Task.CLS else one.answer)
    found = {s.dataset: s for s in results.scores if s.task is Task.CLS and s.metric == "accuracy"}
    assert list(found) == ["drawn", "sketched", "all", "mean"]
    drawn, sketched = found["drawn"], found["sketched"]
    assert sketched.value == 1.0
    assert found["all"].value == pytest.approx((drawn.value * drawn.n + sketched.n) / (drawn.n + sketched.n))
    assert found["mean"].value == pytest.approx((drawn.value + 1.0) / 2)
    assert found["mean"].n == found["all"].n == 16


def test_results_carry_the_fields_that_the_issue_of_scores_promises(perfect):
    content = json.loads((perfect[1] / "results.json").read_text("utf-8"))
    assert content["schema"] == SCHEMA
    assert set(content["scores"][0]) == set(Score.model_fields)
    assert {score["split"] for score in content["scores"]} == {"test"}


def test_results_survive_the_way_through_the_file(perfect):
    results, folder = perfect
    assert read_results(folder / "results.json") == results


def test_the_schema_of_results_names_every_field(perfect):
    content = json.loads((perfect[1] / "results.json").read_text("utf-8"))
    schema = results_schema()
    assert list(schema["properties"]) == list(content)
    assert set(content) - set(schema["required"]) == {"notes", "bertscore"}


def test_the_published_schema_is_the_one_of_the_code(repository, tmp_path):
    published = repository / "docs" / "reference" / "schemas" / "results.schema.json"
    remedy = "run `python -m gastrovl.evaluation.results docs/reference/schemas` and commit the result"
    assert published.read_bytes() == write_schema(tmp_path).read_bytes(), remedy


def test_the_folder_holds_tables_plots_and_a_manifest_with_hashes(perfect):
    _, folder = perfect
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"results.json", "tables.md", "tables.csv", "tables.tex", "manifest.json"} < files
    assert {
        "plots/scores_CLS_test.png",
        "plots/overview_test.png",
        "plots/datasets_test.png",
        "plots/iou_test.png",
    } < files
    assert {"plots/confusion_CLS_test.png", "plots/confusion_REG_test.png"} < files
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert list(manifest["inputs"]) == ["predictions: replies.jsonl", "conversations: test.jsonl", "train: train.jsonl"]
    assert str(folder.parent) not in json.dumps(manifest)


def test_the_same_input_gives_the_same_bytes(run, tmp_path):
    def content():
        return {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}

    run(lambda one: one.answer if "1" in one.id else "angle")
    first = content()
    run(lambda one: one.answer if "1" in one.id else "angle", is_replaced=True)
    assert content() == first


def test_without_images_the_neighbour_is_left_out_and_this_is_said(run, made_up_dataset):
    shutil.rmtree(made_up_dataset / "images")
    results = run(lambda one: one.answer, uses_images=False)
    assert "nearest neighbour" not in {one.name for one in results.baselines}
    assert any("nearest-neighbour baseline was left out" in note for note in results.notes)


def test_a_missing_image_ends_the_evaluation_and_leaves_nothing(run, made_up_dataset, tmp_path):
    (made_up_dataset / "images" / "sketched" / "0.png").unlink()
    with pytest.raises(ImageError, match=r"0\.png: no such image"):
        run(lambda one: one.answer)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_an_image_that_cannot_be_decoded_is_named(run, made_up_dataset):
    (made_up_dataset / "images" / "sketched" / "0.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"0\.png: the file is empty"):
        run(lambda one: one.answer)


def test_a_missing_training_file_is_named_with_the_option(run, made_up_dataset):
    (made_up_dataset / "train.jsonl").unlink()
    with pytest.raises(RecordError, match=r"train\.jsonl: no such file.*--train FILE"):
        run(lambda one: one.answer)


def test_another_training_file_may_be_named(run, made_up_dataset):
    (made_up_dataset / "train.jsonl").rename(made_up_dataset / "before.jsonl")
    results = run(lambda one: one.answer, train=made_up_dataset / "before.jsonl")
    assert all(score.baseline is not None for score in results.scores if score.metric not in UNSTATED)


def test_an_existing_evaluation_is_replaced_only_on_request(run, tmp_path):
    run(lambda one: one.answer)
    with pytest.raises(OutputError, match="--overwrite"):
        run(lambda _: "")
    kept = read_results(tmp_path / "out" / "results.json").scores
    assert {score.value for score in kept if score.metric not in UNSTATED} == {1.0}


def test_refused_predictions_leave_no_folder(made_up_dataset, tmp_path):
    (tmp_path / "replies.jsonl").write_text("")
    with pytest.raises(PredictionError):
        evaluate(tmp_path / "replies.jsonl", made_up_dataset / "test.jsonl", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_groups_that_were_trained_on_are_pointed_out(score):
    notes = score(lambda one: one.answer, split="train").notes
    assert any("12 groups" in note and "memorised" in note for note in notes)


def test_a_task_without_training_questions_is_scored_and_the_gap_noted(score):
    results = score(lambda one: one.answer, tasks=(Task.CLS, Task.REC, Task.REG))
    assert {one.baseline for one in results.scores if one.task is Task.CAP} == {None}
    assert "CAP test: no baseline, for the training file holds no such conversation." in results.notes


def test_progress_is_told_to_the_end(score):
    told = []
    score(lambda one: one.answer, progress=lambda *state: told.append(state))
    assert told[-1] == ("scoring", 4, 4)


def test_splits_in_one_file_are_scored_apart(made_up_dataset, reply_with, tmp_path):
    both = made_up_dataset / "both.jsonl"
    both.write_text(
        "".join((made_up_dataset / f"{name}.jsonl").read_text("utf-8") for name in ("val", "test")), "utf-8"
    )
    predictions = reply_with(both, tmp_path / "replies.jsonl", lambda one: one.answer if one.split == "val" else "")
    items = read_items(predictions, both, Taxonomy.load())
    known = read_questions(made_up_dataset / "train.jsonl")
    results = score_items(items, known, None, Taxonomy.load(), resamples=0, seed=7)
    right = [one for one in results.scores if one.split is Split.VAL and one.n and one.metric not in UNSTATED]
    assert {one.value for one in right} == {1.0}
    unread = [one for one in results.scores if one.split is Split.TEST and one.n]
    assert {one.value for one in unread if one.metric not in WITHOUT_ZERO} == {0.0}


def test_results_of_another_version_are_refused(tmp_path):
    (tmp_path / "results.json").write_text('{"schema": "gastrovl/results/0"}')
    with pytest.raises(RecordError, match="found schema 'gastrovl/results/0', expected 'gastrovl/results/1'"):
        read_results(tmp_path / "results.json")


def test_half_written_results_are_refused_with_their_line(tmp_path):
    (tmp_path / "results.json").write_text('{"schema":\n')
    with pytest.raises(RecordError, match=r"results\.json:2: not whole JSON"):
        read_results(tmp_path / "results.json")


def test_plots_are_pictures(perfect):
    paths = list((perfect[1] / "plots").glob("*.png"))
    assert paths
    for path in paths:
        with Image.open(path) as picture:
            assert min(picture.size) > 200
