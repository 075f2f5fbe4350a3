"""Replies in a declared foreign form to boxes, labels and texts, and boxes to that form.

Reading is strict: one scale, one order, one syntax, and no search for an answer in prose. What is not so written raises
BoxTextError or LabelError, which `answers.parse_answer` turns into a failure with its reason.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from gastrovl.core import geometry
from gastrovl.core.errors import BoxTextError, GeometryError, LabelError
from gastrovl.core.replyform import BoxForm, LabelForm, Order, ReplyForm, Scale, Syntax, TextForm
from gastrovl.core.types import Box

Numbers = tuple[float, float, float, float]
_DECIMALS = {Scale.UNIT: 3, Scale.PERCENT: 1}  # that we write; all other scales are whole numbers
_NUMBER = re.compile(r"-?\d{1,9}(?:\.\d{1,17})?", re.ASCII)
_N = rf"\s*({_NUMBER.pattern})\s*"
_LIST = re.compile(rf"\[{_N},{_N},{_N},{_N}\]", re.ASCII)
_BARE = re.compile(rf"{_N},{_N},{_N},{_N}|{_N}\s{_N}\s{_N}\s{_N}", re.ASCII)
_LOC = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>[^<>;]{0,200}", re.ASCII)
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*)\n?```", re.DOTALL)


def answer_part(text: str, form: ReplyForm) -> str:
    """The part of a reply that is the answer, without surrounding white space.

    Raises:
        LabelError: The mark behind which it stands is not there exactly once.
    """
    if form.answer_after is None:
        return text.strip()
    if text.count(form.answer_after) != 1:
        found = text.count(form.answer_after)
        raise LabelError(f"the reply holds {form.answer_after!r} {found} times; the answer stands behind the only one")
    return text.partition(form.answer_after)[2].strip()


def read_boxes(text: str, form: BoxForm, image_wh: tuple[int, int] | None) -> tuple[Box, ...]:
    """The boxes of an answer that consists of boxes; none when it says that the thing is absent.

    Args:
        image_wh: Size of the image that pixels count in; needed for pixels only.

    Raises:
        BoxTextError: The answer is written otherwise, a number lies outside the scale, or a box is reversed.
    """
    said = text.strip().casefold().removesuffix(".").strip()
    if said in {word.casefold() for word in form.absent}:
        return ()
    rows = list(_rows(text.strip(), form))
    if not rows and not form.empty_is_absent:
        raise BoxTextError("the list of boxes is empty, which this model's form does not declare as absent")
    return tuple(_box(row, form, image_wh) for row in rows)


def write_box(box: Box, form: BoxForm, image_wh: tuple[int, int] | None = None) -> str:
    """One box in a foreign form, e.g. for a question about a region; of JSON the list of numbers only.

    Edges are rounded to the grid of the scale (thousandths of a side for 0-1 and 0-100), and parted where they meet.
    """
    a, b, c, d = _written(box, form, image_wh)
    if form.syntax is Syntax.TAGS:
        return f"{form.opening}({a},{b}),({c},{d}){form.closing}"
    if form.syntax is Syntax.LOC:
        return "".join(f"<loc{int(value):04d}>" for value in (a, b, c, d))
    joined = ", ".join((a, b, c, d))
    return joined if form.syntax is Syntax.NUMBERS else f"[{joined}]"


def write_boxes(boxes: Sequence[Box], form: BoxForm, image_wh: tuple[int, int] | None = None) -> str:
    """An answer in a foreign form, as `read_boxes` reads it.

    Raises:
        BoxTextError: The form has no way to say it: several boxes of NUMBERS, or absence without a word for it.
    """
    if not boxes:
        if form.absent:
            return form.absent[0]
        if form.syntax is Syntax.JSON and form.empty_is_absent:
            return "[]"
        raise BoxTextError("this form declares no way to say that a thing is absent")
    if form.syntax is Syntax.NUMBERS and len(boxes) > 1:
        raise BoxTextError(f"{len(boxes)} boxes cannot be written as four numbers; expected one")
    written = [write_box(box, form, image_wh) for box in boxes]
    if form.syntax is Syntax.JSON:
        key = json.dumps(form.key)
        return "[" + ", ".join(f"{{{key}: {one}}}" for one in written) + "]"
    return (" ; " if form.syntax is Syntax.LOC else " ").join(written)


def read_labels(text: str, form: LabelForm) -> list[str]:
    """The names in an answer, as they are written; none of them is looked up here.

    Raises:
        LabelError: The answer is no JSON, or has no name where one is declared.
    """
    said = _without_prefix(text, form.prefixes)
    if form.syntax == "names":
        return said.split(form.separator)
    try:
        content = _json(said, is_fenced=form.json_in_fence)
    except ValueError as error:
        raise LabelError(str(error)) from error
    names: list[Any] = []
    for item in content if isinstance(content, list) else [content]:
        value = item.get(form.key) if isinstance(item, dict) else item
        names += value if isinstance(value, list) else [value]
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None or not names or None in names:
        raise LabelError(f"the JSON holds no name under {form.key!r}; expected a string or a list of strings there")
    return names


def read_text(text: str, form: TextForm) -> str:
    """The words of a free answer.

    Raises:
        LabelError: The answer is no JSON, or has no words where they are declared.
    """
    said = _without_prefix(text, form.prefixes)
    if form.syntax == "plain":
        return said
    try:
        content = _json(said, is_fenced=form.json_in_fence)
    except ValueError as error:
        raise LabelError(str(error)) from error
    words = content.get(form.key) if isinstance(content, dict) else None
    if not isinstance(words, str):
        raise LabelError(f"the JSON holds no text under {form.key!r}; expected an object with a string there")
    return words.strip()


def _rows(text: str, form: BoxForm) -> Iterator[Numbers]:
    """The four numbers of each box, in the order of the form."""
    if form.syntax is Syntax.JSON:
        yield from _json_rows(text, form)
    elif form.syntax is Syntax.TAGS:
        yield from _tagged_rows(text, form)
    elif form.syntax is Syntax.NUMBERS:
        match = _BARE.fullmatch(text)
        if match is None:
            raise BoxTextError(f"{_short(text)} is not four numbers and nothing else")
        yield _four([one for one in match.groups() if one is not None])
    elif form.syntax is Syntax.LOC:
        for part in text.split(";"):
            match = _LOC.fullmatch(part.strip())
            if match is None:
                raise BoxTextError(f"{_short(part.strip())} is not four <locNNNN> tokens with a name behind them")
            yield _four(match.groups())
    else:
        body = text[1:-1] if text.startswith("[[") and text.endswith("]]") else text
        found = _LIST.findall(body)
        if not found:
            raise BoxTextError(f"{_short(text)} holds no box; expected `[a, b, c, d]`")
        if rest := _LIST.sub("", body).strip(" ,;\t\r\n"):
            raise BoxTextError(f"{_short(text)} holds {_short(rest)} besides boxes; expected boxes only")
        yield from (_four(row) for row in found)


def _json_rows(text: str, form: BoxForm) -> Iterator[Numbers]:
    try:
        content = _json(text, is_fenced=form.json_in_fence)
    except ValueError as error:
        raise BoxTextError(str(error)) from error
    for item in content if isinstance(content, list) else [content]:
        if not isinstance(item, dict) or form.key not in item:
            raise BoxTextError(f"the JSON holds {_short(json.dumps(item))} where an object with {form.key!r} belongs")
        value = item[form.key]
        if value is None or value == []:
            if not form.empty_is_absent or (isinstance(content, list) and len(content) > 1):
                raise BoxTextError(f"{form.key!r} is empty; expected four numbers")
            continue
        if not isinstance(value, list):
            raise BoxTextError(f"{form.key!r} is {_short(json.dumps(value))}; expected four numbers")
        for row in value if isinstance(value[0], list) else [value]:
            if not isinstance(row, list) or any(type(one) not in (int, float) for one in row):
                raise BoxTextError(f"{form.key!r} is {_short(json.dumps(value))}; expected four numbers")
            yield _four(row)


def _tagged_rows(text: str, form: BoxForm) -> Iterator[Numbers]:
    rest = text
    while rest:
        if form.names is not None and rest.startswith(form.names[0]):
            rest = rest.partition(form.names[1])[2].lstrip(" ,;\t\r\n")
        inner, closing, behind = rest.removeprefix(form.opening).partition(form.closing)
        if not rest.startswith(form.opening) or not closing:
            raise BoxTextError(f"{_short(rest)} is not numbers between {form.opening!r} and {form.closing!r}")
        numbers = _NUMBER.findall(inner)
        if _NUMBER.sub("", inner).strip(" ()[],\t\r\n") or not numbers or len(numbers) % 4:
            raise BoxTextError(f"{_short(inner)} is not four numbers for each box")
        for start in range(0, len(numbers), 4):
            yield _four(numbers[start : start + 4])
        rest = behind.lstrip(" ,;\t\r\n")


def _box(row: Numbers, form: BoxForm, image_wh: tuple[int, int] | None) -> Box:
    """A box from the four numbers of a reply."""
    if form.scale is not Scale.UNIT and max(row) <= 1:
        raise BoxTextError(f"{list(row)}: no number is above 1, so this is no box of the scale {form.scale}")
    is_sized = form.order in (Order.XYWH, Order.CXCYWH)
    if form.scale is Scale.BINS and not is_sized and any(value != int(value) for value in row):
        raise BoxTextError(f"{list(row)}: expected whole numbers 0-999")
    x0, y0, x1, y1 = _edges(row, form.order)
    try:
        if form.scale is Scale.PIXELS:
            if image_wh is None:
                raise BoxTextError("the boxes are in pixels, and the prediction does not say of what image size")
            return geometry.from_pixels((x0, y0, x1, y1), image_wh)
        full = form.scale.full
        slack = full / 1000 if is_sized else 0.0  # a centre and a size are rounded one by one
        if min(x0, y0) < -slack or max(x1, y1) > full + slack:
            raise BoxTextError(f"{list(row)}: a coordinate lies outside the scale {form.scale}")
        if not (x0 < x1 and y0 < y1):
            raise BoxTextError(f"{list(row)}: the box is reversed or empty in the order {form.order}")
        return geometry.clip(x0 / full, y0 / full, x1 / full, y1 / full)
    except GeometryError as error:
        raise BoxTextError(str(error)) from error


def _edges(row: Numbers, order: Order) -> Numbers:
    a, b, c, d = row
    if order is Order.XYWH:
        return a, b, a + c, b + d
    if order is Order.CXCYWH:
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    return (b, a, d, c) if order is Order.YXYX else row


def _written(box: Box, form: BoxForm, image_wh: tuple[int, int] | None) -> tuple[str, str, str, str]:
    """The four numbers of a box as they are written, in the order of the form."""
    decimals = _DECIMALS.get(form.scale, 0)
    if form.scale is Scale.PIXELS:
        if image_wh is None:
            raise BoxTextError("a box in pixels needs the size of the image")
        steps_x, steps_y = image_wh
    else:
        steps_x = steps_y = int(form.scale.full * 10**decimals)
    x0, x1 = geometry.on_grid(box.x0, box.x1, steps_x)
    y0, y1 = geometry.on_grid(box.y0, box.y1, steps_y)
    if form.scale is Scale.LOC:  # there is no token for the far edge itself
        x0, y0, x1, y1 = min(x0, 1022), min(y0, 1022), min(x1, 1023), min(y1, 1023)
    plain = 10**decimals

    def say(value: float) -> str:
        text = f"{value / plain:.{decimals + 1}f}"  # a centre can lie between two steps
        return text[:-1].removesuffix(".") if text.endswith("0") else text

    if form.order is Order.XYWH:
        return say(x0), say(y0), say(x1 - x0), say(y1 - y0)
    if form.order is Order.CXCYWH:
        return say((x0 + x1) / 2), say((y0 + y1) / 2), say(x1 - x0), say(y1 - y0)
    return (say(y0), say(x0), say(y1), say(x1)) if form.order is Order.YXYX else (say(x0), say(y0), say(x1), say(y1))


def _four(row: Sequence[Any]) -> Numbers:
    try:
        numbers = [float(one) for one in row]
    except OverflowError:
        numbers = [math.inf]
    if len(numbers) != 4 or not all(math.isfinite(one) for one in numbers):
        raise BoxTextError(f"{_short(str(list(row)))} is not four numbers")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _json(text: str, *, is_fenced: bool) -> Any:
    """The JSON that a text consists of.

    Raises:
        ValueError: It is none, or a key stands there twice.
    """
    fence = _FENCE.fullmatch(text.strip()) if is_fenced else None
    try:
        return json.loads(fence.group(1) if fence else text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply to be an answer") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{_short(text)} is not JSON ({error.msg})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("the JSON has a key twice, so it gives two answers")
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"the JSON holds {name}, which is no number")


def _without_prefix(text: str, prefixes: Sequence[str]) -> str:
    said = text.strip()
    for prefix in prefixes:
        if said[: len(prefix)].casefold() == prefix.casefold():
            return said[len(prefix) :].strip()
    return said


def _short(text: str, limit: int = 120) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")
