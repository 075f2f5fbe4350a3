"""Whole runs: exact resume, frozen parts stay, eight conversations can be learnt by heart."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from safetensors.torch import load_file

from gastrovl.core.errors import ConfigError, ImageError, OutputError, RecordError
from gastrovl.core.images import open_image
from gastrovl.core.manifest import read_manifest
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Task
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model, load_checkpoint
from gastrovl.training import stagerun
from gastrovl.training.config import TrainConfig
from gastrovl.training.train import train
from gastrovl.training.watching.joblog import JsonlLog

ALIGN = {"name": "align", "tasks": ["CAP"], "trains": ["projector"], "learning_rate": 1e-2, "steps": 3}
INSTRUCT = {
    "name": "instruct",
    "tasks": ["CLS", "REC", "REG", "CAP"],
    "trains": ["vision", "projector", "language"],
    "learning_rate": 1e-3,
    "steps": 6,
    "images_per_step": 2,
}
TIMES = ("runtime", "per_second", "flos")


@pytest.fixture
def configured(tiny_data, tiny_model):
    """`configured(stages, connector=..., images=...)`: a run on drawn images."""

    def build(stages=(ALIGN, INSTRUCT), connector=("mlp", "siglip"), images=3, model=None, **others):
        file = tiny_data(images=images)
        return TrainConfig.model_validate(
            {"name": "tiny", "model": tiny_model(*connector, **(model or {})), "train": str(file), "stages": stages}
            | {"log_every": 1}
            | others
        )

    return build


def run(config, output, **others):
    """Train quietly; returns what was said."""
    said = []
    train(config, output, show_bar=False, say=said.append, **others)
    return said


def logged(output):
    """The log without times."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if not any(word in k for word in TIMES)} for line in lines]


def test_a_run_leaves_a_checkpoint_a_log_and_a_manifest(configured, tmp_path):
    config = configured(val=None)

    said = run(config, tmp_path / "run")

    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"model.safetensors", "config.json", "gastrovl.json", "log.jsonl", "manifest.json", "tensorboard"} <= names
    assert "stages" not in names
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert load_checkpoint(tmp_path / "run")[2].name == "tiny"
    manifest = read_manifest(tmp_path / "run")
    assert (manifest.stage, manifest.seed) == ("train", config.seed)
    assert list(manifest.inputs) == [config.train]
    assert said[0].startswith("model tiny: 0.")
    assert said[1] == "stage 1 align: CAP; 3 steps"
    assert [line.split() for line in said[2:5]] == [
        ["vision", "0", "of", f"{count_of('vision', config):,}", "frozen"],
        ["projector", "2,112", "of", "2,112", "1.0e-02"],
        ["language", "0", "of", f"{count_of('language', config):,}", "frozen"],
    ]
    assert [(line["stage"], line["step"]) for line in logged(tmp_path / "run") if "loss" in line] == [
        *(("align", step) for step in (1, 2, 3)),
        *(("instruct", step) for step in (1, 2, 3, 4, 5, 6)),
    ]


def count_of(part, config):
    model = build_model(config.model, 1)[0]
    tower = sum(p.numel() for p in model.model.vision_tower.parameters())
    projector = sum(p.numel() for p in model.model.multi_modal_projector.parameters())
    return tower if part == "vision" else sum(p.numel() for p in model.parameters()) - tower - projector


@pytest.mark.parametrize("connector", [("mlp", "siglip"), ("pool", "resnet")])
def test_an_align_stage_moves_only_the_projector(configured, tmp_path, connector):
    config = configured((ALIGN,), connector)
    before = build_model(config.model, config.seed)[0].state_dict()

    run(config, tmp_path / "run")

    after = load_checkpoint(tmp_path / "run")[0].state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "multi_modal_projector" in name}


def test_what_a_frozen_tower_says_is_kept_until_the_tower_learns(configured, tmp_path):
    talk = INSTRUCT | {"trains": ["projector", "language"]}
    stages = (ALIGN, talk, INSTRUCT | {"name": "open", "steps": 2}, talk | {"name": "again", "steps": 2})
    kept = configured(stages, ("pool", "resnet"))
    anew = kept.model_copy(update={"feature_cache_gb": 0})

    said = run(kept, tmp_path / "kept")
    without = run(anew, tmp_path / "anew")

    heads = [line.split(", kept in")[0].split(": ")[0] for line in said if line.startswith(("stage", "  tower"))]
    runs, rests = "  tower runs once for 3 of 3 images", "  tower does not run"
    assert heads == ["stage 1 align", runs, "stage 2 instruct", rests, "stage 3 open", "stage 4 again", runs]
    assert not any("tower" in line for line in without)
    assert not [path for path in tmp_path.rglob("*.bin") if path.parent.parent.name != "feature-cache"]
    assert [line["loss"] for line in logged(tmp_path / "kept")[:-1] if "loss" in line] == pytest.approx(
        [line["loss"] for line in logged(tmp_path / "anew")[:-1] if "loss" in line], rel=1e-3
    )


FROZEN = (ALIGN, INSTRUCT | {"trains": ["projector", "language"]})


def test_a_later_run_on_the_same_images_reads_what_an_earlier_one_kept(configured, tmp_path):
    config = configured(FROZEN)
    first = run(config, tmp_path / "first")
    later = run(config, tmp_path / "later")
    apart = run(config.model_copy(update={"feature_cache": str(tmp_path / "own")}), tmp_path / "apart")

    assert [sum("tower runs once" in line for line in said) for said in (first, later, apart)] == [1, 0, 1]
    assert logged(tmp_path / "first") == logged(tmp_path / "later") == logged(tmp_path / "apart")
    assert len(list((tmp_path / "feature-cache").glob("*/*.bin"))) == 1
    assert len(list((tmp_path / "own").glob("*/*.bin"))) == 1


def test_validation_reads_kept_features_too(configured, tmp_path):
    stages = (ALIGN, INSTRUCT | {"trains": ["projector", "language"], "grounding_weight": 0.5, "steps": 2})
    kept = configured(stages, ("pool", "resnet"), evaluate_every=2, augment={"smallest_crop": 0.5})
    kept = kept.model_copy(update={"val": kept.train})

    said = run(kept, tmp_path / "kept")
    run(kept.model_copy(update={"feature_cache_gb": 0}), tmp_path / "anew")

    assert sum("tower" in line for line in said) == 2  # of validation; training views are drawn anew
    for one, other in zip(logged(tmp_path / "kept"), logged(tmp_path / "anew"), strict=True):
        assert one.pop("stage") == other.pop("stage")
        assert one == pytest.approx(other, rel=1e-3)


def test_a_full_disk_changes_nothing_but_the_time(configured, tmp_path, monkeypatch):
    config = configured(FROZEN)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gastrovl.training.cache.store._write_all", refuse)
        said = run(config, tmp_path / "full")
    run(config.model_copy(update={"feature_cache_gb": 0}), tmp_path / "none")

    assert sum("No space left on device; the tower runs for every batch" in line for line in said) == 1
    assert logged(tmp_path / "full") == logged(tmp_path / "none")
    assert list((tmp_path / "feature-cache").rglob("*.*")) == []


def test_a_changed_byte_of_the_cache_changes_no_loss_and_is_mended(configured, tmp_path, capfd):
    config = configured(FROZEN[:1], images=2)
    run(config, tmp_path / "first")
    (payload,) = (tmp_path / "feature-cache").glob("*/*.bin")
    content = bytearray(payload.read_bytes())
    content[100] ^= 64
    payload.write_bytes(content)

    said = run(config, tmp_path / "second")

    assert capfd.readouterr().err.count(f"entry 0 of {payload} is damaged; it is made anew") == 1
    assert [line["loss"] for line in logged(tmp_path / "first") if "loss" in line] == pytest.approx(
        [line["loss"] for line in logged(tmp_path / "second") if "loss" in line], rel=1e-5
    )
    assert any("tower runs once for 1 of 2 images" in line for line in said)
    assert not any("tower runs once" in line for line in run(config, tmp_path / "third"))


VARIANTS = {
    "kept views": {
        "connector": ("pool", "resnet"),
        "augment": {"smallest_crop": 0.5},
        "cached_views": 2,
        "stages": FROZEN,
    },
    "resnet": {"connector": ("pool", "resnet"), "augment": {"smallest_crop": 0.5}},
    "in the middle of an epoch": {
        "connector": ("pool", "resnet"),
        "augment": {"smallest_crop": 0.5},
        "save_every": 3,  # three images, two a step: an epoch has two steps
    },
    "grounded": {
        "connector": ("pool", "resnet"),
        "stages": (ALIGN, INSTRUCT | {"grounding_weight": 0.5, "accumulation": 2, "images_per_step": 1}),
    },
    "lora": {
        "model": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}},
        "stages": (ALIGN, INSTRUCT | {"trains": ["vision", "projector", "lora"]}),
    },
    "recomputed": {
        "gradient_checkpointing": True,
        "model": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}},
        "stages": (ALIGN, INSTRUCT | {"trains": ["vision", "projector", "lora"]}),
    },
    "rounded": {
        "quantise": "nf4",
        "model": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}},
        "stages": (ALIGN, INSTRUCT | {"trains": ["projector", "lora"]}),
    },
    "averaged": {
        "connector": ("pool", "resnet"),
        "stages": (
            ALIGN,
            INSTRUCT | {"ema": 0.9, "early_stop": {"metric": "loss", "patience": 9}, "sampling": {"temperature": 5}},
        ),
    },
    "contrastive": {
        "stages": (
            ALIGN | {"contrastive_weight": 0.5},
            INSTRUCT | {"contrastive_weight": 0.5, "contrastive": "sigmoid"},
        ),
    },
    "lora and grounded": {
        "connector": ("pool", "resnet"),
        "model": {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}},
        "stages": (
            ALIGN,
            INSTRUCT
            | {"trains": ["vision", "projector", "lora", "language"], "layers": {"language": "-1:", "vision": "-1:"}}
            | {"grounding_weight": 0.5},
        ),
    },
}


class Interrupted(JsonlLog):
    """Stops a run as Ctrl-C would, after a logged step of the second stage."""

    step = 5

    def on_log(self, args, state, control, logs=None, **others):
        super().on_log(args, state, control, logs, **others)
        if self.stage == "instruct" and state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(configured, tmp_path, monkeypatch, variant):
    if "quantise" in VARIANTS[variant]:
        pytest.importorskip("bitsandbytes")
    config = configured(**({"save_every": 2, "evaluate_every": 2} | VARIANTS[variant]))
    config = config.model_copy(update={"val": config.train})
    run(config, tmp_path / "whole")

    with monkeypatch.context() as patch:
        patch.setattr(stagerun, "JsonlLog", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "parts")  # the last saved state is that of step 4, or 3
    said = run(config, tmp_path / "parts", resume=True)

    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")
    assert "stage 1 align: done before, weights read" in said


def test_a_run_interrupted_before_its_first_saved_state_starts_the_stage_anew(configured, tmp_path, monkeypatch):
    config = configured()
    run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(stagerun, "JsonlLog", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "parts")

    run(config, tmp_path / "parts", resume=True)

    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (
        tmp_path / "parts" / "model.safetensors"
    ).read_bytes()


def test_a_state_that_was_being_written_when_the_run_died_is_passed_over(configured, tmp_path, monkeypatch):
    config = configured(save_every=2)
    run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(stagerun, "JsonlLog", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "parts")
    half = tmp_path / "parts" / "stages" / "2-instruct" / "checkpoint-6"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")

    run(config, tmp_path / "parts", resume=True)

    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


def test_a_run_that_dies_while_its_checkpoint_is_written_keeps_its_stages(configured, tmp_path, monkeypatch):
    config = configured()

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gastrovl.training.train.write_manifest", die)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "run")
    said = run(config, tmp_path / "run", resume=True)

    assert [line for line in said if "done before" in line] == [
        "stage 1 align: done before, weights read",
        "stage 2 instruct: done before, weights read",
    ]
    assert (tmp_path / "run" / "manifest.json").is_file()


def test_the_same_seed_gives_the_same_losses_and_another_one_others(configured, tmp_path):
    config = configured((INSTRUCT,))

    for name, seed in (("first", 7), ("again", 7), ("other", 8)):
        run(config.model_copy(update={"seed": seed}), tmp_path / name)

    assert logged(tmp_path / "first") == logged(tmp_path / "again")
    assert logged(tmp_path / "first")[0]["loss"] != logged(tmp_path / "other")[0]["loss"]


def test_eight_conversations_of_all_tasks_are_learnt_by_heart(configured, tmp_path):
    stage = INSTRUCT | {"steps": 90, "learning_rate": 1e-2, "weight_decay": 0.0, "warmup": 0.1}
    config = configured((stage,), ("pool", "resnet"), images=2, log_every=90)
    run(config, tmp_path / "run")
    conversations = list(read_records(config.train, Conversation))
    folder = tmp_path / "data"

    replies = Predictor.load(tmp_path / "run", "cpu").answer(
        [
            Question(open_image(folder / one.image.path), tuple((turn.role, turn.text) for turn in one.turns[:-1]))
            for one in conversations
        ],
        max_new_tokens=40,
    )

    assert len(conversations) == 8
    assert {one.task for one in conversations} == {Task.CLS, Task.REC, Task.REG, Task.CAP}
    assert [reply.text for reply in replies] == [one.answer for one in conversations]
    assert {reply.stop_reason for reply in replies} == {"end"}


def test_a_run_goes_on_from_a_checkpoint(configured, tmp_path):
    config = configured((ALIGN,))
    run(config, tmp_path / "first")

    run(config.model_copy(update={"start_from": str(tmp_path / "first")}), tmp_path / "second")

    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) == ("multi_modal_projector" not in name) for name in first)


def test_an_unfinished_run_is_not_begun_again_by_accident(configured, tmp_path):
    config = configured()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(config.model_dump_json(), encoding="utf-8")

    with pytest.raises(OutputError, match="holds an unfinished run; pass --resume to go on with it"):
        run(config, tmp_path / "run")
    with pytest.raises(OutputError, match=r"run\.json was written by another config; resume with the same one"):
        run(config.model_copy(update={"seed": 8}), tmp_path / "run", resume=True)


def test_a_finished_run_and_foreign_folders_are_left_alone(configured, tmp_path):
    config = configured((ALIGN,))
    run(config, tmp_path / "run")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine", encoding="utf-8")

    with pytest.raises(OutputError, match="holds a finished run; choose another -o"):
        run(config, tmp_path / "run", resume=True)
    with pytest.raises(OutputError, match="holds files of something else; choose another -o"):
        run(config, tmp_path / "other")
    with pytest.raises(OutputError, match="holds no run to resume; leave --resume out"):
        run(config, tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_without_data_there_is_no_run(configured, tmp_path):
    with pytest.raises(ConfigError, match="set `train:` to a JSONL file of conversations"):
        run(configured().model_copy(update={"train": None}), tmp_path / "run")
    with pytest.raises(RecordError, match=r"none\.jsonl: no such file"):
        run(configured().model_copy(update={"train": str(tmp_path / "none.jsonl")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_broken_image_is_named_before_the_first_step(configured, tmp_path):
    for config in (configured(), configured(FROZEN)):
        (tmp_path / "data" / "1.png").write_bytes(b"")
        with pytest.raises(ImageError, match=r"1\.png: the file is empty"):
            run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_attention_that_cannot_work_here_is_refused(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="attention: flex cannot be used here: FlexAttention has no backward pass"):
        run(configured(attention="flex"), tmp_path / "a")


def test_a_stage_that_no_part_or_task_fits_is_refused(configured, tmp_path):
    with pytest.raises(ConfigError, match=r"neither model\.lora nor the preset describes adapters"):
        run(configured((ALIGN | {"trains": ["lora"]},), model={"preset": "nano"}), tmp_path / "a")
    with pytest.raises(RecordError, match="stage 'align': no conversation of VQA"):
        run(configured((ALIGN | {"tasks": ["VQA"]},)), tmp_path / "b")


def test_only_so_many_validation_images_are_used(configured, tmp_path):
    stages = (INSTRUCT | {"steps": 1},)
    config = configured(stages, images=3, val_images=1, evaluate_every=1)
    config = config.model_copy(update={"val": config.train})
    read = []

    run(config, tmp_path / "run", progress=lambda what, done, total: read.append((what, done, total)))

    assert read == [
        *(("reading images of train.jsonl", n, 3) for n in (1, 2, 3)),
        ("reading images of train.jsonl", 1, 1),
    ]
    scores = [line for line in logged(tmp_path / "run") if "eval_loss" in line]
    assert len(scores) == 1
    assert {"eval_cls_exact", "eval_rec_iou", "eval_reg_exact", "eval_cap_loss"} <= scores[0].keys()


def test_bfloat16_computes_in_mixed_precision_and_keeps_float32_weights(configured, tmp_path):
    run(configured((INSTRUCT | {"steps": 2},), ("pool", "resnet"), precision="bfloat16"), tmp_path / "run")

    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert {value.dtype for value in weights.values()} <= {torch.float32, torch.int64}
    assert all(torch.isfinite(value).all() for value in weights.values())
