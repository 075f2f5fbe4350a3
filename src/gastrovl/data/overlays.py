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

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from gastrovl.core.types import Box

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

GRID = 64  # side of the copy on which rectangles are looked for
BLACK = 24  # no channel above: black after JPEG; BLACK also bounds the border
SQUARE_SIDE = 0.12  # smallest width and height of a corner square or map, of the picture's
SQUARE_MOST = 0.5
RIM = 5
EDGE_BRIGHT = 0.6  # of a square's inner edges runs along something that is not black

TEXT_SIDE = 576  # about the longer side of the copy on which text is looked for
STROKE = 3  # pixels from a stroke's middle to the darker ground on either side
STROKE_STEP = 44  # by which it is brighter
STROKE_BRIGHT = 120
STROKE_CHROMA = 36  # most that its channels differ
CELL_HW = (6, 32)  # of the cells in which strokes are counted
CELL_STROKES = 18  # stroke pixels that make a cell textlike


def corner_square(thumbnail: Pixels) -> Box | None:
    """The largest black rectangle in a corner with straight edges towards the picture; `thumbnail` is (64, 64, 3)."""
    black = thumbnail.max(axis=2) < BLACK
    best: tuple[float, Box] | None = None
    for flip_y, flip_x in (
        (True, False),
        (False, False),
        (True, True),
        (False, True),
    ):  # lower left first: most are there
        corner = black[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        found = _square_at_origin(corner)
        if found is None and not (corner[:RIM, : 4 * RIM].all() and corner[: 4 * RIM, :RIM].all()):
            found = _square_at_origin(_without_rim(corner))
        if found and (best is None or found[0] * found[1] > best[0]):
            height, width = found
            y0, y1 = (GRID - height, GRID) if flip_y else (0, height)
            x0, x1 = (GRID - width, GRID) if flip_x else (0, width)
            best = (height * width, Box(x0=x0 / GRID, y0=y0 / GRID, x1=x1 / GRID, y1=y1 / GRID))
    return best[1] if best else None


def _without_rim(black: Mask) -> Mask:
    """The corner without a thin lit rim along the picture's edge, as some recorders leave."""
    trimmed = black.copy()
    trimmed[:RIM] = trimmed[RIM]
    trimmed[:, :RIM] = trimmed[:, RIM : RIM + 1]
    return trimmed


def _square_at_origin(black: Mask) -> tuple[int, int] | None:
    """(height, width) of the rectangle at [0, 0], by summed areas over every candidate at once."""
    least, most = round(SQUARE_SIDE * GRID), round(SQUARE_MOST * GRID)
    if not black[:least, :least].all():
        return None
    area = np.zeros((GRID + 1, GRID + 1), dtype=np.int32)
    area[1:, 1:] = black.cumsum(axis=0, dtype=np.int32).cumsum(axis=1)
    sides = np.arange(least, most + 1)
    inside = area[np.ix_(sides, sides)] / (sides[:, None] * sides[None, :])
    s = least  # length of edge looked at, from the inner corner back
    below = area[sides + 3][:, sides] - area[sides + 1][:, sides]
    below = below - (area[sides + 3][:, sides - s] - area[sides + 1][:, sides - s])
    beside = area[sides][:, sides + 3] - area[sides][:, sides + 1]
    beside = beside - (area[sides - s][:, sides + 3] - area[sides - s][:, sides + 1])
    fits = (inside > 0.98) & (below < 2 * s * (1 - EDGE_BRIGHT)) & (beside < 2 * s * (1 - EDGE_BRIGHT))
    if not fits.any():
        return None
    sizes = np.where(fits, sides[:, None] * sides[None, :], 0)
    row, column = np.unravel_index(int(sizes.argmax()), sizes.shape)
    return int(sides[row]), int(sides[column])


def green_map(thumbnail: Pixels) -> Box | None:
    """The teal rectangle of a position map, with the frame around it; `thumbnail` is (64, 64, 3)."""
    red, green, blue = (thumbnail[..., channel].astype(np.int16) for channel in range(3))
    teal = (green - red > 60) & (green - blue > 15) & (green > 90)
    if teal.sum() < (SQUARE_SIDE * GRID) ** 2 / 2:
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


def text_boxes(picture: Image.Image) -> tuple[Box, ...]:
    """Cells of a frame that look like text, as boxes; `picture` is RGB, best at most 1.5 TEXT_SIDE on its longer side.

    The cells of a row are 6 px high and 32 wide on a copy of about 576 px; every row is tried twice, half a cell apart.
    """
    red, green, blue = picture.split()
    low = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue))
    # `low` is the colourless part of a pixel: red glints on mucosa have little of it
    ground = np.minimum(low, 255 - STROKE_STEP) + np.uint8(STROKE_STEP)
    middle = low[:, STROKE:-STROKE]
    stroke = (middle > ground[:, : -2 * STROKE]) & (middle > ground[:, 2 * STROKE :]) & (middle > STROKE_BRIGHT)
    high = np.maximum(np.asarray(red), np.asarray(blue))[:, STROKE:-STROKE]
    stroke &= high - np.minimum(middle, high) < STROKE_CHROMA
    tall, wide = CELL_HW
    half = tall // 2
    rows, columns = stroke.shape[0] // half, stroke.shape[1] // wide
    if rows < 2 or columns == 0:
        return ()
    cells = np.add.reduceat(stroke[: rows * half].view(np.uint8), np.arange(0, columns * wide, wide), axis=1)
    halves = cells.reshape(rows, half, columns).sum(axis=1)
    textlike = halves[:-1] + halves[1:] >= CELL_STROKES
    width, height = picture.size
    return tuple(
        Box(
            x0=column * wide / width,
            y0=row * half / height,
            x1=min(1.0, ((column + 1) * wide + 2 * STROKE) / width),
            y1=min(1.0, (row * half + tall) / height),
        )
        for row, column in zip(*np.nonzero(textlike), strict=True)
    )
