"""A run's log.jsonl to one picture: losses, validation scores beside baselines and learning rate, stage after stage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gastrovl.core.errors import RecordError
from gastrovl.core.figures import GREY, INK, OCHRE, PURPLE, RULE, RUST, TEAL, hide_frame, new_figure, save_figure
from gastrovl.core.trainlog import Entry, Series, by_stage, read_log, series_of

NAME = "training"  # .png
_SAID = {  # of each task, the score to draw: name in the log, name in the picture
    "cls": ("accuracy", "CLS accuracy"),
    "rec": ("acc@0.5", "REC acc@0.5"),
    "reg": ("accuracy", "REG accuracy"),
    "cap": ("rougeL", "CAP ROUGE-L"),
    "vqa": ("exact_match", "VQA exact match"),
    "report": ("rougeL", "REPORT ROUGE-L"),
}
_COLOURS = {"cls": TEAL, "rec": RUST, "reg": PURPLE, "cap": OCHRE, "vqa": "#2563eb", "report": "#4d7c0f"}
_SAMPLED = {  # of a stage that learns from its own replies: name in the log, name in the picture, colour
    "reward": ("mean reward x 100", INK),
    "reply_iou": ("mean IoU of samples", RUST),
    "tied_groups": ("groups all alike", GREY),
    "unread_replies": ("unreadable samples", OCHRE),
}
_POINTS = 60  # a line is smoothed until about so many independent points are left
_NARROW = 0.09  # share of the width below which a stage is told by its number alone


def save_picture(run: Path, output: Path | None = None, *, title: str | None = None) -> Path:
    """Draw `run/log.jsonl` to `run/training.png`, or to `output`.

    Raises:
        RecordError: There is no log, or nothing was logged in it yet.
        MissingExtraError: matplotlib is not installed.
    """
    log, target = Path(run) / "log.jsonl", output or Path(run) / f"{NAME}.png"
    if target.suffix != ".png":
        raise RecordError(f"{target}: a picture is a PNG; give a name that ends in .png")
    if not log.is_file():
        raise RecordError(f"{log}: no such file; expected the folder that `gastrovl train` was given with -o")
    entries = read_log(log).entries
    if not series_of(entries, ("loss",)):
        raise RecordError(f"{log}: no loss was logged yet; wait for `log_every` steps")
    figure = draw(entries, title or _name(Path(run)))
    return save_figure(figure, target.with_suffix(""))[0]


def _name(run: Path) -> str:
    """The run's name in its config, else its folder's."""
    try:
        return str(json.loads((run / "run.json").read_text(encoding="utf-8"))["name"])
    except (OSError, ValueError, KeyError):
        return run.resolve().name


def draw(entries: Sequence[Entry], title: str) -> Any:
    """The picture of a log; steps of a stage are counted on from those of the stages before."""
    stages = by_stage(entries)
    starts, end = {}, 0.0
    for name, some in stages.items():
        starts[name] = end
        end += max(float(entry["step"]) for entry in some)
    figure = new_figure(10.0, 6.4, extra="evaluate")
    rows = figure.add_gridspec(3, 1, height_ratios=(3, 3, 1.1))
    loss = figure.add_subplot(rows[0])
    score, rate = (figure.add_subplot(rows[row], sharex=loss) for row in (1, 2))
    for name, some in stages.items():
        _draw_loss(loss, some, starts[name])
        _draw_scores(score, some, starts[name], _has_answers(entries))
        _draw_samples(score, some, starts[name])
        for points in series_of(some, ("learning_rate",)).values():
            rate.plot(*_shifted(points, starts[name]), color=INK, linewidth=1.3)
    loss.set_ylabel("loss")
    loss.set_ylim(bottom=0)
    is_sampled = any(key in entry for entry in entries for key in _SAMPLED)
    score.set_ylabel("score, %" if is_sampled else "validation score, %")
    drawn = [float(value) for line in score.get_lines() for value in line.get_ydata()]
    score.set_ylim(min([0.0, *drawn]) - 2, max([100.0, *drawn]) + 2)  # a reward may be below 0 or above 1
    rate.set_ylabel("learning rate")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    rate.set_ylim(bottom=0)
    rate.set_xlabel("optimiser step")
    for axes in (loss, score, rate):
        hide_frame(axes)
        axes.grid(color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlim(0, end)
        axes.tick_params(labelbottom=axes is rate, labelsize=9)
        _mark_stages(axes, starts, end, is_named=axes is loss)
        _legend(axes)
    if not score.get_lines():
        score.text(0.5, 0.5, "no validation score yet", transform=score.transAxes, ha="center", color=GREY)
    figure.align_ylabels([loss, score, rate])
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    return figure


def _draw_loss(axes: Any, entries: Sequence[Entry], start: float) -> None:
    found = series_of(entries, ("loss", "eval_loss"))
    if "loss" in found:
        steps, values = _shifted(found["loss"], start)
        smooth = _smoothed(values)
        if smooth != values:
            axes.plot(steps, values, color=TEAL, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth, color=TEAL, linewidth=1.8, label="training")
    if "eval_loss" in found:
        steps, values = _shifted(found["eval_loss"], start)
        axes.plot(steps, values, color=RUST, marker="o", markersize=3.5, linewidth=1.3, label="validation")


def _draw_scores(axes: Any, entries: Sequence[Entry], start: float, has_answers: bool) -> None:
    """Scores of whole answers with their baselines; of a run without them, what teacher forcing says."""
    for task, (metric, label) in _SAID.items():
        key = f"eval_{task}/{metric}" if has_answers else f"eval_{task}_exact"
        name = label if has_answers else f"{task.upper()} exact, teacher-forced"
        found = series_of(entries, (key, f"{key}_baseline"))
        if key not in found:
            continue
        steps, values = _shifted(found[key], start)
        shares = [100 * value for value in values]
        axes.plot(steps, shares, color=_COLOURS[task], marker="o", markersize=4, linewidth=1.8, label=name)
        if rivals := found.get(f"{key}_baseline"):
            level = 100 * rivals[-1][1]
            axes.plot([start, steps[-1]], [level, level], color=_COLOURS[task], linestyle=":", linewidth=1.3)


def _draw_samples(axes: Any, entries: Sequence[Entry], start: float) -> None:
    """What the model's own replies were worth, of a stage that learns from them."""
    found = series_of(entries, tuple(_SAMPLED))
    for key, points in found.items():
        label, colour = _SAMPLED[key]
        steps, values = _shifted(points, start)
        axes.plot(steps, [100 * value for value in _smoothed(values)], color=colour, linewidth=1.3, label=label)


def _has_answers(entries: Sequence[Entry]) -> bool:
    return any("/" in key for entry in entries for key in entry)


def _mark_stages(axes: Any, starts: dict[str, float], end: float, *, is_named: bool) -> None:
    ends = [*list(starts.values())[1:], end]
    for number, ((name, start), stop) in enumerate(zip(starts.items(), ends, strict=True), start=1):
        if number % 2 == 0:
            axes.axvspan(start, stop, color=GREY, alpha=0.07, linewidth=0)
        if is_named and name:
            text = f"{number} {name}" if (stop - start) / end > _NARROW else f"{number}"
            axes.annotate(
                text,
                ((start + stop) / 2, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=GREY,
            )


def _legend(axes: Any) -> None:
    found: dict[str, Any] = {}
    order = [label for _, label in _SAID.values()]
    pairs = list(zip(*axes.get_legend_handles_labels(), strict=True))
    for handle, label in sorted(pairs, key=lambda pair: order.index(pair[1]) if pair[1] in order else -1):
        found.setdefault(label, handle)
    if any(line.get_linestyle() == ":" for line in axes.get_lines()):
        [found["best trivial baseline"]] = axes.plot([], [], color=GREY, linestyle=":", linewidth=1.3)
        found["best trivial baseline"].remove()  # the legend keeps it; on the axes it would be a line of nothing
    if found:
        axes.legend(
            list(found.values()), list(found), loc="upper left", bbox_to_anchor=(1.005, 1.02), frameon=False, fontsize=9
        )


def _shifted(points: Series, start: float) -> tuple[list[float], list[float]]:
    return [start + step for step, _ in points], [value for _, value in points]


def _smoothed(values: list[float]) -> list[float]:
    """Means over a window around each value, as wide on both sides as the ends allow."""
    reach = len(values) // (2 * _POINTS)
    smooth = []
    for place in range(len(values)):
        half = min(reach, place, len(values) - 1 - place)
        window = values[place - half : place + half + 1]
        smooth.append(sum(window) / len(window))
    return smooth
