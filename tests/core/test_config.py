"""A config is typed, refuses what it does not know, and says file, line and nearest key."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from pydantic import Field

from gastrovl.core.config import Config, expand_variables, load_config, parse_config
from gastrovl.core.errors import ConfigError


class Stage(Config):
    train: tuple[str, ...] = ()
    learning_rate: float = 1e-3


class Folder(Config):
    root: str
    limit: int | None = None


class Drawn(Config):
    images: int
    seed: int = 7


class Run(Config):
    name: str
    seed: int = 7
    stages: tuple[Stage, ...] = ()
    optimiser: Stage | None = None
    sources: tuple[Folder | Drawn, ...] = ()
    named: dict[str, Stage] = Field(default_factory=dict)


@pytest.fixture
def write(tmp_path):
    def _write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return _write


def test_yaml_becomes_a_typed_config(write):
    path = write("""\
        name: first
        stages:
          - train: [projector]
            learning_rate: 2.0e-4
        """)
    assert load_config(path, Run) == Run(name="first", stages=(Stage(train=("projector",), learning_rate=2e-4),))


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Run(name="first").seed = 8


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: a\nsede: 3\n", r"run\.yaml:2: unknown key 'sede'; did you mean 'seed'\?"),
        ("name: a\noptimiser:\n  trian: [all]\n", r"run\.yaml:3: unknown key 'optimiser\.trian'; did you mean 'train'"),
        ("name: a\nstages:\n- train: []\n- learning_rat: 1\n",
         r"run\.yaml:4: unknown key 'stages\.1\.learning_rat'; did you mean 'learning_rate'"),
        ("name: a\nnamed:\n  align:\n    trains: []\n",
         r"run\.yaml:4: unknown key 'named\.align\.trains'; did you mean 'train'"),
        ("name: a\nsources:\n- root: x\n  limt: 3\n",
         r"run\.yaml:4: unknown key 'sources\.0\.limt'; did you mean 'limit'"),
        ("name: a\nzzzzz: 3\n", r"unknown key 'zzzzz'; known keys here: name, named, optimiser, seed, sources, stages"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_its_line_and_the_nearest_key(write, text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_config(write(text), Run)


def test_every_mistake_is_reported_at_once(write):
    with pytest.raises(ConfigError) as raised:
        load_config(write("name: a\nsede: 3\nstages: 5\n"), Run)
    assert len(str(raised.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("seed: 3\n", r"run\.yaml: key 'name' is missing; it has no default"),
        ("name: a\nsources:\n- limit: 3\n", r"run\.yaml:3: key 'sources\.0\.root' is missing"),
        ("name: a\nseed: many\n", r"run\.yaml:2: seed: .*integer.*\(found 'many'\)"),
        (
            "name: a\nstages:\n- learning_rate: fast\n",
            r"run\.yaml:3: stages\.0\.learning_rate: .*number.*\(found 'fast'\)",
        ),
        ("name: a\nsources:\n- images: many\n", r"run\.yaml:3: sources\.0\.images: .*integer.*\(found 'many'\)"),
    ],
)
def test_a_wrong_or_missing_value_names_its_line(write, text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_config(write(text), Run)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: [a\n", r"run\.yaml:2: not valid YAML"),
        ("name: a\n\tseed: 3\n", r"run\.yaml:2: not valid YAML"),
        ("", r"run\.yaml: found nothing, expected a mapping"),
        ("- a\n- b\n", r"run\.yaml: found list, expected a mapping"),
        ("name: a\nseed: 3\nseed: 4\n", r"run\.yaml:3: key 'seed' stands in line 2 already"),
        ("name: a\nstages:\n- train: []\n  train: [all]\n", r"run\.yaml:4: key 'train' stands in line 3 already"),
        ("name: a\nstages: &s [*s]\n", r"run\.yaml: 'stages\.0' is an alias of a part that contains it"),
        (
            "name: !!python/object/apply:os.getcwd []\n",
            r"run\.yaml:1: not valid YAML: could not determine a constructor",
        ),
    ],
)
def test_a_file_that_is_no_plain_mapping_is_refused(write, text, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_config(write(text), Run)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such config file; `configs/` holds working examples"):
        load_config(tmp_path / "gone.yaml", Run)


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("name: Magenspiegelung für alle\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"run\.yaml: not UTF-8 text .*; save it as UTF-8"):
        load_config(path, Run)


def test_an_anchor_may_be_used_twice(write):
    text = "name: a\noptimiser: &o {train: [all]}\nstages: [*o, *o]\n"
    assert load_config(write(text), Run).stages == (Stage(train=("all",)), Stage(train=("all",)))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=9", {"seed": 9}),
        ("name=other run", {"name": "other run"}),
        ("stages.1.learning_rate=1e-5", {"stages": (Stage(), Stage(learning_rate=1e-5))}),
        ("stages.0={train: [all]}", {"stages": (Stage(train=("all",)), Stage())}),
        ("stages=[]", {"stages": ()}),
        ("optimiser.train=[all]", {"optimiser": Stage(train=("all",))}),
        ("named.align.train=[all]", {"named": {"align": Stage(train=("all",))}}),
    ],
)
def test_set_changes_one_value(write, override, expected):
    path = write("name: first\nstages: [{}, {}]\noptimiser: null\n")
    plain = {"name": "first", "stages": (Stage(), Stage())}
    assert load_config(path, Run, (override,)) == Run(**{**plain, **expected})


def test_a_later_set_wins(write):
    assert load_config(write("name: a\n"), Run, ("seed=1", "seed=2")).seed == 2


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("seed", r"--set seed: expected key\.path=value"),
        ("=3", r"--set =3: expected key\.path=value"),
        ("stages..train=3", r"expected key\.path=value"),
        ("stages.2.train=[]", r"--set stages\.2\.train=\[\]: '2' is no index into a list of 2 \(counted from 0\)"),
        ("stages.first.train=[]", "'first' is no index into a list of 2"),
        ("stages.-1.train=[]", "'-1' is no index into a list of 2"),
        ("name.first=a", "--set name.first=a: 'name' is the plain value 'first', so nothing can be set below it"),
        ("seed=[1", r"--set seed=\[1: the value '\[1' is not valid YAML; quote it"),
    ],
)
def test_a_malformed_set_says_what_was_expected(write, override, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_config(write("name: first\nstages: [{}, {}]\n"), Run, (override,))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("sede=3", r"^--set sede=3: unknown key 'sede'; did you mean 'seed'"),
        ("seed=many", r"^--set seed=many: seed: .*integer"),
        (
            "stages.0={trian: []}",
            r"^--set stages\.0=\{trian: \[\]\}: unknown key 'stages\.0\.trian'; did you mean 'train'",
        ),
    ],
)
def test_a_mistake_in_a_set_is_not_blamed_on_the_file(write, override, complaint):
    with pytest.raises(ConfigError, match=complaint):
        load_config(write("name: first\nstages: [{train: []}]\n"), Run, (override,))


def test_a_mapping_from_elsewhere_is_checked_the_same_way():
    with pytest.raises(ConfigError, match=r"^own\.yaml \(csv\): unknown key 'rot'; did you mean 'root'"):
        parse_config({"root": "x", "rot": "y"}, Folder, where="own.yaml (csv)")


def test_variables_are_filled_in(monkeypatch):
    monkeypatch.setenv("ENDOSCOPY_ROOT", "images")
    assert expand_variables("${ENDOSCOPY_ROOT}/edd2020", "run.yaml:3") == "images/edd2020"


def test_a_missing_variable_is_named(monkeypatch):
    monkeypatch.delenv("ENDOSCOPY_ROOT", raising=False)
    with pytest.raises(ConfigError, match=r"run\.yaml:3: environment variable ENDOSCOPY_ROOT is not set; set it"):
        expand_variables("${ENDOSCOPY_ROOT}/edd2020", "run.yaml:3")
