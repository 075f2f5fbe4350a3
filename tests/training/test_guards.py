"""Failures in the middle of a run: what the message says, what is kept, and that the run goes on from it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from gastrovl.core.errors import DiskFullError, DivergedError, OutOfMemoryError
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration
from gastrovl.training import guards, stagerun
from gastrovl.training import train as train_module
from gastrovl.training.config import TrainConfig
from gastrovl.training.train import train
from gastrovl.training.trainer import GastroTrainer

STAGE = {
    "name": "talk",
    "tasks": ["CLS", "REC"],
    "trains": ["projector", "language"],
    "learning_rate": 1e-3,
    "steps": 4,
    "images_per_step": 2,
}


@pytest.fixture
def configured(tiny_data, tiny_model):
    """`configured(...)`: a run of four steps on four drawn images, a state saved after every second one."""

    def build(**stage):
        file = tiny_data(images=4)
        return TrainConfig.model_validate(
            {"name": "tiny", "model": tiny_model(), "train": str(file), "stages": [STAGE | stage]}
            | {"log_every": 1, "save_every": 2}
        )

    return build


def run(config, output, **others):
    return train(config, output, show_bar=False, say=str, **others)


def weights(folder):
    return load_file(folder / "model.safetensors")


def failing_forward(monkeypatch, at, failure):
    """Let the `at`-th forward pass, counted from 1, fail: `failure(loss)` gives its loss or raises."""
    plain, calls = GastroVLForConditionalGeneration.forward, []

    def forward(self, *arguments, **named):
        output = plain(self, *arguments, **named)
        if named.get("labels") is not None and self.training:
            calls.append(1)
            if len(calls) == at:
                output.loss = failure(output.loss)
        return output

    monkeypatch.setattr(GastroVLForConditionalGeneration, "forward", forward)


def out_of_memory(_loss):
    raise RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
    )


def out_of_gpu_memory(_loss):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("failure", [out_of_memory, out_of_gpu_memory])
def test_out_of_memory_names_the_batch_and_what_would_fit(configured, tmp_path, monkeypatch, failure):
    with monkeypatch.context() as patch:
        failing_forward(patch, 3, failure)
        with pytest.raises(OutOfMemoryError) as stop:
            run(configured(), tmp_path / "run")

    message = str(stop.value)
    assert message.startswith("stage talk, step 3: memory ran out at a batch of 2 images, ")
    assert "stage talk needs about" in message
    assert "images_per_step: 2 -> 1 with accumulation: 2 (the same result)" in message
    assert f"The last whole state is kept: {tmp_path / 'run' / 'stages' / '1-talk' / 'checkpoint-2'}." in message


def test_after_a_failure_the_run_goes_on_to_the_weights_of_an_undisturbed_one(configured, tmp_path, monkeypatch):
    config = configured()
    run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        failing_forward(patch, 4, out_of_memory)
        with pytest.raises(OutOfMemoryError):
            run(config, tmp_path / "parts")

    run(config, tmp_path / "parts", resume=True)

    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_a_loss_that_is_no_number_stops_before_its_step_and_names_its_micro_batch(configured, tmp_path, monkeypatch):
    config = configured(accumulation=2, images_per_step=1)
    with monkeypatch.context() as patch:
        failing_forward(patch, 6, lambda loss: loss * float("nan"))  # the second batch of the third step
        with pytest.raises(DivergedError) as stop:
            run(config, tmp_path / "run")

    message = str(stop.value)
    assert message.startswith("stage talk, step 3: the loss of micro-batch 2 of 2 is not a number; learning rate ")
    named = message.partition("Records: ")[2].partition(". The step")[0]
    number = named[0]
    assert named == f"{number}.png (tiny/{number}#CLS, tiny/{number}#REC)"
    folder = tmp_path / "run" / "stages" / "1-talk"
    assert f"The step was not taken, and the last good state is {folder / 'checkpoint-2'}" in message
    assert {path.name for path in folder.iterdir()} == {"checkpoint-2", "step.json"}
    assert all(value.isfinite().all() for value in weights(folder / "checkpoint-2").values())


def test_a_gradient_that_is_no_number_stops_although_the_loss_is_one(configured, tmp_path, monkeypatch):
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(_context, loss):
            return loss.clone()

        @staticmethod
        def backward(_context, gradient):
            return gradient * float("inf")

    failing_forward(monkeypatch, 1, Broken.apply)
    with pytest.raises(DivergedError, match="step 1: a gradient is not a number, though every loss here is") as stop:
        run(configured(), tmp_path / "run")

    assert "no state of this stage was saved yet" in str(stop.value)


def test_the_model_never_sees_the_records(configured, tmp_path, monkeypatch):
    seen = set()
    plain = GastroVLForConditionalGeneration.forward

    def forward(self, *arguments, **named):
        seen.update(named)
        return plain(self, *arguments, **named)

    monkeypatch.setattr(GastroVLForConditionalGeneration, "forward", forward)
    run(configured(steps=1), tmp_path / "run")

    assert "labels" in seen
    assert guards.RECORDS not in seen


def full(*_arguments, **_named):
    raise OSError(errno.ENOSPC, "No space left on device")


def full_says_safetensors(*_arguments, **_named):
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("failure", [full, full_says_safetensors])
@pytest.mark.parametrize("writer", ["_save_optimizer_and_scheduler", "_save", "_save_rng_state"])
def test_a_disk_that_fills_while_a_state_is_written_keeps_the_one_before(
    configured, tmp_path, monkeypatch, writer, failure
):
    plain = getattr(GastroTrainer, writer)

    def write(self, *arguments, **named):
        return failure() if self.state.global_step == 4 else plain(self, *arguments, **named)

    config = configured()
    with monkeypatch.context() as patch:
        patch.setattr(GastroTrainer, writer, write)
        with pytest.raises(DiskFullError) as stop:
            run(config, tmp_path / "run")

    folder = tmp_path / "run" / "stages" / "1-talk"
    message = str(stop.value)
    assert message.startswith("stage talk, step 4: the disk (or a quota) is full (")
    assert f"GB are free at {folder}" in message
    assert (
        f"The last whole state is kept: {folder / 'checkpoint-2'}. Free some space and go on with --resume" in message
    )
    assert {path.name for path in folder.iterdir()} == {"checkpoint-2", "step.json"}
    run(config, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "manifest.json").is_file()


def test_a_disk_that_fills_at_a_log_line_is_named(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(stagerun.JsonlLog, "on_log", full)
    with pytest.raises(DiskFullError, match=r"stage talk, step 1: the disk .* No state of this stage was saved yet"):
        run(configured(), tmp_path / "run")


def test_a_disk_that_fills_at_the_end_leaves_no_half_checkpoint(configured, tmp_path, monkeypatch):
    def half(folder, *_arguments, **_named):
        (folder / "model.safetensors").write_bytes(b"half")
        full()

    config = configured()
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_checkpoint", half)
        with pytest.raises(DiskFullError, match="All stages are finished and kept"):
            run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()

    run(config, tmp_path / "run", resume=True)

    assert (tmp_path / "run" / "manifest.json").is_file()


def test_a_real_limit_on_written_bytes_ends_in_the_message(configured, tmp_path):
    config = configured()
    (tmp_path / "tiny.json").write_text(config.model_dump_json(), encoding="utf-8")
    script = (
        "import resource, signal, sys, pathlib\n"
        "from gastrovl.core.errors import DiskFullError\n"
        "from gastrovl.training.config import TrainConfig\n"
        "from gastrovl.training.train import train\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # then a write fails as on a full disk
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"  # the weights are larger, the log is not
        "config = TrainConfig.model_validate_json(pathlib.Path(sys.argv[1]).read_text())\n"
        "try:\n"
        "    train(config, pathlib.Path(sys.argv[2]), show_bar=False, say=str)\n"
        "except DiskFullError as error:\n"
        "    print(error)\n"
    )
    names = ["PYTHONPATH", "PATH", "HOME", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"]
    kept = {name: os.environ[name] for name in names if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "tiny.json"), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=kept | {"PYTHONDONTWRITEBYTECODE": "1"},  # Python would leave compiled modules cut at the limit
    )

    assert done.stdout.startswith("stage talk, step 2: the disk (or a quota) is full ("), done.stderr
    assert [path.name for path in (tmp_path / "run" / "stages" / "1-talk").iterdir()] == ["step.json"]


def test_a_run_that_will_not_fit_on_the_disk_is_refused_before_it_begins(configured, tmp_path, monkeypatch):
    monkeypatch.setattr(guards, "free_bytes", lambda _: 1000)
    with pytest.raises(DiskFullError, match=r"the run needs 0\.00 GB of disk .* choose another -o"):
        run(configured(), tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_space_a_run_needs_is_two_states_the_stages_and_the_checkpoint(configured):
    config = configured()
    model = torch.nn.ModuleDict(
        {"language_model": torch.nn.Linear(10, 9, bias=False), "vision_tower": torch.nn.Linear(4, 5)}
    )

    # 90 + 25 float32 = 460 bytes of weights; two moments of the 90 that train = 720; one stage and the checkpoint
    assert guards.space_needed(config, model) == 2 * (460 + 720) + 2 * 460
    assert guards.space_needed(config.model_copy(update={"save_every": None}), model) == 2 * 460


def test_a_state_whose_last_file_is_cut_off_is_not_taken_for_whole(tmp_path):
    folder = tmp_path / "stage"
    for step, content in ((2, json.dumps({"global_step": 2})), (4, '{"global_st')):
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(content, encoding="utf-8")

    assert guards.last_state(folder) == str(folder / "checkpoint-2")
    guards.drop_half_states(folder)
    assert {path.name for path in folder.iterdir()} == {"checkpoint-2"}
