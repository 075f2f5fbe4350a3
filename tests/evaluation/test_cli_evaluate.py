from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from gastrovl.cli.evaluate import evaluate
from gastrovl.core.errors import PredictionError

app = typer.Typer()
app.command()(evaluate)


@pytest.fixture
def arguments(made_up_dataset, reply_with, tmp_path):
    predictions = reply_with(made_up_dataset / "test.jsonl", tmp_path / "replies.jsonl", lambda one: one.answer)
    return [predictions, "--conversations", made_up_dataset / "test.jsonl", "-o", tmp_path / "out", "--resamples", "10"]


def test_the_command_prints_the_scores_and_where_they_lie(arguments, tmp_path):
    result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert "100.0" in result.output
    assert f"Scores, tables and plots: {tmp_path / 'out'}" in result.output
    assert (tmp_path / "out" / "results.json").is_file()


def test_the_command_leaves_messages_about_bad_input_to_its_caller(arguments):
    arguments[0].write_text("")
    with pytest.raises(PredictionError, match="have no prediction"):
        CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)


def test_the_command_replaces_an_evaluation_only_when_told(arguments):
    again = [str(one) for one in (*arguments, "--overwrite", "--no-images")]
    for _ in range(2):
        assert CliRunner().invoke(app, again, catch_exceptions=False).exit_code == 0


def test_the_command_prints_facts_of_captions_and_the_signature_of_bleu(arguments):
    plain = [str(one) for one in (*arguments, "--no-images", "--overwrite")]
    result = CliRunner().invoke(app, plain, catch_exceptions=False, env={"COLUMNS": "250"})
    for name in ("fact F1", "negation accuracy", "contradictions a text (0 or more, lower is better)"):
        assert name in result.output
    assert "\nBLEU: " in result.output
    assert "BERTScore" not in result.output
    without = CliRunner().invoke(app, [*plain, "--no-facts"], catch_exceptions=False, env={"COLUMNS": "250"})
    assert "fact F1" not in without.output
