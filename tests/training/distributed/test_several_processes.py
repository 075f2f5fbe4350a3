"""Whole runs by the command, on one process and two: equal weights, resumed on either, one message when one fails.

Processes are forked from one that has imported everything (see `forks.py`); they talk by gloo, as on any machine
without GPUs. One test goes through `torchrun` itself.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from gastrovl.training.config import TrainConfig

HERE = Path(__file__).parent
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
# Softmax does not change when all keys move alike: the gradient of a key's bias is rounding, and Adam takes its sign.
ROUNDING = ("k_proj.bias",)

ALIGN = {
    "name": "align",
    "tasks": ["CAP"],
    "trains": ["projector"],
    "learning_rate": 1e-2,
    "steps": 3,
    "images_per_step": 1,
    "global_images_per_step": 4,
}
INSTRUCT = ALIGN | {
    "name": "instruct",
    "tasks": ["CLS", "REC", "REG", "CAP"],
    "trains": ["vision", "projector", "lora"],
    "learning_rate": 1e-3,
    "steps": 6,
    "task_weights": {"REC": 3.0, "CAP": 0.5},
    "grounding_weight": 0.5,
}
LORA = {"rank": 4, "alpha": 8, "dropout": 0.2}


@pytest.fixture(scope="module")
def launcher():
    """A process that forks teams; started once, because imports take far longer than a run."""
    path = os.pathsep.join(filter(None, (str(HERE.parents[2] / "src"), os.environ.get("PYTHONPATH"))))
    server = subprocess.Popen(
        [sys.executable, str(HERE / "forks.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": path},
    )
    assert server.stdout.readline() == "ready\n"
    yield server
    server.stdin.close()
    server.wait(timeout=30)
    server.stdout.close()


@pytest.fixture
def start(launcher, tmp_path):
    """`start(config, output, processes=1, resume=False, before="")` starts the command; `.end()` waits for it."""

    def begin(config, output, processes=1, resume=False, before=""):
        file, said, first = output.with_suffix(".yaml"), output.with_suffix(".txt"), None
        file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
        if before:
            first = tmp_path / f"before_{len(list(tmp_path.glob('before_*')))}.py"
            first.write_text(before, encoding="utf-8")
        arguments = ["train", str(file), "-o", str(output), *(["--resume"] if resume else [])]
        job = {"arguments": arguments, "processes": processes, "output": str(said), "before": first and str(first)}
        launcher.stdin.write(json.dumps(job) + "\n")
        launcher.stdin.flush()
        pids = json.loads(launcher.stdout.readline())
        return SimpleNamespace(pids=pids, said=said, end=lambda: json.loads(launcher.stdout.readline()))

    return begin


@pytest.fixture
def configured(tiny_data, tiny_model):
    """A run of two stages on five images, four a step, so that every other step is a single image."""

    def build(model=None, stages=(ALIGN, INSTRUCT), **others):
        file = str(tiny_data(images=5))
        described = tiny_model("mlp", **{"lora": LORA} | (model or {})).model_dump(mode="json")
        content = {"name": "tiny", "model": described, "train": file, "val": file, "stages": stages, "log_every": 1}
        return TrainConfig.model_validate(content | {"save_every": 2, "evaluate_every": 3} | others)

    return build


def distance(one, other):
    """Largest difference of two checkpoints' weights, but for those whose gradient is rounding."""
    weights = [load_file(path / "model.safetensors") for path in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    names = [name for name in weights[0] if not name.endswith(ROUNDING)]
    return max(float((weights[0][name] - weights[1][name]).abs().max()) for name in names)


def logged(output):
    """(stage, step, name, value) of the log, without times; shares of an epoch count batches, which processes share."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    skipped = ("runtime", "per_second", "flos", "epoch")
    return {
        (line["stage"], line["step"], name): value
        for line in lines
        for name, value in line.items()
        if isinstance(value, float) and not any(word in name for word in skipped)
    }


KEEP_GRADIENTS = """
from safetensors.torch import save_file
from transformers import TrainerCallback
from gastrovl.training.trainer import GastroTrainer

class Keep(TrainerCallback):
    def __init__(self, stage): self.stage = stage
    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        if state.is_world_process_zero:
            found = {{n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}}
            save_file(found, f"{folder}/{{self.stage}}-{{state.global_step}}.safetensors")

begin = GastroTrainer.__init__
def init(self, model, args, stage, *rest):
    begin(self, model, args, stage, *rest)
    self.add_callback(Keep(stage.name))
GastroTrainer.__init__ = init
"""


def test_two_processes_give_the_gradients_weights_and_scores_of_one(start, configured, tmp_path):
    config = configured()
    for processes in (1, 2):
        (tmp_path / f"gradients-{processes}").mkdir()
        before = KEEP_GRADIENTS.format(folder=tmp_path / f"gradients-{processes}")
        run = start(config, tmp_path / f"by{processes}", processes, before=before)
        assert run.end() == [0] * processes, run.said.read_text(encoding="utf-8")

    for step in ("align-0", "instruct-0"):  # before Adam has turned rounding into steps
        one, two = (load_file(tmp_path / f"gradients-{number}" / f"{step}.safetensors") for number in (1, 2))
        assert one.keys() == two.keys()
        apart = sum(float((one[name] - two[name]).square().sum()) for name in one) ** 0.5
        assert apart < 1e-6 * sum(float(value.square().sum()) for value in one.values()) ** 0.5
    assert distance(tmp_path / "by1", tmp_path / "by2") < 1e-5
    one, two = logged(tmp_path / "by1"), logged(tmp_path / "by2")
    assert two == pytest.approx(one, rel=1e-5)
    assert sum(name == "loss" for _, _, name in two) == 9  # every step is logged once


def test_two_processes_sample_the_replies_that_one_samples(start, configured, learnt, tmp_path):
    rewarded = ALIGN | {
        "name": "rewarded",
        "tasks": ["REC"],
        "trains": ["projector", "language"],
        "learning_rate": 1e-3,
    }
    rewarded |= {"global_images_per_step": 2, "reward": {"group": 8, "temperature": 1.2, "max_new_tokens": 20}}
    known = {"start_from": str(learnt[0]), "train": str(learnt[1]), "val": None, "evaluate_every": None}
    config = configured(stages=(rewarded,), **known)
    for processes in (1, 2):
        run = start(config, tmp_path / f"by{processes}", processes)
        assert run.end() == [0] * processes, run.said.read_text(encoding="utf-8")

    one, two = logged(tmp_path / "by1"), logged(tmp_path / "by2")
    assert two == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert max(value for (_, _, name), value in one.items() if name == "reward_std") > 0
    assert distance(tmp_path / "by1", tmp_path / "by2") < 1e-5


DIE = """
import os, signal
from gastrovl.training.watching.joblog import JsonlLog
write = JsonlLog.on_log
def on_log(self, args, state, control, logs=None, **others):
    write(self, args, state, control, logs, **others)
    if self.stage == "instruct" and state.global_step == 3 and os.environ.get("RANK", "0") == "{rank}":
        {end}
JsonlLog.on_log = on_log
"""
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_of_which_a_process_was_killed_goes_on_with_another_number(start, configured, tmp_path, before, after):
    config = configured()
    assert start(config, tmp_path / "whole").end() == [0]
    killed = start(config, tmp_path / "parts", before, before=DIE.format(rank=before - 1, end=KILL)).end()
    assert killed[-1] == -signal.SIGKILL
    assert all(killed)  # the other did not wait for ever

    resumed = start(config, tmp_path / "parts", after, resume=True)

    assert resumed.end() == [0] * after, resumed.said.read_text(encoding="utf-8")
    assert distance(tmp_path / "whole", tmp_path / "parts") < 1e-5
    assert logged(tmp_path / "parts") == pytest.approx(logged(tmp_path / "whole"), rel=1e-5)


def test_an_error_of_one_process_ends_all_with_one_message(start, configured, tmp_path):
    end = 'raise __import__("gastrovl.core.errors", fromlist="_").RecordError("row 3 is broken")'

    run = start(configured(), tmp_path / "run", 2, before=DIE.format(rank=1, end=end))

    assert run.end() == [-signal.SIGTERM, 2]
    said = run.said.read_text(encoding="utf-8")
    assert re.findall("error: .*", said) == ["error: row 3 is broken"]
    assert "Traceback" not in said


def test_an_error_that_all_processes_meet_is_said_once(start, configured, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine", encoding="utf-8")

    run = start(configured(), tmp_path / "run", 2)

    assert run.end() == [2, -signal.SIGTERM]
    said = run.said.read_text(encoding="utf-8")
    assert said.count("error: ") == 1
    assert "holds files of something else" in said


def test_sharding_that_silently_became_replication_is_refused(start, configured, tmp_path):
    before = "import os\nos.environ.update(ACCELERATE_USE_FSDP='true', FSDP_VERSION='2')"

    run = start(configured(), tmp_path / "run", 2, before=before)

    assert run.end() == [2, -signal.SIGTERM]
    said = run.said.read_text(encoding="utf-8")
    assert "error: accelerate was asked for FSDP (ACCELERATE_USE_FSDP), but set up MULTI_CPU on cpu" in said
    assert said.count("error: ") == 1


# accelerate takes two processes on CPUs for two GPUs, and so shards on them by torch's own `fully_shard`.
SHARD = """
import os
os.environ.update(
    ACCELERATE_USE_FSDP="true", FSDP_VERSION="2", FSDP_AUTO_WRAP_POLICY="TRANSFORMER_BASED_WRAP",
    FSDP_STATE_DICT_TYPE="SHARDED_STATE_DICT", FSDP_RESHARD_AFTER_FORWARD="true",
    FSDP_CPU_RAM_EFFICIENT_LOADING="false",
)
from accelerate.state import PartialState
from accelerate.utils import DistributedType
begin = PartialState.__init__
def init(self, *args, **others):
    begin(self, *args, **others)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU
PartialState.__init__ = init
from torch.distributed.fsdp import FSDPModule
from gastrovl.training.trainer import GastroTrainer
evaluate = GastroTrainer.evaluate
def checked(self, *args, **others):
    assert isinstance(self.model, FSDPModule)
    return evaluate(self, *args, **others)
GastroTrainer.evaluate = checked
"""
TIED = {"model_type": "llama", "max_position_embeddings": 512, "hidden_size": 32, "intermediate_size": 64}
TIED |= {"num_hidden_layers": 2, "num_attention_heads": 2, "tie_word_embeddings": True}


@pytest.mark.parametrize("opened", ["lora", "language"])
def test_a_sharded_model_of_tied_weights_learns_as_a_whole_one_and_resumes(start, configured, tmp_path, opened):
    stages = (ALIGN, INSTRUCT | {"trains": ["vision", "projector", opened]})
    model = {"language": {"config": TIED}, "lora": LORA | {"dropout": 0.0} if opened == "lora" else None}
    config = configured(model, stages)
    assert start(config, tmp_path / "whole").end() == [0]
    sharded = tmp_path / "sharded"
    assert start(config, sharded, 2, before=SHARD + DIE.format(rank=1, end=KILL)).end()[1] == -signal.SIGKILL

    resumed = start(config, sharded, 2, resume=True, before=SHARD)

    assert resumed.end() == [0, 0], resumed.said.read_text(encoding="utf-8")
    assert distance(tmp_path / "whole", sharded) < 1e-5
    assert logged(sharded) == pytest.approx(logged(tmp_path / "whole"), rel=1e-4)


def test_a_run_that_is_killed_at_five_random_moments_ends_in_the_same_weights(start, configured, tmp_path):
    config = configured(save_every=1, evaluate_every=None, val=None)
    assert start(config, tmp_path / "whole").end() == [0]
    rng = random.Random(7)
    log, killed = tmp_path / "parts" / "log.jsonl", 0

    for line in sorted(rng.sample(range(1, 9), 5)):  # of eleven: nine steps and the end of two stages
        run = start(config, tmp_path / "parts", resume=(tmp_path / "parts" / "run.json").is_file())
        while not log.is_file() or log.read_bytes().count(b"\n") < line:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))  # in the middle of the next step, or of writing the state of this one
        os.kill(run.pids[0], signal.SIGKILL)
        killed += run.end() == [-signal.SIGKILL]
    assert killed == 5
    assert start(config, tmp_path / "parts", resume=True).end() == [0]

    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    assert logged(tmp_path / "whole") == logged(tmp_path / "parts")


WATCH = """
import pathlib, torch
read = torch.load
def load(file, *args, **others):
    print("read", pathlib.Path(str(file)).name, "weights_only", others.get("weights_only"))
    return read(file, *args, **others)
torch.load = load
"""


def test_nothing_of_a_saved_state_is_unpickled_but_tensors_and_plain_values(start, configured, tmp_path):
    config = configured(stages=(ALIGN, INSTRUCT | {"steps": 4}), val=None, evaluate_every=None)
    assert start(config, tmp_path / "run", before=DIE.format(rank=0, end=KILL)).end() == [-signal.SIGKILL]

    resumed = start(config, tmp_path / "run", resume=True, before=WATCH)

    assert resumed.end() == [0]
    read = re.findall(r"read (\S+) weights_only (\S+)", resumed.said.read_text(encoding="utf-8"))
    assert sorted(read) == [("optimizer.pt", "True"), ("rng_state.pth", "True"), ("scheduler.pt", "True")]


def test_the_script_for_several_machines_trains_on_two_local_processes(configured, tmp_path):
    config = configured(stages=(ALIGN | {"steps": 1},), save_every=None, val=None, evaluate_every=None)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    script = HERE.parents[2] / "scripts" / "multi_node.sh"
    ours = {"NPROC_PER_NODE": "2", "MASTER_PORT": str(20000 + os.getpid() % 10000), "PYTHON": sys.executable}
    ours["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parents[2] / "src"), os.environ.get("PYTHONPATH"))))

    done = subprocess.run(
        ["sh", str(script), str(tmp_path / "run.yaml"), "-o", str(tmp_path / "run")],
        env={name: value for name, value in os.environ.items() if "SLURM" not in name} | ENVIRONMENT | ours,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stage 1 align") == 1  # the first process speaks, the other does not
    assert (tmp_path / "run" / "manifest.json").is_file()
    assert [step for _, step, name in logged(tmp_path / "run") if name == "loss"] == [1]
