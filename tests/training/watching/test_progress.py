"""Loss, speed and time left, worked out by hand on a clock of our own; and the picture of a log."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from gastrovl.core.errors import RecordError
from gastrovl.training.watching.picture import draw, save_picture
from gastrovl.training.watching.progress import StepReport


def report_of(is_live, times):
    """A report whose clock says `times` one after the other, with what it said and showed."""
    said, shown = [], []
    clock = iter(times)
    progress = (lambda *what: shown.append(what)) if is_live else None
    return StepReport("1/2 align", 16, said.append, progress, lambda: next(clock)), said, shown


def at(step):
    return SimpleNamespace(global_step=step, max_steps=10, is_world_process_zero=True)


def test_speed_leaves_pauses_out_and_the_time_left_counts_them():
    # Step 1 ends at 100 s, step 2 at 102 s; a validation takes 4 s; step 3 ends at 108 s. Two steps took 4 s of
    # training, 16 images each: 8 images a second. Two steps took 8 s in all, so seven more take 28 s.
    report, said, _ = report_of(False, [100, 102, 106, 108, 108])
    for step in (1, 2):
        report.on_step_end(None, at(step), None)
    report.on_evaluate(None, at(2), None)
    report.on_step_end(None, at(3), None)
    report.on_log(None, at(3), None, {"loss": 1.5, "learning_rate": 1e-3})
    assert said == ["  step     3/10  rate 1.0e-03  loss 1.500  8 img/s  0:00:28 left"]
    assert len(said[0]) <= 80


def test_the_first_step_promises_nothing():
    report, said, shown = report_of(True, [5.0])
    report.on_step_end(None, at(1), None)
    assert shown == [("1/2 align\n", 1, 10)]
    assert said == []


def test_a_validation_is_one_line():
    report, said, _ = report_of(True, [])
    report.on_log(None, at(4), None, {"eval_loss": 0.5, "eval_cls_exact": 0.25, "eval_rec_iou": 0.1})
    assert said == ["  step 4: validation loss 0.500, exact answers in %: CLS 25.0"]


LOG = [
    *({"stage": "align", "step": step, "loss": 4 - step, "learning_rate": 1e-3} for step in (1, 2)),
    {"stage": "instruct", "step": 3, "loss": 1.0, "learning_rate": 1e-4},
    {"stage": "instruct", "step": 3, "eval_loss": 1.5, "eval_cls/accuracy": 0.5, "eval_cls/accuracy_baseline": 0.25},
]


def test_the_picture_counts_a_stages_steps_on_from_those_before():
    loss, score, rate = draw(LOG, "drawn").axes
    training = [(list(line.get_xdata()), list(line.get_ydata())) for line in loss.get_lines()]
    assert training == [([1, 2], [3, 2]), ([5], [1.0]), ([5], [1.5])]
    assert [text.get_text() for text in loss.texts] == ["1 align", "2 instruct"]
    accuracy, baseline = score.get_lines()
    assert (list(accuracy.get_xdata()), list(accuracy.get_ydata())) == ([5], [50.0])
    assert list(baseline.get_ydata()) == [25.0, 25.0]
    assert [list(line.get_ydata()) for line in rate.get_lines()] == [[1e-3, 1e-3], [1e-4]]


def test_the_same_log_gives_the_same_bytes(tmp_path):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG), encoding="utf-8")
    first = save_picture(tmp_path).read_bytes()
    assert first[:4] == b"\x89PNG"
    assert save_picture(tmp_path, tmp_path / "again.png", title=tmp_path.name).read_bytes() == first


def test_a_folder_without_losses_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"log\.jsonl: no such file"):
        save_picture(tmp_path)
    (tmp_path / "log.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(RecordError, match="no loss was logged yet"):
        save_picture(tmp_path)
    with pytest.raises(RecordError, match=r"a name that ends in \.png"):
        save_picture(tmp_path, tmp_path / "run.pdf")
