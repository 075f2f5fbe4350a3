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

PLACES = 32  # codes of each width; the last one is of the whole content
CODE_BITS = 48
THUMB_SIDE = 32  # side of the small grey copy, px

SQUARE_SIDE = 64  # side of the square on which places and codes are computed, px
NARROWER = 1.2  # how much narrower the narrow surroundings are
_MARGIN = 16  # reflected around it, so that a surrounding may reach over the edge
_WIDE = (-13, -9, -6, -2, 2, 6, 9, 13)  # samples of a surrounding along one axis, px of the square
_NARROW = (-11, -8, -5, -2, 2, 5, 8, 11)  # 1.2 times narrower
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
    return fingerprint_of_grey(small_grey(picture))


def small_grey(picture: Image.Image) -> Image.Image:
    """The green channel of an RGB picture, its shorter side 128 to 255 px (less if the picture is smaller)."""
    factor = max(1, min(picture.size) // 128)
    if factor >= 4:  # every other row and column will do for means of 2 x 2 and more
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.NEAREST)
        factor //= 2
    green = picture.getchannel("G")
    return green.reduce(factor) if factor > 1 else green


def small_grey_of(green: NDArray[np.uint8]) -> Image.Image:
    """`small_grey` of a green channel, (height, width), that is at hand already."""
    factor = max(1, min(green.shape) // 128)
    if factor >= 4:
        green, factor = green[1::2, 1::2], factor // 2
    small = Image.fromarray(np.ascontiguousarray(green))
    return small.reduce(factor) if factor > 1 else small


def fingerprint_of_grey(small: Image.Image) -> NDArray[np.uint8]:
    """The fingerprint of a small one-channel picture."""
    grey = np.asarray(small)
    low, high = int(grey.min()), float(grey.mean())
    threshold = low + max(12.0, 0.2 * (high - low))
    box = _content(grey > threshold)
    square = np.asarray(small.resize((SQUARE_SIDE, SQUARE_SIDE), Image.Resampling.BILINEAR, box=box)).astype(np.float32)
    border = _border(square <= threshold)
    bright = int(np.count_nonzero(~border))
    if 0 < bright < border.size:  # dark corners get the mean, so that their edge is no feature
        np.copyto(square, np.where(border, np.float32(0), square).sum() / np.float32(bright), where=border)
    blurred = _BLUR @ square @ _BLUR_ACROSS  # (SQUARE_SIDE + 2 margins) squared
    blobs = np.abs(blurred[_INNER, _INNER] - _WIDE_BLUR @ square @ _WIDE_BLUR_ACROSS)
    places = _strongest(blobs, border)
    flat = blurred.ravel()
    start = (places[:, 1] + _MARGIN) * blurred.shape[1] + places[:, 0] + _MARGIN
    samples = flat[np.concatenate((start[:, None] + _WIDE_AT, start[:, None] + _NARROW_AT, _WHOLE_AT))]
    codes = np.packbits(samples @ _DCT > 0, axis=1)
    count = PLACES - 1
    thumb = _HALVE @ square @ _HALVE_ACROSS + np.float32(0.5)
    dark = border[:, ::2] | border[:, 1::2]
    parts = (
        codes[:count],
        codes[2 * count : 2 * count + 1],
        codes[count : 2 * count],
        codes[2 * count + 1 :],
        places.astype(np.uint8),
        _CENTRE,
        thumb.astype(np.uint8),
        np.packbits(dark[::2] | dark[1::2]),
    )
    return np.frombuffer(b"".join([part.tobytes() for part in parts]), dtype=np.uint8)


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
    blobs[border] = 0
    tallest = np.zeros((SQUARE_SIDE + 4, SQUARE_SIDE + 4), dtype=np.float32)
    tallest[2:-2, 2:-2] = blobs
    for steps in (1, 1, 2):  # maxima of 2, 3 and 5 in a column, then in a row
        tallest = np.maximum(tallest[steps:], tallest[:-steps])
    for steps in (1, 1, 2):
        tallest = np.maximum(tallest[:, steps:], tallest[:, :-steps])
    flat = blobs.ravel()
    best = np.flatnonzero((flat == tallest.ravel()) & (flat > 0))
    best = best[np.argsort(-flat[best], kind="stable")[: PLACES - 1]]
    if len(best) < PLACES - 1:  # a flat picture: fill with its middle
        best = np.append(best, np.full(PLACES - 1 - len(best), (SQUARE_SIDE // 2) * (SQUARE_SIDE + 1)))
    return np.stack((best % SQUARE_SIDE, best // SQUARE_SIDE), axis=1)


def _blur_matrix(sigma: float, margin: int) -> NDArray[np.float32]:
    """Gaussian blur along one axis, edges reflected, (side + 2 margins, side): `margin` more rows at either end."""
    rows = np.arange(-margin, SQUARE_SIDE + margin)[:, None]
    reach = np.arange(-3 * SQUARE_SIDE, 3 * SQUARE_SIDE)
    weights = np.exp(-((rows - reach) ** 2) / (2 * sigma**2))
    period = np.mod(reach, 2 * SQUARE_SIDE)
    source = np.where(period < SQUARE_SIDE, period, 2 * SQUARE_SIDE - 1 - period)
    matrix = np.zeros((len(rows), SQUARE_SIDE))
    for column in range(SQUARE_SIDE):
        matrix[:, column] = weights[:, source == column].sum(axis=1)
    matrix[matrix < 1e-6 * matrix.max()] = 0  # denormal numbers would make the products ten times slower
    weights_of_rows: NDArray[np.float32] = (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights_of_rows


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
    flat: NDArray[np.int64] = (along[:, None] * (SQUARE_SIDE + 2 * _MARGIN) + along).ravel()
    return flat


def _mirrors() -> tuple[int, int, int, int]:
    """What to XOR a code with for the picture as it is, mirrored left-right, up-down, and both."""
    left_right = np.array([u % 2 for _, u in _frequencies()], dtype=np.bool_)
    up_down = np.array([v % 2 for v, _ in _frequencies()], dtype=np.bool_)
    masks = (left_right & False, left_right, up_down, left_right ^ up_down)
    return tuple(int.from_bytes(np.packbits(mask).tobytes(), "big") for mask in masks)  # type: ignore[return-value]


MIRRORS = _mirrors()
_BLUR = _blur_matrix(1.7, _MARGIN)
_WIDE_BLUR = _blur_matrix(4.0, 0)
_INNER = slice(_MARGIN, _MARGIN + SQUARE_SIDE)
_DCT = _dct_matrix()
_HALVE = np.kron(np.eye(THUMB_SIDE), np.full((1, 2), 0.5)).astype(np.float32)
# Laid out anew, not as views: on these, OpenBLAS wakes threads that keep another worker's core busy for nothing.
_BLUR_ACROSS, _WIDE_BLUR_ACROSS, _HALVE_ACROSS = (np.ascontiguousarray(one.T) for one in (_BLUR, _WIDE_BLUR, _HALVE))
_WIDE_AT, _NARROW_AT = _offsets(_WIDE), _offsets(_NARROW)
_CENTRE = np.full(2, SQUARE_SIDE // 2, dtype=np.uint8)
_CORNER = _MARGIN * (SQUARE_SIDE + 2 * _MARGIN) + _MARGIN
_WHOLE_AT = _CORNER + np.stack((_offsets(_WHOLE), _offsets(_WHOLE_NARROW)))
