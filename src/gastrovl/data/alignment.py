"""Two small grey pictures and a guess how they lie on each other to how well they agree where they overlap.

The guess is refined by Gauss-Newton steps on scale and shift of both axes (Lucas and Kanade, IJCAI 1981) with weights
that ignore outliers, so that a pasted logo does not pull the pictures apart. All pairs of a block are done at once.
Coordinates run from -1 to 1 across the content of a picture.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gastrovl.data.fingerprint import LAYOUT, THUMB_SIDE

BLOCK_SIDE = 4  # px; agreement is measured block by block
_KEPT = 0.75  # share of the blocks that must agree: a logo may cover the rest
_NOISE = 3.0  # grey levels: less contrast than this counts as little
_LARGEST_STEP = 0.15

Floats = NDArray[Any]  # all are float32


class Thumbs(NamedTuple):
    """Pictures with even brightness and contrast, (n, side, side), and where they may be compared (1) or not (0)."""

    grey: Floats
    valid: Floats

    def take(self, at: NDArray[np.int64]) -> Thumbs:
        """Some of the pictures, in the order of `at`."""
        return Thumbs(self.grey[at], self.valid[at])


class Aligned(NamedTuple):
    """How pairs agree.

    Attributes:
        likeness: In [0, 1], (n,); 0 if they overlap too little.
        placement: As in `align`, refined, (n, 4).
    """

    likeness: Floats
    placement: Floats


def thumbs_of(prints: NDArray[np.uint8]) -> Thumbs:
    """Thumbs of fingerprints, (n, FINGERPRINT_BYTES): the local mean removed, divided by the local spread."""
    shape = (-1, THUMB_SIDE, THUMB_SIDE)
    grey = prints[:, LAYOUT.thumb].reshape(shape).astype(np.float32)
    dark = np.unpackbits(np.ascontiguousarray(prints[:, LAYOUT.dark]), axis=1).reshape(shape)
    valid = (1 - dark).astype(np.float32)
    share = _smooth(valid) + np.float32(1e-3)
    even: Floats = (grey - _smooth(grey * valid) / share) * valid
    spread = np.sqrt(_smooth(even * even) / share) + np.float32(_NOISE)
    return Thumbs((even / spread).astype(np.float32), valid)


def halved(thumbs: Thumbs) -> Thumbs:
    """Half as many pixels a side, each the mean of four."""
    half = thumbs.grey.shape[1] // 2

    pool = _pool(half, 2) / np.float32(2)
    return Thumbs(pool @ thumbs.grey @ pool.T, (pool @ thumbs.valid @ pool.T > 0.9).astype(np.float32))


def mirrored(thumbs: Thumbs, mirror: NDArray[np.int64]) -> Thumbs:
    """Mirror each picture: 0 as it is, 1 left-right, 2 up-down, 3 both."""
    turned = Thumbs(thumbs.grey.copy(), thumbs.valid.copy())
    for pictures in turned:
        for kind, view in ((1, np.s_[:, :, ::-1]), (2, np.s_[:, ::-1]), (3, np.s_[:, ::-1, ::-1])):
            pictures[mirror == kind] = pictures[mirror == kind][view]
    return turned


def align(first: Thumbs, second: Thumbs, placement: Floats, *, steps: int, least_overlap: float) -> Aligned:
    """Refine where the pixels of `first` lie in `second`, and measure the agreement.

    Args:
        first: (n, side, side).
        second: As many; already mirrored if the guess says so.
        placement: Guess, (n, 4) as scale x, shift x, scale y, shift y: x in second = scale * x in first + shift.
        steps: Gauss-Newton steps.
        least_overlap: Pairs of which either picture lies in the other with a smaller share of its content are no match.
    """
    placement = placement.astype(np.float32)
    for _ in range(steps):
        warped, valid = _warp(second, placement)
        valid *= first.valid
        placement += _gauss_newton(warped, (warped - first.grey) * valid, valid)
        placement[:, 0::2] = np.clip(placement[:, 0::2], 0.5, 2.0)
    warped, valid = _warp(second, placement)
    valid *= first.valid
    likeness = _agreement(first.grey * valid, warped * valid, valid)
    shared = _mean(valid)
    area = placement[:, 0] * placement[:, 2]  # of a pixel of `first`, in pixels of `second`
    content = np.maximum(_mean(first.valid), 1e-3), np.maximum(_mean(second.valid), 1e-3)
    likeness[np.minimum(shared / content[0], shared * area / content[1]) < least_overlap] = 0
    return Aligned(likeness, placement)


def _warp(second: Thumbs, placement: Floats) -> tuple[Floats, Floats]:
    """`second` as seen at the pixels of `first`, and 1 where that is inside."""
    side = second.grey.shape[1]
    rows = _interpolation(placement[:, 2], placement[:, 3], side)
    columns = _interpolation(placement[:, 0], placement[:, 1], side).transpose(0, 2, 1)
    inside: Floats = rows @ second.valid @ columns
    return rows @ second.grey @ columns, (inside > 0.99).astype(np.float32)


def _interpolation(scale: Floats, shift: Floats, side: int) -> Floats:
    """Linear interpolation along one axis as matrices, (n, side, side); rows of places outside sum to less than 1."""
    where = (scale[:, None] * _centres(side) + shift[:, None] + 1) * np.float32(side / 2) - np.float32(0.5)
    weights = np.abs(where[:, :, None] - np.arange(side, dtype=np.float32))
    np.subtract(1, weights, out=weights)
    interpolation: Floats = np.maximum(weights, 0, out=weights)
    return interpolation


def _gauss_newton(warped: Floats, residual: Floats, valid: Floats) -> Floats:
    """One step of scale and shift of both axes, (n, 4)."""
    count, side, _ = warped.shape
    centres = _centres(side)
    slopes = np.zeros((count, 4, side, side), dtype=np.float32)  # by scale x, shift x, scale y, shift y
    slopes[:, 1, :, 1:-1] = (warped[:, :, 2:] - warped[:, :, :-2]) * np.float32(side / 4)
    slopes[:, 3, 1:-1] = (warped[:, 2:] - warped[:, :-2]) * np.float32(side / 4)
    slopes[:, 0] = slopes[:, 1] * centres
    slopes[:, 2] = slopes[:, 3] * centres[:, None]
    flat = slopes.reshape(count, 4, side * side)
    weighted = flat * (valid / (1 + residual * residual)).reshape(
        count, 1, side * side
    )  # Cauchy weights: a logo counts little
    damping = np.eye(4, dtype=np.float32) * np.float32(20 * (side / 32) ** 2)
    normal = weighted @ flat.transpose(0, 2, 1) + damping
    right = weighted @ residual.reshape(count, side * side, 1)
    step: Floats = np.clip(np.linalg.solve(normal, -right)[..., 0], -_LARGEST_STEP, _LARGEST_STEP)
    return step


def _agreement(a: Floats, b: Floats, valid: Floats) -> Floats:
    """Correlation over the blocks that agree best, in [0, 1], (n,)."""
    count, side, _ = a.shape
    pool = _pool(side // BLOCK_SIDE, BLOCK_SIDE)
    products, squares_a, squares_b, counts = (
        (pool @ values @ pool.T).reshape(count, len(pool) ** 2) for values in (a * b, a * a, b * b, valid)
    )
    counted = counts >= BLOCK_SIDE**2 / 4
    error = np.where(counted, squares_a + squares_b - 2 * products, np.inf)
    rank = np.argsort(np.argsort(error, axis=1, kind="stable"), axis=1, kind="stable")
    kept = rank < np.ceil(_KEPT * counted.sum(axis=1))[:, None]
    top = (products * kept).sum(axis=1)
    bottom = np.sqrt((squares_a * kept).sum(axis=1) * (squares_b * kept).sum(axis=1))
    likeness: Floats = np.clip(np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 1e-6), 0, 1)
    return likeness


def _smooth(pictures: Floats) -> Floats:
    smoothed: Floats = _SMOOTHING @ pictures @ _SMOOTHING.T
    return smoothed


def _mean(pictures: Floats) -> Floats:
    means: Floats = pictures.reshape(len(pictures), -1).mean(axis=1) if len(pictures) else np.zeros(0, dtype=np.float32)
    return means


def _pool(blocks: int, size: int) -> Floats:
    """Sums over blocks along one axis as a matrix, (blocks, blocks * size)."""
    pool: Floats = np.kron(np.eye(blocks, dtype=np.float32), np.ones((1, size), dtype=np.float32))
    return pool


def _centres(side: int) -> Floats:
    """Coordinates of pixel centres, (side,)."""
    return (np.arange(side, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / side) - np.float32(1)


def _smoothing(sigma: float) -> Floats:
    distance = np.arange(THUMB_SIDE)[:, None] - np.arange(THUMB_SIDE)
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    smoothing: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return smoothing


_SMOOTHING = _smoothing(4.0)
