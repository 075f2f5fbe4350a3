"""Fingerprints to the pairs of pictures that are copies of each other, also cropped, mirrored or painted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.data.alignment import align, mirror_thumbs, thumbs_of
from gastrovl.data.candidates import Matches, code_matches
from gastrovl.data.fingerprint import LAYOUT, PLACES

How = Literal["same", "mirrored", "cropped", "mirrored and cropped", "embedding"]
_NARROWER = 1.2  # how much narrower the narrow surroundings are
_BLOCK = 2048  # pairs aligned at once
_HYPOTHESES = 4  # placements tried for one pair


class CopyOptions(Config):
    """Which pictures count as copies of each other.

    Attributes:
        likeness: Least agreement of the two pictures laid over each other, 0 to 1.
        mirrored: Also look for copies mirrored left-right, up-down, or both (turned by 180 degrees).
        code_bits: In how many of 48 bits two parts may differ to make their pictures candidates.
        least_overlap: Share of either picture's content that must lie in the other.
    """

    likeness: float = Field(default=0.8, gt=0, le=1)
    mirrored: bool = True
    code_bits: int = Field(default=8, ge=0, le=16)
    least_overlap: float = Field(default=0.5, gt=0, le=1)


class Copy(NamedTuple):
    """Two pictures, i < j, that are copies: likeness 1 is the same pixels; `how` says what was done to one of them."""

    i: int
    j: int
    likeness: float
    how: How


def find_copies(
    prints: NDArray[np.uint8], options: CopyOptions, progress: Callable[[int, int], None] | None = None
) -> list[Copy]:
    """All pairs of pictures that are found to be copies, sorted by (i, j).

    Args:
        prints: Fingerprints, (pictures, FINGERPRINT_BYTES); may be a memory map.
        options: What counts as a copy.
        progress: Called with (steps done, steps in all).
    """
    if len(prints) < 2:
        return []
    matches = code_matches(prints, options.code_bits, options.mirrored, progress)
    best: dict[tuple[int, int], Copy] = {}
    pairs, mirror, guess = _hypotheses(prints, matches)
    for start in range(0, len(pairs), _BLOCK):
        block = slice(start, start + _BLOCK)
        first = thumbs_of(prints[pairs[block, 0]])
        second = mirror_thumbs(thumbs_of(prints[pairs[block, 1]]), mirror[block])
        aligned = align(first, second, guess[block], options.least_overlap)
        for at in np.flatnonzero(aligned.likeness >= options.likeness):
            i, j = int(pairs[start + at, 0]), int(pairs[start + at, 1])
            copy = Copy(
                i, j, round(float(aligned.likeness[at]), 4), _how(int(mirror[start + at]), aligned.placement[at])
            )
            if (i, j) not in best or best[i, j].likeness < copy.likeness:
                best[i, j] = copy
    return [best[pair] for pair in sorted(best)]


def _hypotheses(
    prints: NDArray[np.uint8], matches: Matches
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Pairs with a mirror and a guessed placement; each pair up to _HYPOTHESES times."""
    order = np.lexsort((matches.code_j, matches.code_i, matches.bits, matches.j, matches.i))
    i, j, mirror = matches.i[order], matches.j[order], matches.mirror[order]
    new = np.ones(len(i), dtype=np.bool_)
    new[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1])
    starts = np.flatnonzero(new)
    rank = np.arange(len(i)) - np.repeat(starts, np.diff(np.append(starts, len(i))))
    kept = order[rank < _HYPOTHESES]
    i, j, mirror = matches.i[kept], matches.j[kept], matches.mirror[kept]
    code_i, code_j = matches.code_i[kept], matches.code_j[kept]
    scale = np.where(code_i // PLACES == code_j // PLACES, 1.0, np.where(code_i < PLACES, 1 / _NARROWER, _NARROWER))
    at_i, at_j = _places(prints, i, code_i), _places(prints, j, code_j)
    at_j = at_j * np.stack((1 - 2 * (mirror % 2), 1 - 2 * (mirror // 2)), axis=1)
    shift = at_j - scale[:, None] * at_i
    guess = np.stack((scale, shift[:, 0], scale, shift[:, 1]), axis=1)
    return np.stack((i, j), axis=1), mirror, guess


def _places(prints: NDArray[np.uint8], picture: NDArray[np.int64], code: NDArray[np.int64]) -> NDArray[np.float64]:
    """(x, y) of codes, -1 to 1 across the content."""
    at = LAYOUT.places.start + 2 * (code % PLACES)
    where = np.stack((prints[picture, at], prints[picture, at + 1]), axis=1).astype(np.float64)
    where[code % PLACES == PLACES - 1] = 31.5
    return (where + 0.5) / 32 - 1


def _how(mirror: int, placement: NDArray[np.float64]) -> How:
    """What was done, from how the pictures lie on each other."""
    cropped = bool(np.abs(placement - (1, 0, 1, 0)).max() > 0.04)
    if mirror:
        return "mirrored and cropped" if cropped else "mirrored"
    return "cropped" if cropped else "same"


__all__ = ["Copy", "CopyOptions", "How", "find_copies"]
