"""Published families through whole runs: train, answer, evaluate; resume; eight conversations by heart."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file
from typer.testing import CliRunner

from gastrovl.cli.app import app
from gastrovl.core.errors import CheckpointError, ConfigError
from gastrovl.core.images import open_image
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Prediction, Task
from gastrovl.evaluation.evaluate import evaluate
from gastrovl.inference import question
from gastrovl.inference.batch import predict_file
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.config import ModelConfig
from gastrovl.model.published.snapshot import load_snapshot
from gastrovl.training import stagerun
from gastrovl.training.config import Part, StageConfig, TrainConfig
from gastrovl.training.planning.estimate import estimate
from gastrovl.training.stages import open_parts, part_of
from gastrovl.training.train import train
from gastrovl.training.watching.joblog import JsonlLog

FAMILIES = ("llava", "qwen2_5_vl", "gemma3", "smolvlm")
ALIGN = {"name": "align", "tasks": ["CAP"], "trains": ["projector"], "learning_rate": 1e-3, "steps": 2}
ALIGN |= {"contrastive_weight": 0.1}
INSTRUCT = {
    "name": "instruct",
    "tasks": ["CLS", "REC", "REG", "CAP"],
    "trains": ["lora", "projector"],
    "learning_rate": 1e-3,
    "steps": 4,
    "images_per_step": 2,
}
PARTS = {  # a module of each part, and where it stands
    "llava": ("vision_tower.", "multi_modal_projector.linear_1", "language_model."),
    "qwen2_5_vl": ("visual.blocks", "visual.merger.mlp", "language_model."),
    "qwen2_vl": ("visual.blocks", "visual.merger.mlp", "language_model."),
    "gemma3": ("vision_tower.", "multi_modal_projector.mm_input", "language_model."),
    "smolvlm": ("vision_model.", "connector.modality", "text_model."),
    "idefics3": ("vision_model.", "connector.modality", "text_model."),
}


@pytest.fixture
def configured(tiny_data, snapshot, side_of):
    """`configured(family, stages)`: a run that fine-tunes that family's tiny model on drawn images."""

    def build(family, stages=(ALIGN, INSTRUCT), images=3, **others):
        file = tiny_data(images=images)
        model = {"huggingface": str(snapshot(family)), "image_size_px": side_of.get(family)}
        model |= {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
        content = {"name": f"my-{family}", "model": model, "train": str(file), "stages": stages, "log_every": 1}
        return TrainConfig.model_validate(content | others)

    return build


def run(config, output, **others):
    said = []
    train(config, output, show_bar=False, say=said.append, **others)
    return said


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_trained_answers_and_is_evaluated(configured, tmp_path, monkeypatch, family):
    monkeypatch.setattr(question, "MAX_NEW_TOKENS", dict.fromkeys(Task, 16))
    config = configured(family, images=2, val_images=1, evaluate_every=4)
    config = config.model_copy(update={"val": config.train})

    said = run(config, tmp_path / "run")
    predictor = Predictor.load(tmp_path / "run", "cpu")
    answered = predict_file(predictor, config.train, tmp_path / "predictions.jsonl", batch_size=3)
    results = evaluate(
        tmp_path / "predictions.jsonl", config.train, tmp_path / "evaluation", train=config.train, resamples=0
    )

    assert answered == 8
    assert said[0].startswith(f"model my-{family}: 0.")
    assert {row.split()[0] for row in said[2:5]} == {"vision", "projector", "language"}
    predictions = list(read_records(tmp_path / "predictions.jsonl", Prediction))
    assert {one.model for one in predictions} == {f"my-{family}"}
    assert len({score.task for score in results.scores}) >= 3
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("eval_rec_exact" in line for line in log)
    before = load_file(f"{config.model.huggingface}/model.safetensors")
    after = load_file(tmp_path / "run" / "model.safetensors")
    moved = {part_of("model." + name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == {Part.LANGUAGE, Part.PROJECTOR}


@pytest.mark.parametrize("family", PARTS)
def test_every_family_has_its_three_parts(snapshot, side_of, family):
    model = load_snapshot(snapshot(family), side_of.get(family))[0]
    names = [name for name, _ in model.named_parameters()]

    for part, inside in zip((Part.VISION, Part.PROJECTOR, Part.LANGUAGE), PARTS[family], strict=True):
        assert {part_of(name) for name in names if inside in name} == {part}
    assert {part_of(name) for name in names if "lm_head" in name} <= {Part.LANGUAGE}


def test_what_a_tower_says_last_is_trained_only_where_it_is_read(snapshot):
    def opened(family):
        model = load_snapshot(snapshot(family))[0]
        content = {"name": "see", "tasks": ["CAP"], "trains": ["vision"], "learning_rate": 1e-3, "steps": 1}
        open_parts(model, StageConfig.model_validate(content))
        return [name for name, p in model.named_parameters() if p.requires_grad]

    llava, gemma = opened("llava"), opened("gemma3")

    # LLaVA reads the last hidden state but one of three blocks; Gemma the last one, behind the norm
    assert not any("post_layernorm" in name or "layers.2." in name for name in llava)
    assert any("layers.1." in name for name in llava)
    assert any("post_layernorm" in name for name in gemma)
    assert any("layers.1." in name for name in gemma)


class Interrupted(JsonlLog):
    """Stops a run as Ctrl-C would, after the third step of the second stage."""

    def on_log(self, args, state, control, logs=None, **others):
        super().on_log(args, state, control, logs, **others)
        if self.stage == "instruct" and state.global_step == 3:
            raise KeyboardInterrupt


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(configured, tmp_path, monkeypatch):
    config = configured("qwen2_5_vl", images=2, save_every=2, augment={"smallest_crop": 0.7})
    run(config, tmp_path / "whole")

    with monkeypatch.context() as patch:
        patch.setattr(stagerun, "JsonlLog", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "parts")
    run(config, tmp_path / "parts", resume=True)

    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_eight_conversations_of_all_tasks_are_learnt_by_heart(configured, tmp_path, family):
    stage = INSTRUCT | {"trains": ["vision", "projector", "language"], "steps": 90, "learning_rate": 1e-2}
    stage |= {"weight_decay": 0.0, "warmup": 0.1}
    config = configured(family, (stage,), images=2, log_every=90)
    run(config, tmp_path / "run")
    conversations = list(read_records(config.train, Conversation))

    replies = Predictor.load(tmp_path / "run", "cpu").answer(
        [
            Question(
                open_image(tmp_path / "data" / one.image.path), tuple((turn.role, turn.text) for turn in one.turns[:-1])
            )
            for one in conversations
        ],
        max_new_tokens=40,
    )

    assert [reply.text for reply in replies] == [one.answer for one in conversations]
    assert {reply.stop_reason for reply in replies} == {"end"}


def test_a_run_goes_on_from_a_fine_tuned_model(configured, tmp_path):
    config = configured("smolvlm", (ALIGN,))
    run(config, tmp_path / "first")

    run(config.model_copy(update={"start_from": str(tmp_path / "first")}), tmp_path / "second")

    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    moved = [name for name in first if not torch.equal(first[name], second[name])]
    assert moved
    assert all("connector" in name for name in moved)


def test_the_model_card_names_the_model_that_was_fine_tuned(configured, tmp_path):
    run(configured("gemma3", (ALIGN,)), tmp_path / "run")

    text = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "random weights" not in text
    assert "Gemma3ForConditionalGeneration.from_pretrained" in text
    assert "`gemma3` layout, loads in plain transformers" in text


def test_no_estimate_is_made_and_it_says_what_to_do(configured, tmp_path):
    config = configured("llava", (ALIGN,))
    run(config, tmp_path / "run")

    with pytest.raises(ConfigError, match="the estimate knows composed models only; train a few steps"):
        estimate(config)
    composed = config.model_copy(update={"model": ModelConfig(preset="nano"), "start_from": str(tmp_path / "run")})
    with pytest.raises(CheckpointError, match="a fine-tuned llava model, of which no estimate is made"):
        estimate(composed)


def test_a_run_goes_on_from_what_its_config_describes_only(configured, tmp_path):
    config = configured("smolvlm", (ALIGN | {"steps": 1},))
    run(config, tmp_path / "first")
    other = config.model_copy(update={"model": ModelConfig(preset="nano"), "start_from": str(tmp_path / "first")})

    with pytest.raises(ConfigError, match="first: is a fine-tuned smolvlm model; describe it under `model` as the run"):
        run(other, tmp_path / "second")


def test_a_grounding_weight_is_refused_before_the_first_step(configured, tmp_path):
    config = configured("llava", (ALIGN | {"grounding_weight": 1.0},))

    with pytest.raises(ConfigError, match="has no grounding head; leave the weight out, or train a composed model"):
        run(config, tmp_path / "run")


def test_the_commands_fine_tune_and_ask_a_published_model(configured, tmp_path):
    config = configured("gemma3", (INSTRUCT | {"steps": 1},))
    (tmp_path / "run.yaml").write_text(config.model_dump_json(exclude_none=True), encoding="utf-8")
    commands = CliRunner()

    trained = commands.invoke(app, ["train", str(tmp_path / "run.yaml"), "-o", str(tmp_path / "run")])
    asked = commands.invoke(
        app, ["ask", str(tmp_path / "run"), str(tmp_path / "data" / "0.png"), "Where is the polyp?"]
    )

    assert trained.exit_code == 0, trained.output
    assert asked.exit_code == 0, asked.output
    plain = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "run", local_files_only=True, use_safetensors=True
    )
    assert type(plain) is transformers.Gemma3ForConditionalGeneration
