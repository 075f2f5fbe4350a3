"""`gastrovl data build` on the drawn set: what it prints and what it leaves."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from gastrovl.cli.data import app
from gastrovl.core.errors import ConfigError, OutputError

CONFIG = """
sources:
  - synthetic: {images: 18, seed: 3}
quality: {near_duplicate_bits: null}
"""


@pytest.fixture
def invoke(tmp_path):
    """`invoke(*arguments)` runs `build` on a config of 18 drawn frames into tmp_path/out."""
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")

    def run(*arguments):
        command = ["build", str(tmp_path / "small.yaml"), "-o", str(tmp_path / "out"), *arguments]
        return CliRunner().invoke(app, command)

    return run


def test_build_prints_a_table_and_where_the_result_lies(invoke, tmp_path):
    result = invoke()
    assert result.exit_code == 0, result.output
    assert "Images and conversations" in result.output
    assert f"Dataset: {tmp_path / 'out'}" in result.output
    assert (tmp_path / "out/card.md").is_file()


def test_set_changes_a_setting(invoke, tmp_path):
    assert invoke("--set", "sources.0.synthetic.images=12").exit_code == 0
    assert len((tmp_path / "out/records.jsonl").read_text().splitlines()) == 12


def test_a_misspelt_setting_is_refused_with_the_nearest_name(invoke, tmp_path):
    error = invoke("--set", "splits.trian=0.5").exception
    assert isinstance(error, ConfigError)
    assert "did you mean 'train'" in str(error)
    assert not (tmp_path / "out").exists()


def test_overwrite_is_needed_to_replace(invoke):
    assert invoke().exit_code == 0
    assert isinstance(invoke().exception, OutputError)
    assert invoke("--overwrite").exit_code == 0


def test_an_empty_split_is_noted(invoke):
    result = invoke("--set", "splits.val=0")
    assert "note: split val is empty" in result.output
