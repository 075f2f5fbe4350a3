"""Two small grey pictures and a guess how they lie on each other to how well they agree where they overlap.

The guess is refined by Gauss-Newton steps on scale and shift of both axes (Lucas and Kanade, IJCAI 1981) with weights
that ignore outliers, so that a pasted logo does not pull the pictures apart. All pairs of a block are done at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gastrovl.data.fingerprint import LAYOUT, THUMB_SIDE

_BLOCKS = 8  # per axis, for agreement block by block
_STEPS = 6
_KEPT = 0.75  # share of blocks that must agree: a logo may cover the rest


class Thumbs(NamedTuple):
    """Pictures with even brightness and contrast, (n, side, side), and where they may be compared."""

    grey: NDArray[np.float32]
    valid: NDArray[np.float32]


class Aligned(NamedTuple):
    """How pairs agree: likeness in [0, 1], the placement (scale x, shift x, scale y, shift y), the shared area."""

    likeness: NDArray[np.float64]
    placement: NDArray[np.float64]
    overlap: NDArray[np.float64]


def thumbs_of(prints: NDArray[np.uint8]) -> Thumbs:
    """Thumbs of fingerprints, (n, FINGERPRINT_BYTES): local mean removed, divided by the local spread."""
    side = THUMB_SIDE
    grey = prints[:, LAYOUT.thumb].reshape(-1, side, side).astype(np.float32)
    dark = np.unpackbits(np.ascontiguousarray(prints[:, LAYOUT.dark]), axis=1).reshape(-1, side, side)
    valid = (1 - dark).astype(np.float32)
    share = np.maximum(_smooth(valid), 1e-3)
    even = (grey - _smooth(grey * valid) / share) * valid
    spread = np.sqrt(_smooth(even * even) / share)
    return Thumbs(even / (spread + _NOISE), valid)


def mirror_thumbs(thumbs: Thumbs, mirror: NDArray[np.int64]) -> Thumbs:
    """Mirror each picture: 0 as it is, 1 left-right, 2 up-down, 3 both."""

    def turn(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        turned = np.where((mirror % 2 == 1)[:, None, None], pictures[:, :, ::-1], pictures)
        return np.where((mirror // 2 == 1)[:, None, None], turned[:, ::-1], turned)

    return Thumbs(turn(thumbs.grey), turn(thumbs.valid))


def align(first: Thumbs, second: Thumbs, placement: NDArray[np.float64], least_overlap: float) -> Aligned:
    """Refine where the pixels of `first` lie in `second`, and measure the agreement.

    Args:
        first: (n, side, side).
        second: As many; already mirrored if the guess says so.
        placement: Guess, (n, 4) as scale x, shift x, scale y, shift y: x in second = scale * x in first + shift, with
            coordinates from -1 to 1 across the content.
        least_overlap: Pairs that share less of either picture have likeness 0.
    """
    placement = placement.copy()
    for step in range(_STEPS + 1):
        warped, valid = _warp(second, placement)
        valid = valid * first.valid
        residual = (warped - first.grey) * valid
        if step == _STEPS:
            break
        placement += _gauss_newton(warped, residual, valid)
        placement[:, 0::2] = np.clip(placement[:, 0::2], 0.5, 2.0)
    likeness = _agreement(first.grey, warped, valid)
    shared = valid.mean(axis=(1, 2), dtype=np.float64)
    area = placement[:, 0] * placement[:, 2]
    overlap = np.minimum(shared / first.valid.mean(axis=(1, 2)), shared * area / second.valid.mean(axis=(1, 2)))
    likeness[overlap < least_overlap] = 0
    return Aligned(likeness, placement, overlap)


def _warp(second: Thumbs, placement: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`second` as seen at the pixels of `first`, and where that is inside."""
    side = THUMB_SIDE
    rows = _interpolation(placement[:, 2], placement[:, 3])  # (n, side, side): one row of weights per pixel
    columns = _interpolation(placement[:, 0], placement[:, 1])
    warped = rows @ second.grey @ columns.transpose(0, 2, 1)
    valid = rows @ second.valid @ columns.transpose(0, 2, 1)
    assert warped.shape[1:] == (side, side)
    return warped, (valid > 0.99).astype(np.float32)


def _interpolation(scale: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float32]:
    """Linear interpolation along one axis as matrices, (n, side, side); rows of places outside are zero."""
    where = (scale[:, None] * _AT + shift[:, None] + 1) * (THUMB_SIDE / 2) - 0.5
    weights = 1 - np.abs(where[:, :, None].astype(np.float32) - np.arange(THUMB_SIDE, dtype=np.float32))
    return np.maximum(weights, 0, out=weights)


def _gauss_newton(
    warped: NDArray[np.float32], residual: NDArray[np.float32], valid: NDArray[np.float32]
) -> NDArray[np.float64]:
    """One step of scale and shift of both axes, (n, 4)."""
    slope_y = np.zeros_like(warped)
    slope_x = np.zeros_like(warped)
    slope_y[:, 1:-1] = (warped[:, 2:] - warped[:, :-2]) * (THUMB_SIDE / 4)
    slope_x[:, :, 1:-1] = (warped[:, :, 2:] - warped[:, :, :-2]) * (THUMB_SIDE / 4)
    weights = valid / (1 + residual * residual)  # Cauchy weights: a logo counts little
    at = _AT.astype(np.float32)
    flat = (len(warped), -1)
    jacobian = np.stack(
        (
            (slope_x * at).reshape(flat),
            slope_x.reshape(flat),
            (slope_y * at[:, None]).reshape(flat),
            slope_y.reshape(flat),
        ),
        axis=1,
    )
    weighted = jacobian * weights.reshape(len(warped), 1, -1)
    normal = (weighted @ jacobian.transpose(0, 2, 1)).astype(np.float64) + 20 * np.eye(4)
    right = (weighted @ residual.reshape(len(warped), -1, 1)).astype(np.float64)
    step = np.linalg.solve(normal, -right)[..., 0]
    return np.clip(step, -0.15, 0.15)


def _agreement(
    first: NDArray[np.float32], warped: NDArray[np.float32], valid: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Correlation over the blocks that agree best, in [0, 1]."""

    def by_block(values: NDArray[np.float32]) -> NDArray[np.float64]:
        size = THUMB_SIDE // _BLOCKS
        return (
            values.reshape(-1, _BLOCKS, size, _BLOCKS, size).sum(axis=(2, 4), dtype=np.float64).reshape(len(values), -1)
        )

    a, b = first * valid, warped * valid
    products, squares_a, squares_b = by_block(a * b), by_block(a * a), by_block(b * b)
    counted = by_block(valid) >= 4
    error = np.where(counted, squares_a + squares_b - 2 * products, np.inf)
    kept_count = np.ceil(_KEPT * counted.sum(axis=1)).astype(np.int64)
    rank = np.argsort(np.argsort(error, axis=1, kind="stable"), axis=1, kind="stable")
    kept = rank < kept_count[:, None]
    top = (products * kept).sum(axis=1)
    bottom = np.sqrt((squares_a * kept).sum(axis=1) * (squares_b * kept).sum(axis=1))
    likeness: NDArray[np.float64] = np.clip(np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 1e-6), 0, 1)
    return likeness


def _smooth(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    smoothed: NDArray[np.float32] = _SMOOTHING @ pictures @ _SMOOTHING.T
    return smoothed


_NOISE = 3.0  # grey levels: less contrast than this counts as none
_AT = (np.arange(THUMB_SIDE) + 0.5) * 2 / THUMB_SIDE - 1
_distance = np.arange(THUMB_SIDE)[:, None] - np.arange(THUMB_SIDE)
_SMOOTHING = np.exp(-(_distance**2) / (2 * 4.0**2)).astype(np.float32)
_SMOOTHING /= _SMOOTHING.sum(axis=1, keepdims=True)
