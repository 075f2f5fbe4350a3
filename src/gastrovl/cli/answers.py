"""Answers about an image to lines for people or a JSON object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from gastrovl.core.types import Box
    from gastrovl.inference.session import Answer, Wish

_RUNNERS_UP = 3  # labels not given whose probabilities are shown
_WORTH_SHOWING = 0.02


def print_answers(
    image: Path,
    size_wh: tuple[int, int],
    wishes: Sequence[Wish],
    found: Sequence[tuple[Answer, float]],
    *,
    as_json: bool,
    is_alone: bool,
) -> None:
    """Print all answers about an image; the only answer stands alone, with what it is worth on standard error."""
    if as_json:
        typer.echo(json.dumps(_content(image, size_wh, wishes, found), ensure_ascii=False))
        return
    if is_alone and not wishes[0].is_typed:
        answer = found[0][0]
        typer.echo(answer.text)
        cut = " (cut at the length limit)" if getattr(answer, "stop_reason", "end") == "length" else ""
        typer.echo(f"confidence {answer.confidence:.2f}, {_calibration(answer)}{cut}", err=True)
        return
    typer.echo(image)
    for wish, (answer, _) in zip(wishes, found, strict=True):
        lines = lines_of(wish, answer)
        typer.echo(f"  {lines[0]}")
        for line in lines[1:]:
            typer.echo(f"    {line}")


def lines_of(wish: Wish, answer: Answer) -> list[str]:
    """What was answered, a heading first."""
    from gastrovl.inference.typed import BoxAnswer, LabelAnswer

    sure = f"confidence {answer.confidence:.2f}, {_calibration(answer)}"
    if isinstance(answer, LabelAnswer):
        where = f"in {_place(wish.box)}: " if wish.box else ""
        return [f"{where}{answer.text}  ({sure})", *_others(answer)]
    if isinstance(answer, BoxAnswer):
        there = "" if answer.presence is None else f"there with probability {answer.presence:.2f}; "
        heading = f"{wish.words or 'boxes'}: {'' if answer.boxes else 'absent'}  ({there}{sure})".replace(
            ":   (", ":  ("
        )
        ious = answer.expected_iou or (None,) * len(answer.boxes)
        return [
            heading,
            *(
                _place(box) + ("" if iou is None else f", expected IoU {iou:.2f}")
                for box, iou in zip(answer.boxes, ious, strict=True)
            ),
        ]
    return [f"{answer.text}  ({sure})"]


def _content(
    image: Path, size_wh: tuple[int, int], wishes: Sequence[Wish], found: Sequence[tuple[Answer, float]]
) -> dict[str, Any]:
    from gastrovl.inference.description import NOTICE

    return {
        "image": str(image),
        "width_px": size_wh[0],
        "height_px": size_wh[1],
        "answers": [
            answer_content(wish, answer) | {"seconds": round(seconds, 3)}
            for wish, (answer, seconds) in zip(wishes, found, strict=True)
        ],
        "notice": NOTICE,
    }


def answer_content(wish: Wish, answer: Answer) -> dict[str, Any]:
    """One answer as JSON; boxes are fractions x0, y0, x1, y1 of width and height."""
    from dataclasses import asdict

    content: dict[str, Any] = {"kind": wish.kind.value}
    content |= {"asked": wish.words} if wish.words else {}
    content |= {"region": list(wish.box.xyxy)} if wish.box else {}
    said = asdict(answer) | ({"boxes": [box.xyxy for box in answer.boxes]} if hasattr(answer, "boxes") else {})
    return content | {key: _rounded(value) for key, value in said.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return value


def _calibration(answer: Answer) -> str:
    return "calibrated" if answer.calibrated else "not calibrated"


def _place(box: Box) -> str:
    return f"x {box.x0:.3f} to {box.x1:.3f}, y {box.y0:.3f} to {box.y1:.3f}"


def _others(answer: Any) -> list[str]:
    """The likeliest labels with their probabilities, those given and the next ones."""
    from gastrovl.clinical.taxonomy import Taxonomy

    taxonomy = Taxonomy.load()
    ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
    kept = [pair for pair in ranked if pair[1] >= _WORTH_SHOWING][: len(answer.terms) + _RUNNERS_UP]
    if not kept:
        return []
    names = [(taxonomy[term].name if term in taxonomy else term, chance) for term, chance in kept]
    return ["probabilities: " + ", ".join(f"{name} {chance:.2f}" for name, chance in names)]
