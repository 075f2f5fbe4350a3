"""Paths and looks of images to group keys: a patient or video key in the name, or runs of a numbered series."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise

from gastrovl.core.errors import SourceError
from gastrovl.data.images import ImageFile
from gastrovl.data.source import GroupRule

SAME_SIZE = 0.02  # widths and heights of one recording agree within this share


Likeness = Callable[[int, int], float]  # of the colours of two images, by their indices: 0 to 1


def group_keys(images: Sequence[ImageFile], rule: GroupRule, likeness: Likeness) -> list[str]:
    """The key of each image.

    Args:
        likeness: Asked of neighbours in a numbered series.

    Raises:
        SourceError: The pattern does not match a name.
    """
    pattern = re.compile(rule.pattern)
    keys: list[str] = []
    series: dict[str, list[tuple[int, int]]] = {}  # key -> (frame number, index into images)
    for index, image in enumerate(images):
        match = pattern.search(image.name)
        if match is None:
            raise SourceError(
                f"{image.path}: the name {image.name!r} does not match `group.pattern` {rule.pattern!r}; expected "
                "every image to. Correct the pattern in the source description, or leave `group` out"
            )
        number = match.groupdict().get("number")
        if rule.series is None or number is None:
            keys.append("/".join(part or "" for part in match.groups()) or match.group())
            continue
        at = match.re.groupindex["number"] - 1
        prefix = "/".join(part or "" for place, part in enumerate(match.groups()) if place != at)
        keys.append(prefix)
        series.setdefault(prefix, []).append((int(number), index))
    for prefix, frames in series.items():
        _name_runs(sorted(frames), prefix, rule.series or len(frames), images, likeness, keys)
    return keys


def cut_series(likeness: Sequence[float], longest: int) -> list[int]:
    """Where to cut a series into runs of at most `longest` frames so that the fewest look-alike neighbours part.

    Args:
        likeness: Of each frame to the next, at least 0; one less than there are frames.

    Returns:
        Indices of the frames that begin a new run, ascending, 0 left out: the cuts with the least summed likeness, and
        of those the fewest.
    """
    frames = len(likeness) + 1
    # Of the first n frames, for the best cuts: sum, number of cuts, start of the last run.
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    # What a last run from `start` costs does not depend on its end, so the least of the last `longest` starts is kept
    # at the left of a queue that only ascends: time grows with the frames alone.
    starts: deque[tuple[float, int, int]] = deque()
    for end in range(1, frames + 1):
        start = end - 1
        total, count, _ = best[start]
        option = (total + (likeness[start - 1] if start else 0.0), count + (start > 0), start)
        while starts and starts[-1] > option:
            starts.pop()
        starts.append(option)
        if starts[0][2] < end - longest:
            starts.popleft()
        best.append(starts[0])
    cuts = []
    start = best[frames][2]
    while start:
        cuts.append(start)
        start = best[start][2]
    return cuts[::-1]


def _name_runs(
    frames: list[tuple[int, int]],
    prefix: str,
    longest: int,
    images: Sequence[ImageFile],
    likeness: Likeness,
    keys: list[str],
) -> None:
    alike = [likeness(a, b) if _is_same_size(images[a], images[b]) else 0.0 for (_, a), (_, b) in pairwise(frames)]
    for start, end in pairwise([0, *cut_series(alike, longest), len(frames)]):
        name = f"{prefix}/{frames[start][0]:04d}-{frames[end - 1][0]:04d}"
        for _, index in frames[start:end]:
            keys[index] = name


def _is_same_size(a: ImageFile, b: ImageFile) -> bool:
    """Frames of another size are of another recording."""
    first, second = a.size_wh or (1, 1), b.size_wh or (1, 1)
    return all(abs(x - y) <= SAME_SIZE * max(x, y) for x, y in zip(first, second, strict=True))
