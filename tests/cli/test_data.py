"""`gastrovl data build` on the drawn set: what it prints and what it leaves."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gastrovl.cli.data import app
from gastrovl.core.errors import ConfigError, DownloadError, OutputError

CONFIG = """
sources:
  - synthetic: {images: 18, seed: 3}
quality: {copies: null}
figures: false
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
    assert (tmp_path / "out/README.md").is_file()


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


def test_sources_lists_names_licences_and_what_can_be_fetched():
    rows = json.loads(CliRunner().invoke(app, ["sources", "--json"]).output)
    by_name = {row["name"]: row for row in rows}
    assert by_name["kvasir_seg"]["fetchable"] == "yes"
    assert by_name["edd2020"]["fetchable"] == "no"
    assert by_name["gastrohun"]["images"] == 8834
    assert "kvasir_seg" in CliRunner().invoke(app, ["sources"]).output


def test_sources_writes_the_template_of_a_private_set(tmp_path):
    result = CliRunner().invoke(app, ["sources", "--template", str(tmp_path / "own.yaml")])
    assert result.exit_code == 0
    assert (tmp_path / "own.yaml").read_text(encoding="utf-8").startswith("# A private set")


def test_fetch_without_a_terminal_or_the_flag_shows_the_licence_and_refuses(tmp_path):
    result = CliRunner().invoke(app, ["fetch", "kvasir_seg", "-o", str(tmp_path / "out")])
    assert "licence: free for research and education" in result.output
    assert isinstance(result.exception, DownloadError)
    assert "--accept-licence kvasir_seg" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_fetch_of_what_needs_an_account_says_where_it_is(tmp_path):
    result = CliRunner().invoke(app, ["fetch", "edd2020", "-o", str(tmp_path), "--accept-licence", "edd2020"])
    assert isinstance(result.exception, DownloadError)
    assert "IEEE DataPort" in str(result.exception)


def test_export_writes_the_format_that_is_named(invoke, tmp_path):
    assert invoke().exit_code == 0
    command = ["export", str(tmp_path / "out"), "--format", "coco", "-o", str(tmp_path / "coco")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"Export: {tmp_path / 'coco'}" in result.output
    assert (tmp_path / "coco/annotations/instances_train.json").is_file()
    assert isinstance(CliRunner().invoke(app, command).exception, OutputError)
    assert CliRunner().invoke(app, [*command, "--overwrite"]).exit_code == 0


def test_export_in_shards_says_where_its_reading_is_explained(invoke, tmp_path):
    assert invoke().exit_code == 0
    shards = tmp_path / "shards"
    command = ["export", str(tmp_path / "out"), "--format", "webdataset", "--shard-mb", "1", "-o", str(shards)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert f"Export: {shards} (README.md says how to read it)" in result.output
    assert (shards / "train-000000.tar").is_file()
