"""Pixels of a frame to what the processor or a publisher painted on it: black corner squares, green maps, text.

A classifier reads these instead of the mucosa, and text may name a patient. Three detectors, each a few array
operations on a small copy of the frame, tuned on HyperKvasir and EDD2020 (docs/quality.md says how often they err):

- a corner square is a black rectangle that reaches one corner of the picture, or its black border, and ends in straight
  edges towards the mucosa; the octagon of the endoscope's aperture has slanted ones;
- a green position map (Olympus ScopeGUIDE) is an evenly teal rectangle in a corner, a colour that mucosa never has;
- text is rows of thin, bright, colourless strokes, darker on both sides and close together; glints are as bright, but
  lonely, wide, or slanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core.types import Box

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

GRID = 64  # side of the copy on which rectangles are looked for
BLACK = 24  # no channel above: black after JPEG; BLACK also bounds the border
PAINTED = 8  # no channel above: painted, where a lumen beside it is black too
SQUARE_SIDE = 0.12  # smallest width and height of a corner square or map, of the picture's
SQUARE_MOST = 0.5
LEAST, MOST = round(SQUARE_SIDE * GRID), round(SQUARE_MOST * GRID)
REACH = MOST + 3  # cells of a corner that are looked at: the largest square and what lies beyond its edge
RIM = 5
EDGE_BRIGHT = 0.6  # of a square's inner edges runs along something that is not black
TIP = 4  # side of the place at a square's inner corner that must be black: that of a slanted edge's is cut off
CORNERS = ((True, False), (False, False), (True, True), (False, True))  # flipped in y, in x; lower left: most are there
SIZES = np.multiply.outer(np.arange(LEAST, MOST + 1), np.arange(LEAST, MOST + 1)).astype(np.int32)
ENOUGH = np.floor(0.98 * SIZES).astype(np.int16)  # more black cells than these make a square
MOST_BLACK = np.int16(np.ceil(2 * LEAST * (1 - EDGE_BRIGHT)))  # cells along two lines beyond an edge

TEXT_SIDE = 576  # about the longer side of the copy on which text is looked for
STROKE = 3  # pixels from a stroke's middle to the darker ground on either side
STROKE_STEP = 36  # by which it is brighter
STROKE_BRIGHT = 120
CELL_HW = (6, 32)  # of the cells in which strokes are counted
CELL_STROKES = 16  # rows of strokes that begin in a cell and make it textlike: glints fill it, but with few
EIGHT_ONES = np.uint64(0x0101010101010101)


def plane(picture: Image.Image, channel: str) -> Pixels:
    """The channel "R", "G" or "B" of an RGB picture, (height, width), read-only; cheaper than an array of all three."""
    return np.frombuffer(picture.tobytes("raw", channel), np.uint8).reshape(picture.height, picture.width)


def corner_square(high: Pixels) -> Box | None:
    """The largest black rectangle in a corner with straight edges towards the picture.

    Where none is black, one that is painted black is looked for: beside a dark lumen only its deeper black has edges.

    Args:
        high: The brightest channel of the small copy, (64, 64).
    """
    return _largest_square(high < BLACK) or _largest_square(high < PAINTED)


def _largest_square(black: Mask) -> Box | None:
    flips, corners = [], []
    for flip in CORNERS:
        corner = black[:: -1 if flip[0] else 1, :: -1 if flip[1] else 1][:REACH, :REACH]
        if not corner[RIM:LEAST, RIM:LEAST].all():
            continue
        filled = _without_rim(corner)
        for variant in (corner,) if filled is None else (corner, filled):
            flips.append(flip)
            corners.append(variant)
    if not corners:
        return None
    sizes = _squares_at_origin(np.stack(corners)).reshape(len(corners), -1)
    which = int(sizes.max(axis=1).argmax())
    place = int(sizes[which].argmax())
    if not sizes[which, place]:
        return None
    height, width = (LEAST + at for at in divmod(place, MOST + 1 - LEAST))
    flip_y, flip_x = flips[which]
    y0, y1 = (GRID - height, GRID) if flip_y else (0, height)
    x0, x1 = (GRID - width, GRID) if flip_x else (0, width)
    return Box(x0=x0 / GRID, y0=y0 / GRID, x1=x1 / GRID, y1=y1 / GRID)


def _without_rim(black: Mask) -> Mask | None:
    """The corner with a thin lit rim along the picture's edge blackened, as some recorders leave one below a square."""
    beyond_x, beyond_y = black[RIM], black[:, RIM]
    if not ((beyond_x > black[:RIM]).any() or (beyond_y[:, None] > black[:, :RIM]).any()):
        return None
    filled = black.copy()
    filled[:RIM] |= beyond_x
    filled[:, :RIM] |= filled[:, RIM : RIM + 1]
    return filled


def _squares_at_origin(black: Mask) -> NDArray[np.int32]:
    """Area of each rectangle at [0, 0] of each corner, by height and width from LEAST, or 0 where none fits.

    Summed areas judge every candidate at once: `black` is (corners, REACH, REACH).
    """
    s = LEAST  # also the length of edge looked at, from the inner corner back
    area = np.zeros((len(black), REACH + 1, REACH + 1), dtype=np.int16)
    black.cumsum(axis=1, dtype=np.int16).cumsum(axis=2, dtype=np.int16, out=area[:, 1:, 1:])
    side, back, tip, near, far = (slice(s + by, MOST + 1 + by) for by in (0, -s, -TIP, 1, 3))
    inside = area[:, side, side]
    fits = inside > ENOUGH
    fits &= inside - area[:, tip, side] - area[:, side, tip] + area[:, tip, tip] > TIP * TIP - 2
    below, beside = area[:, far] - area[:, near], area[:, :, far] - area[:, :, near]
    fits &= below[:, :, side] - below[:, :, back] < MOST_BLACK
    fits &= beside[:, side] - beside[:, back] < MOST_BLACK
    areas: NDArray[np.int32] = fits * SIZES
    return areas


def green_map(red: Pixels, green: Pixels, blue: Pixels) -> Box | None:
    """The teal rectangle of a position map, with the frame around it.

    Args:
        red, green, blue: Of the small copy, (64, 64) each.
    """
    bright = green.astype(np.int16)
    teal = (bright - red > 60) & (bright - blue > 15) & (green > 90)
    if np.count_nonzero(teal) < (SQUARE_SIDE * GRID) ** 2 / 2:
        return None
    rows, columns = np.flatnonzero(teal.mean(axis=1) > 0.06), np.flatnonzero(teal.mean(axis=0) > 0.06)
    if not len(rows) or not len(columns):
        return None
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    if max(y1 - y0, x1 - x0) > 0.6 * GRID or teal[y0:y1, x0:x1].mean() < 0.7:
        return None
    return Box(
        x0=max(0, x0 - 2) / GRID, y0=max(0, y0 - 2) / GRID, x1=min(GRID, x1 + 2) / GRID, y1=min(GRID, y1 + 2) / GRID
    )


def text_cells(green: Pixels, blue: Pixels) -> tuple[tuple[int, int], ...]:
    """Cells of a frame that look like text, as (row, column).

    The cells of a row are 6 px high and 32 wide on a copy of about 576 px; every row is tried twice, half a cell apart.

    Args:
        green, blue: Of one picture, (height, width) each, best at most 1.5 TEXT_SIDE on the longer side. Red is not
            looked at: on mucosa it is the brightest, so what is bright in the other two is bright in all.
    """
    height, width = green.shape
    tall, wide = CELL_HW
    half = tall // 2
    rows, columns = height // half, -((2 * STROKE - width) // wide)
    if rows < 2 or columns < 1:
        return ()
    cells = np.zeros((rows * half, columns * wide), dtype=np.bool_)
    cells[:, : width - 2 * STROKE] = _strokes(green, blue)[: rows * half, : width - 2 * STROKE]
    halves = _count(cells, rows, columns)
    textlike = halves[:-1] + halves[1:] >= CELL_STROKES
    return tuple(divmod(place, columns) for place in np.flatnonzero(textlike).tolist())


def text_boxes(cells: Sequence[tuple[int, int]], size_wh: tuple[int, int]) -> tuple[Box, ...]:
    """The places of `text_cells` in a picture of this size, one box for cells side by side."""
    width, height = size_wh
    tall, wide = CELL_HW
    runs: list[list[int]] = []  # row, first column, end
    for row, column in cells:
        if runs and runs[-1][0] == row and runs[-1][2] == column:
            runs[-1][2] += 1
        else:
            runs.append([row, column, column + 1])
    return tuple(
        Box(
            x0=start * wide / width,
            y0=row * (tall // 2) / height,
            x1=min(1.0, (end * wide + 2 * STROKE) / width),
            y1=min(1.0, (row * (tall // 2) + tall) / height),
        )
        for row, start, end in runs
    )


def _strokes(green: Pixels, blue: Pixels) -> Mask:
    """Where thin, bright, nearly colourless strokes begin: [y, x] speaks of the pixel (y, x + STROKE).

    Green and blue of a stroke are brighter than STROKE_BRIGHT, and the lower of both, the colourless part of a pixel,
    is brighter by STROKE_STEP than that of the ground on either side. The rows are treated as one long line, which
    keeps every step on whole blocks of bytes; the last 2 * STROKE columns therefore mix two rows and mean nothing.
    """
    low = np.minimum(green, blue).reshape(-1)
    ground = np.maximum(low[: -2 * STROKE], low[2 * STROKE :])
    strokes = low[STROKE:-STROKE] > np.uint8(STROKE_BRIGHT)
    low -= np.uint8(STROKE_STEP)  # wraps round only where STROKE_BRIGHT has said no
    strokes &= low[STROKE:-STROKE] > ground
    begun = np.zeros(green.size, dtype=np.bool_)
    np.greater(strokes[1:], strokes[:-1], out=begun[1 : len(strokes)])
    return begun.reshape(green.shape)


def _count(cells: Mask, rows: int, columns: int) -> NDArray[np.uint64]:
    """Pixels set in each cell of CELL_HW[0] // 2 x CELL_HW[1], (rows, columns), adding eight bytes at a time."""
    words = cells.view(np.uint64).reshape(rows, CELL_HW[0] // 2, -1)
    lines = words[:, 0].copy()
    for line in range(1, words.shape[1]):
        lines += words[:, line]
    per_cell = lines.reshape(rows, columns, -1)
    counts = per_cell[..., 0].copy()
    for word in range(1, per_cell.shape[2]):
        counts += per_cell[..., word]
    return (counts * EIGHT_ONES) >> np.uint64(56)  # the product's highest byte is the sum of the eight, at most 96
