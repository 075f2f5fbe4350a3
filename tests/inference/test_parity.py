"""The parity gate: a sound checkpoint passes every row, and a way that says something else is found out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gastrovl.cli.app import main
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Task
from gastrovl.inference.parity import EXACT, Row, Tolerance, check_parity, compare, probe_questions
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Reply
from gastrovl.model.checkpoint import build_model, save_checkpoint


def said(text, confidence=0.5, **chances):
    return Reply(text, confidence, 0.0, "end", chances or None)


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    """Untrained, with regions."""
    model, processor = build_model(tiny_model("pool", "resnet"), seed=5)
    save_checkpoint(tmp_path / "checkpoint", model.eval(), processor, "tiny")
    return tmp_path / "checkpoint"


def test_texts_are_counted_and_the_largest_gap_is_kept():
    row = compare("way", "other", [said("a", 0.5, x=0.25), said("b", 0.9)], [said("a", 0.6, x=0.75), said("c", 0.1)])

    assert (row.questions, row.equal, row.difference) == (2, 1, 0.5)
    assert not row.passes


def test_a_way_that_rounds_may_move_a_box_a_little():
    one, near, far = said("[000,000,500,500]"), said("[000,000,500,510]"), said("[000,000,500,700]")
    loose = Tolerance(1.0, 0.1, 0.9)

    assert compare("way", "other", [one], [near], loose).passes
    assert not compare("way", "other", [one], [far], loose).passes
    assert not compare("way", "other", [one], [said("absent")], loose).passes
    assert not compare("way", "other", [one], [near], EXACT).passes


def test_what_is_left_out_neither_passes_for_good_nor_fails():
    assert Row("int8", "one at a time", left_out="not installed").passes


def test_questions_of_a_file_are_taken_evenly_over_the_tasks(tiny_data):
    asked = probe_questions(tiny_data(images=3), 6)

    assert sorted(one.task for one in asked) == sorted([*[*Task][:4], Task.CAP, Task.CLS])
    assert {one.task for one in probe_questions(None, 4)} == {Task.CLS, Task.REC, Task.REG, Task.CAP}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # bitsandbytes on new versions of PyTorch
def test_a_sound_checkpoint_passes_and_another_one_behind_the_same_name_does_not(checkpoint):
    other = Predictor.load(checkpoint, "cpu")
    with torch.no_grad():
        other.model.lm_head.weight.mul_(-1)
    questions = probe_questions(None, 4)

    rows = check_parity(
        checkpoint,
        questions,
        device="cpu",
        most_tokens=6,
        rounded=Tolerance(0.0, 1.0),
        more={"itself": Predictor.load(checkpoint, "cpu").answer, "another": other.answer},
    )

    found = {row.way: row for row in rows}
    assert {name for name, row in found.items() if not row.passes} == {"another"}
    assert found["words: without a cache"].questions == 4
    assert found["words: merged"].left_out is None


@pytest.mark.parametrize(("equal", "code"), [(2, 0), (1, 1)])
def test_the_command_prints_and_writes_the_table_and_fails_with_a_row(monkeypatch, tmp_path, capsys, equal, code):
    from gastrovl.inference import parity

    rows = [Row("batched", "one at a time", 2, equal), Row("int8", "one at a time", left_out="not installed")]
    monkeypatch.setattr(parity, "check_parity", lambda *_, **__: rows)

    monkeypatch.setenv("COLUMNS", "200")

    with pytest.raises(SystemExit) as ended:
        main(["parity", str(tmp_path), "--most", "2", "--json", str(tmp_path / "parity.json")])

    written = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert ended.value.code == code
    assert [one["passes"] for one in written] == [code == 0, True]
    assert ("FAILED" in printed) == (code == 1)
    assert "not installed" in printed


def test_adapters_of_the_check_change_what_is_said(checkpoint):
    """Else the row of merged adapters would compare a model with itself."""
    from gastrovl.inference import parity

    predictor = Predictor.load(checkpoint, "cpu", uses_head=False)
    questions = probe_questions(None, 4)
    row = parity._merged(predictor, questions, 6)
    plain = predictor.answer(questions, 6)

    assert row.passes
    adapted = parity._with_adapters(predictor)[0].answer(questions, 6)
    assert [one.confidence for one in adapted] != pytest.approx([one.confidence for one in plain], rel=1e-3)


def test_bfloat16_keeps_a_head_in_float32_and_answers(checkpoint):
    narrow = Predictor.load(checkpoint, "cpu", dtype="bfloat16")
    questions = [replace(one, wants_probabilities=True) for one in probe_questions(None, 4)]

    assert narrow.model.dtype == torch.bfloat16
    assert all(0 < reply.confidence <= 1 for reply in narrow.answer(questions, 8))
    with pytest.raises(ConfigError, match="float7"):
        Predictor.load(checkpoint, "cpu", dtype="float7")
