"""Every config we ship is a working example: it loads as its type, and a slip of the pen in it is caught."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from gastrovl.core.config import load_config
from gastrovl.core.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGS = REPOSITORY / "configs"
DEMOS = sorted((REPOSITORY / "src" / "gastrovl").glob("*.yaml"))  # packaged, so that `gastrovl demo` works anywhere
LAUNCHER = CONFIGS / "accelerate"  # not ours to read
FILES = [*sorted(path for path in CONFIGS.rglob("*.yaml") if LAUNCHER not in path.parents), *DEMOS]
# Folder of configs/ -> the type that its files load as.
KINDS = {
    "data": ("gastrovl.data.build", "BuildConfig"),
    "sources": ("gastrovl.data.source", "SourceDescription"),
    "train": ("gastrovl.training.config", "TrainConfig"),
    "run": ("gastrovl.pipeline", "RunConfig"),
    "evaluate": ("gastrovl.evaluation.comparing.gate", "GateConfig"),
    "evaluate/models": ("gastrovl.inference.others.description", "ModelDescription"),
}


def kind_of(path):
    module, name = KINDS["run" if path in DEMOS else path.parent.relative_to(CONFIGS).as_posix()]
    return getattr(import_module(module), name)


def short(path):
    return str(path.relative_to(REPOSITORY))


def test_every_folder_of_configs_has_a_type_and_holds_an_example():
    folders = {path.parent.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert folders == set(KINDS) | {LAUNCHER.name}
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == {name.partition("/")[0] for name in folders}


def test_the_demo_is_packaged_in_both_sizes():
    assert [path.name for path in DEMOS] == ["demo.yaml", "demo_smoke.yaml"]


def test_configs_holds_nothing_but_yaml_in_folders():
    known = {*FILES, *LAUNCHER.glob("*.yaml")}
    assert [short(path) for path in CONFIGS.rglob("*") if path.is_file() and path not in known] == []
    assert [short(path) for path in FILES if path.parent == CONFIGS] == []


@pytest.mark.parametrize("path", sorted(LAUNCHER.glob("*.yaml")), ids=short)
def test_the_launcher_reads_its_config_and_finds_the_way_of_sharding_it_names(path):
    read = import_module("accelerate.commands.config.config_args").load_config_from_file(str(path))

    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED", "deepspeed_zero3": "DEEPSPEED"}
    assert read.distributed_type.value == kinds[path.stem]
    assert read.mixed_precision == "no"  # the run's own config decides
    assert {"fsdp2": read.fsdp_config.get("fsdp_version")}.get(path.stem, 2) == 2
    assert read.deepspeed_config.get("zero_stage") == {"deepspeed_zero2": 2, "deepspeed_zero3": 3}.get(path.stem)


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_config_loads_as_its_type(path):
    load_config(path, kind_of(path))


@pytest.mark.parametrize("path", FILES, ids=short)
def test_an_unknown_key_is_refused_with_its_line(path, tmp_path):
    text = path.read_text(encoding="utf-8")
    changed = tmp_path / "changed.yaml"
    changed.write_text(f"{text.rstrip()}\nno_such_key: 1\n", encoding="utf-8")
    line = len(text.rstrip().splitlines()) + 1
    with pytest.raises(ConfigError, match=rf"changed\.yaml:{line}: unknown key 'no_such_key'"):
        load_config(changed, kind_of(path))


@pytest.mark.parametrize("path", FILES, ids=short)
def test_a_config_says_first_what_it_is_for(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# "), f"{short(path)} opens with {first!r}; expected a comment that says what it is for"
