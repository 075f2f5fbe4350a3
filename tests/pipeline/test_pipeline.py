"""The whole job on thirty drawn images with a tiny model: every stage runs, resumes, and replaces only its own."""

from __future__ import annotations

import json

import pytest

import gastrovl.inference.batch as batch
from gastrovl.core.config import parse_config
from gastrovl.core.errors import ImageError, OutputError
from gastrovl.pipeline import RunConfig, run

TINY = {
    "data": {
        "sources": [{"synthetic": {"images": 30, "seed": 3}}],
        "splits": {"train": 0.6, "val": 0.2, "test": 0.2},
        "quality": {"copies": None},
        "figures": False,
    },
    "train": {
        "name": "tiny",
        "model": {
            "preset": "nano",
            "vision": {
                "config": {
                    "model_type": "resnet",
                    "embedding_size": 8,
                    "hidden_sizes": [8, 16],
                    "depths": [1, 1],
                    "layer_type": "basic",
                }
            },
            "language": {
                "config": {
                    "model_type": "llama",
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 2,
                    "tie_word_embeddings": True,
                }
            },
            "connector": {"kind": "pool", "grids": [4]},
            "image_size_px": 32,
        },
        "stages": [
            {
                "name": "see",
                "tasks": ["CLS", "REC"],
                "trains": ["vision", "projector"],
                "answer_weight": 0,
                "grounding_weight": 1.0,
                "learning_rate": 1e-3,
                "steps": 1,
                "images_per_step": 4,
            },
            {
                "name": "instruct",
                "tasks": ["CLS", "REC", "REG", "CAP"],
                "trains": ["projector", "language"],
                "learning_rate": 1e-3,
                "steps": 2,
                "images_per_step": 4,
            },
        ],
    },
    "predict": {"splits": ["test"], "batch_size": 32},
    "evaluate": {"resamples": 20},
}


def quiet(_: str) -> None:
    """Nobody listens."""


@pytest.fixture
def config() -> RunConfig:
    return parse_config(TINY, RunConfig, where="tiny run")


def test_a_run_leaves_data_checkpoint_predictions_scores_and_page(config, tmp_path):
    page = run(config, tmp_path / "run", say=quiet)
    assert page.read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html")
    left = {entry.name for entry in (tmp_path / "run").iterdir()}
    assert {"data", "train", "predictions", "evaluation", "timing.json", "manifest.json", "index.html"} <= left
    assert "feature-cache" not in left  # it lies beside, for the next run
    assert list((tmp_path / "feature-cache").glob("*/*.bin"))
    scores = json.loads((tmp_path / "run/evaluation/test/results.json").read_text(encoding="utf-8"))["scores"]
    accuracies = [score for score in scores if score["metric"] in ("accuracy", "acc@0.5", "mean_iou", "bleu4")]
    assert {score["task"] for score in accuracies} >= {"CLS", "REC", "REG"}
    assert all(score["baseline"] is not None and score["baseline_name"] for score in accuracies)
    card = (tmp_path / "run/train/README.md").read_text(encoding="utf-8")
    assert "| CLS | accuracy | test | " in card  # the model card has the scores of what was evaluated
    assert "(majority label)" in card
    with pytest.raises(OutputError, match="finished"):
        run(config, tmp_path / "run", say=quiet)


def test_an_interrupted_run_goes_on_without_training_again(config, tmp_path, monkeypatch):
    folder, honest = tmp_path / "run", batch.open_image

    def broken(path):
        raise ImageError(f"{path}: the disk went away")

    monkeypatch.setattr(batch, "open_image", broken)
    with pytest.raises(ImageError, match="the disk went away"):
        run(config, folder, say=quiet)
    trained = (folder / "train" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(batch, "open_image", honest)
    run(config, folder, say=quiet)
    assert (folder / "train" / "model.safetensors").stat().st_mtime_ns == trained
    assert (folder / "index.html").is_file()


def test_a_folder_of_something_else_is_never_replaced(config, tmp_path):
    foreign = tmp_path / "checkpoint"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match="something else"):
        run(config, foreign, is_replaced=True, say=quiet)
    assert (foreign / "config.json").is_file()
