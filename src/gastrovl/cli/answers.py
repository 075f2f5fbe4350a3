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
    from gastrovl.inference.verdicts import ScopeAnswer

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
        for line in (scope_line(_scope(found)), _withheld(answer), *_set_and_checks(answer)):
            if line:
                typer.echo(line, err=True)
        return
    typer.echo(image)
    if line := scope_line(_scope(found)):
        typer.echo(f"  {line}")
    for wish, (answer, _) in zip(wishes, found, strict=True):
        lines = lines_of(wish, answer)
        typer.echo(f"  {lines[0]}")
        for line in lines[1:]:
            typer.echo(f"    {line}")


def lines_of(wish: Wish, answer: Answer) -> list[str]:
    """What was answered and what to believe of it, a heading first."""
    from gastrovl.inference.typed import BoxAnswer, LabelAnswer

    sure = f"confidence {answer.confidence:.2f}, {_calibration(answer)}"
    withheld = _withheld(answer)
    if isinstance(answer, LabelAnswer):
        where = f"in {_place(wish.box)}: " if wish.box else ""
        return [f"{where}{withheld or answer.text}  ({sure})", *_others(answer), *_set_and_checks(answer)]
    if isinstance(answer, BoxAnswer):
        there = "" if answer.presence is None else f"there with probability {answer.presence:.2f}; "
        said = withheld or ("" if answer.boxes else "absent")
        heading = f"{wish.words or 'boxes'}:{' ' if said else ''}{said}  ({there}{sure})"
        ious = answer.expected_iou or (None,) * len(answer.boxes)
        boxes = [
            _place(box) + ("" if iou is None else f", expected IoU {iou:.2f}")
            for box, iou in zip(answer.boxes, ious, strict=True)
        ]
        return [heading, *boxes, *_set_and_checks(answer)]
    return [f"{answer.text}  ({sure})"]


def scope_line(scope: ScopeAnswer | None) -> str | None:
    """What to say of a picture; None where nothing speaks against it."""
    if scope is None or scope.verdict == "in_scope":
        return None
    if scope.verdict == "unreadable":
        return f"unreadable ({scope.reason}): do not rely on answers about it"
    return f"perhaps out of scope ({scope.reason}): be careful with answers about it"


def _withheld(answer: Answer) -> str | None:
    """What is said instead of an answer that is too unsure to be given."""
    from gastrovl.inference.typed import BoxAnswer

    belief = answer.belief
    if belief is None or not belief.is_withheld:
        return None
    if isinstance(answer, BoxAnswer):
        places = "this place" if len(answer.boxes) == 1 else "these places"
        return f"withheld: too unsure {f'of {places}' if answer.boxes else 'that it is absent'}"
    instead = ", ".join(f"{_name(one.term)} ({one.probability:.2f})" for one in belief.fallback)
    sure = f", but sure of {instead}" if instead else " and of anything wider"
    return f'withheld: too unsure of "{answer.text}"{sure}'


def _set_and_checks(answer: Answer) -> list[str]:
    belief, lines = answer.belief, list[str]()
    if belief is None:
        return lines
    if belief.label_set is not None and belief.level is not None:
        is_all = len(belief.label_set) == len(getattr(answer, "probabilities", ())) > 1
        names = "every label; none can be left out" if is_all else ", ".join(map(_name, belief.label_set))
        lines.append(f"label set at {belief.level:.0%}: {names}")
    for is_passed, word in ((True, "for"), (False, "against")):
        if found := [one.detail for one in belief.checks if one.passed is is_passed]:
            lines.append(f"{word} it: {'; '.join(found)}")
    return lines


def _scope(found: Sequence[tuple[Answer, float]]) -> ScopeAnswer | None:
    """Of the picture that all answers are about."""
    return next((answer.belief.scope for answer, _ in found if answer.belief), None)


def _name(term: str) -> str:
    from gastrovl.clinical.taxonomy import Taxonomy

    taxonomy = Taxonomy.load()
    return taxonomy[term].name if term in taxonomy else term


def _content(
    image: Path, size_wh: tuple[int, int], wishes: Sequence[Wish], found: Sequence[tuple[Answer, float]]
) -> dict[str, Any]:
    from dataclasses import asdict

    from gastrovl.inference.description import NOTICE

    return {
        "image": str(image),
        "width_px": size_wh[0],
        "height_px": size_wh[1],
        "scope": None if (scope := _scope(found)) is None else _rounded(asdict(scope)),
        "answers": [
            answer_content(wish, answer) | {"seconds": round(seconds, 3)}
            for wish, (answer, seconds) in zip(wishes, found, strict=True)
        ],
        "notice": NOTICE,
    }


def answer_content(wish: Wish, answer: Answer) -> dict[str, Any]:
    """One answer as JSON; boxes are fractions x0, y0, x1, y1 of width and height. Scope is said of the image."""
    from dataclasses import asdict

    content: dict[str, Any] = {"kind": wish.kind.value}
    content |= {"asked": wish.words} if wish.words else {}
    content |= {"region": list(wish.box.xyxy)} if wish.box else {}
    said = asdict(answer) | ({"boxes": [box.xyxy for box in answer.boxes]} if hasattr(answer, "boxes") else {})
    said["belief"] = answer.belief.model_dump(mode="json", exclude={"scope"}) if answer.belief else None
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
    ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
    kept = [pair for pair in ranked if pair[1] >= _WORTH_SHOWING][: len(answer.terms) + _RUNNERS_UP]
    if not kept:
        return []
    return ["probabilities: " + ", ".join(f"{_name(term)} {chance:.2f}" for term, chance in kept)]
