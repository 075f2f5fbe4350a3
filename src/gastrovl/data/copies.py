"""Fingerprints to the pairs of pictures that are copies of each other, also cropped, mirrored or painted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.data.alignment import Aligned, Thumbs, align, halved, mirrored, thumbs_of
from gastrovl.data.candidates import Guesses, candidate_pairs, rows_of

How = Literal["same", "mirrored", "cropped", "mirrored and cropped", "embedding"]
_BLOCK = 512  # pairs aligned at once
_COARSE = ((2, 0.45), (2, 0.55))  # steps on half-size pictures, and the likeness that is needed to go on
_FINE_STEPS = 3
_CERTAIN = 0.95  # a pair this much alike needs no further guess
_LYING_ON_EACH_OTHER = np.array((1, 0, 1, 0), dtype=np.float32)
_PLACED = 0.04  # scale or shift off by more than this means that one is cut


class CopyOptions(Config):
    """Which pictures count as copies of each other.

    Attributes:
        likeness: Least agreement of the two pictures laid over each other, 0 to 1.
        mirrored: Also look for copies mirrored left-right, up-down, or both (turned by 180 degrees).
        least_overlap: Share of either picture's content that must lie in the other.
        code_bits: In how many of 48 bits two parts may differ to make their pictures candidates.
    """

    likeness: float = Field(default=0.88, gt=0, le=1)
    mirrored: bool = True
    least_overlap: float = Field(default=0.55, gt=0, le=1)
    code_bits: int = Field(default=8, ge=0, le=15)


class Copy(NamedTuple):
    """Two pictures, i < j, that are copies: likeness 1 is the same pixels; `how` says how they lie on each other."""

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
        progress: Called with (parts done, parts in all); half of the parts are the search for candidates.
    """
    if len(prints) < 2:
        return []

    def searched(done: int, total: int) -> None:
        if progress:
            progress(done * 50 // total, 100)

    guesses = candidate_pairs(prints, options.code_bits, options.mirrored, searched)
    pairs = guesses.pairs
    found: list[Copy] = []
    for start in range(0, len(pairs), _BLOCK):
        block = slice(start, start + _BLOCK)
        aligned, mirror = _best_of(prints, guesses.of(block), options.least_overlap)
        for at in np.flatnonzero(aligned.likeness >= options.likeness):
            i, j = pairs[start + at].tolist()
            likeness = round(float(aligned.likeness[at]), 4)
            found.append(Copy(i, j, likeness, _how(int(mirror[at]), aligned.placement[at])))
        if progress:
            progress(50 + min(start + _BLOCK, len(pairs)) * 50 // len(pairs), 100)
    if progress:
        progress(100, 100)
    return found


def _best_of(prints: NDArray[np.uint8], guesses: Guesses, least_overlap: float) -> tuple[Aligned, NDArray[np.int64]]:
    """For each pair the guess that agrees best, and its mirror; later guesses are tried where the first did not do."""
    count = len(guesses.pairs)
    pictures, at = np.unique(guesses.pairs, return_inverse=True)
    thumbs = thumbs_of(rows_of(prints, pictures))
    small = halved(thumbs)
    first, second = at.reshape(count, 2).T
    best = Aligned(np.zeros(count, dtype=np.float32), np.tile(_LYING_ON_EACH_OTHER, (count, 1)))
    best_mirror = np.zeros(count, dtype=np.int64)
    for rank in range(guesses.mirror.shape[1]):
        rows = np.flatnonzero((guesses.mirror[:, rank] >= 0) & (best.likeness < _CERTAIN))
        mirror, placement = guesses.mirror[rows, rank], guesses.placement[rows, rank]
        for steps, enough in _COARSE:
            coarse = _align(small, first[rows], second[rows], mirror, placement, steps, 0.8 * least_overlap)
            kept = coarse.likeness >= enough
            rows, mirror, placement = rows[kept], mirror[kept], coarse.placement[kept]
        fine = _align(thumbs, first[rows], second[rows], mirror, placement, _FINE_STEPS, least_overlap)
        better = fine.likeness > best.likeness[rows]
        rows = rows[better]
        best.likeness[rows], best.placement[rows] = fine.likeness[better], fine.placement[better]
        best_mirror[rows] = mirror[better]
    return best, best_mirror


def _align(
    thumbs: Thumbs,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    mirror: NDArray[np.int64],
    placement: NDArray[np.float32],
    steps: int,
    least_overlap: float,
) -> Aligned:
    others = mirrored(thumbs.take(second), mirror)
    return align(thumbs.take(first), others, placement, steps=steps, least_overlap=least_overlap)


def _how(mirror: int, placement: NDArray[np.float32]) -> How:
    """What was done, from how the pictures lie on each other."""
    cropped = bool(np.abs(placement - _LYING_ON_EACH_OTHER).max() > _PLACED)
    if mirror:
        return "mirrored and cropped" if cropped else "mirrored"
    return "cropped" if cropped else "same"
