from __future__ import annotations

from gastrovl.core.trainlog import read_log
from gastrovl.evaluation.showing.curves import draw_loss, draw_scores_over_time


def lines_of(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}


def test_a_line_cut_off_in_writing_is_counted_and_left_out(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n\n{"step": 2, "loss": 1.')
    log = read_log(tmp_path / "log.jsonl")
    assert log.entries == [{"step": 1, "loss": 2.0}]
    assert log.n_broken == 1


def test_each_stage_has_a_panel_with_its_own_losses():
    entries = [
        {"step": 1, "stage": "align", "loss": 3.0},
        {"step": 2, "stage": "align", "eval_loss": 2.5},
        {"step": 3, "stage": "instruct", "loss": 1.0},
    ]
    figure = draw_loss(entries)
    assert [axes.get_title() for axes in figure.axes] == ["stage: align", "stage: instruct"]
    assert lines_of(figure.axes[0]) == {"training loss": [3.0], "validation loss": [2.5]}
    assert lines_of(figure.axes[1]) == {"training loss": [1.0]}


def test_only_shares_are_drawn_as_scores():
    entries = [{"step": 5, "eval_CLS_accuracy": 0.5, "eval_loss": 0.7, "eval_runtime": 0.9, "eval_seconds": 12.0}]
    [axes] = draw_scores_over_time(entries).axes
    assert lines_of(axes) == {"CLS accuracy": [50.0]}


def test_of_the_scores_of_whole_answers_the_main_ones_are_drawn():
    entry = {"step": 5, "eval_cls/accuracy": 0.5, "eval_cls/accuracy_baseline": 0.2, "eval_cls/macro_f1": 0.4}
    [axes] = draw_scores_over_time([entry | {"eval_cls/unparsed": 0.0, "eval_answers_seconds": 0.5}]).axes
    assert lines_of(axes) == {"cls accuracy": [50.0]}


def test_a_log_without_numbers_gives_no_picture():
    assert draw_loss([{"step": 1, "note": "started"}]) is None
    assert draw_scores_over_time([{"step": 1, "loss": 1.0}]) is None


def test_a_diverged_loss_is_left_out_of_the_line():
    figure = draw_loss([{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}])
    assert lines_of(figure.axes[0]) == {"training loss": [2.0]}
