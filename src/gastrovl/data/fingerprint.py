"""A picture to its fingerprint: local hashes that survive a crop or a mirror, and a small grey copy to check a match.

All is computed on one small square copy of the green channel (the channel with the best contrast of mucosa), cut to
the picture's content, so black bars, resizing and stretching change little:

1. Places: the strongest bright or dark blobs (local extrema of a difference of Gaussians; Lowe, IJCV 2004, at one
   scale), and the centre of the whole content.
2. Codes: the surroundings of each place, 8 x 8 samples, to the signs of their lowest DCT coefficients (the idea of a
   perceptual hash, applied to a part). Mirroring a picture flips the signs of the odd coefficients and nothing else,
   so a code of the mirrored picture is the code XOR a constant (`MIRRORS`). Each place has two codes, of a wide and of
   a narrow surrounding, since a crop magnifies what is left: the wide one of the crop fits the narrow one of the whole.
3. The small grey copy, with black borders marked, on which two pictures are laid over each other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PLACES = 24  # codes of each width; the last one is of the whole content
CODE_BITS = 48
THUMB_SIDE = 32  # side of the small grey copy, px

_SIDE = 64  # side of the square on which places and codes are computed
_MARGIN = 16  # reflected around it, so that a surrounding may reach over the edge
_WIDE = (-14, -10, -6, -2, 2, 6, 10, 14)  # samples of a surrounding along one axis, px of the square
_NARROW = (-12, -8, -5, -2, 2, 5, 8, 12)  # 1.2 times narrower
_WHOLE = (4, 12, 20, 28, 35, 43, 51, 59)  # places, not steps: the middle of an even side lies between two pixels
_WHOLE_NARROW = (8, 15, 21, 28, 35, 42, 48, 55)
_LEAST_SHARE = 0.4  # a row or column belongs to the content if it has this share of the longest one's bright pixels


class _Layout(NamedTuple):
    wide: slice
    narrow: slice
    places: slice
    thumb: slice
    dark: slice


def _layout() -> _Layout:
    sizes = (
        PLACES * CODE_BITS // 8,
        PLACES * CODE_BITS // 8,
        PLACES * 2,
        THUMB_SIDE**2,
        THUMB_SIDE**2 // 8,
    )
    ends = np.cumsum(sizes).tolist()
    return _Layout(*(slice(end - size, end) for size, end in zip(sizes, ends, strict=True)))


LAYOUT = _layout()
FINGERPRINT_BYTES: int = LAYOUT.dark.stop


def fingerprint(picture: Image.Image) -> NDArray[np.uint8]:
    """The fingerprint of a decoded RGB picture of any size, (FINGERPRINT_BYTES,); the same for the same pixels."""
    factor = max(1, min(picture.size) // 128)
    green = picture.getchannel("G")
    return fingerprint_of_grey(green.reduce(factor) if factor > 1 else green)


def fingerprint_of_grey(small: Image.Image) -> NDArray[np.uint8]:
    """The fingerprint of a small one-channel picture."""
    grey = np.asarray(small)
    low, high = int(grey.min()), float(grey.mean())
    threshold = low + max(12.0, 0.2 * (high - low))
    box = _content(grey > threshold)
    square = np.asarray(small.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box=box)).astype(np.float32)
    border = _border(square <= threshold)
    bright = ~border
    if border.any():
        square[border] = square[bright].mean() if bright.any() else 0.0
    blurred = _BLUR @ square @ _BLUR.T  # (_SIDE + 2 margins) squared
    blobs = np.abs(blurred[_INNER, _INNER] - _WIDE_BLUR @ square @ _WIDE_BLUR.T)
    places = _strongest(blobs, border)
    flat = blurred.ravel()
    start = (places[:, 1] + _MARGIN) * blurred.shape[1] + places[:, 0] + _MARGIN
    samples = flat[np.concatenate((start[:, None] + _WIDE_AT, start[:, None] + _NARROW_AT, _WHOLE_AT))]
    codes = np.packbits(samples @ _DCT > 0, axis=1)
    print_ = np.empty(FINGERPRINT_BYTES, dtype=np.uint8)
    count = PLACES - 1
    print_[LAYOUT.wide] = np.concatenate((codes[:count], codes[2 * count : 2 * count + 1])).ravel()
    print_[LAYOUT.narrow] = np.concatenate((codes[count : 2 * count], codes[2 * count + 1 :])).ravel()
    print_[LAYOUT.places] = np.concatenate((places.ravel(), _CENTRE))
    half = square.reshape(THUMB_SIDE, 2, THUMB_SIDE, 2)
    print_[LAYOUT.thumb] = (half.mean(axis=(1, 3)) + 0.5).astype(np.uint8).ravel()
    dark = border[::2, ::2] | border[1::2, ::2] | border[::2, 1::2] | border[1::2, 1::2]
    print_[LAYOUT.dark] = np.packbits(dark)
    return print_


def _content(bright: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) without black bars, and without panels that are mostly black."""
    columns, rows = np.count_nonzero(bright, axis=0), np.count_nonzero(bright, axis=1)
    across = np.flatnonzero(columns >= _LEAST_SHARE * columns.max())
    down = np.flatnonzero(rows >= _LEAST_SHARE * rows.max())
    left, right, top, bottom = int(across[0]), int(across[-1]) + 1, int(down[0]), int(down[-1]) + 1
    if right - left < 8 or bottom - top < 8:  # nearly nothing is bright: take it all
        return 0, 0, bright.shape[1], bright.shape[0]
    return left, top, right, bottom


def _border(dark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dark pixels that are joined to the edge of the square in a straight line: corners, squares in corners."""
    if not dark.any():
        return dark
    run = np.logical_and.accumulate
    return run(dark, axis=0) | run(dark[::-1], axis=0)[::-1] | run(dark, axis=1) | run(dark[:, ::-1], axis=1)[:, ::-1]


def _strongest(blobs: NDArray[np.float32], border: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The PLACES - 1 strongest local maxima of a 5 x 5 neighbourhood, strongest first, (places, 2) as (x, y)."""
    padded = np.zeros((_SIDE + 4, _SIDE + 4), dtype=np.float32)
    padded[2:-2, 2:-2] = blobs
    tallest = padded[:-4]
    for shift in range(1, 5):
        tallest = np.maximum(tallest, padded[shift : _SIDE + shift])
    widest = tallest[:, :-4]
    for shift in range(1, 5):
        widest = np.maximum(widest, tallest[:, shift : _SIDE + shift])
    strength = np.where((blobs == widest) & ~border, blobs, 0).ravel()
    best = np.argpartition(strength, -(PLACES - 1))[-(PLACES - 1) :]
    best = best[np.lexsort((best, -strength[best]))]
    return np.stack((best % _SIDE, best // _SIDE), axis=1)


def _blur_matrix(sigma: float, margin: int) -> NDArray[np.float32]:
    """Gaussian blur along one axis, edges reflected, `margin` more rows on either side, (_SIDE + 2 margins, _SIDE)."""
    rows = np.arange(-margin, _SIDE + margin)[:, None]
    reach = np.arange(-3 * _SIDE, 3 * _SIDE)
    weights = np.exp(-((rows - reach) ** 2) / (2 * sigma**2))
    period = np.mod(reach, 2 * _SIDE)
    source = np.where(period < _SIDE, period, 2 * _SIDE - 1 - period)
    matrix = np.zeros((len(rows), _SIDE))
    for column in range(_SIDE):
        matrix[:, column] = weights[:, source == column].sum(axis=1)
    matrix[matrix < 1e-6 * matrix.max()] = 0  # denormal numbers would make the products ten times slower
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


def _frequencies() -> list[tuple[int, int]]:
    """(vertical, horizontal) frequencies of the CODE_BITS lowest DCT coefficients without the mean, lowest first."""
    both = [(v, u) for v in range(8) for u in range(8) if v + u > 0]
    return sorted(both, key=lambda pair: (pair[0] ** 2 + pair[1] ** 2, pair))[:CODE_BITS]


def _dct_matrix() -> NDArray[np.float32]:
    """(64 samples, CODE_BITS): DCT-II of an 8 x 8 patch."""
    waves = np.cos(np.pi * (np.arange(8)[:, None] + 0.5) * np.arange(8) / 8)  # (sample, frequency)
    return np.stack([np.outer(waves[:, v], waves[:, u]).ravel() for v, u in _frequencies()], axis=1).astype(np.float32)


def _offsets(steps: tuple[int, ...]) -> NDArray[np.int64]:
    """Steps along both axes to offsets into the flat blurred square, (64,)."""
    along = np.array(steps)
    return (along[:, None] * (_SIDE + 2 * _MARGIN) + along).ravel()


def _mirrors() -> tuple[int, int, int, int]:
    """What to XOR a code with for the picture as it is, mirrored left-right, up-down, and both."""
    left_right = np.array([u % 2 for _, u in _frequencies()], dtype=np.bool_)
    up_down = np.array([v % 2 for v, _ in _frequencies()], dtype=np.bool_)
    masks = (left_right & False, left_right, up_down, left_right ^ up_down)
    return tuple(int.from_bytes(np.packbits(mask).tobytes(), "big") for mask in masks)  # type: ignore[return-value]


MIRRORS = _mirrors()
_BLUR = _blur_matrix(1.5, _MARGIN)
_WIDE_BLUR = _blur_matrix(3.0, 0)
_INNER = slice(_MARGIN, _MARGIN + _SIDE)
_DCT = _dct_matrix()
_WIDE_AT, _NARROW_AT = _offsets(_WIDE), _offsets(_NARROW)
_CENTRE = np.array([_SIDE // 2, _SIDE // 2])
_CORNER = _MARGIN * (_SIDE + 2 * _MARGIN) + _MARGIN
_WHOLE_AT = _CORNER + np.stack((_offsets(_WHOLE), _offsets(_WHOLE_NARROW)))
