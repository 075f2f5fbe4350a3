"""A small copy of a frame to its colour histogram, and two histograms to how much they overlap.

Frames of one recording under one light have nearly the same histogram; another recording, even of the same patient, has
not. Numbered series are cut by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BINS = 32  # of each of hue, saturation and brightness
MOST = 255  # stored share of the fullest possible bin
_OFFSETS = np.arange(3, dtype=np.uint8) * np.uint8(BINS)

Histogram = NDArray[np.uint8]


def colour_histogram(small: Image.Image) -> Histogram:
    """Share of pixels in each hue, saturation and brightness bin of the central three quarters of the width and height.

    Args:
        small: RGB, e.g. the 64 x 64 thumbnail of `small_copies`; any shape that is the whole frame, scaled.

    Returns:
        (96,), uint8: 32 bins each of hue, saturation and brightness; each 32 are shares in 1/255 that sum to 255.
    """
    width, height = small.size
    centre = small.crop((width // 8, height // 8, width - width // 8, height - height // 8))
    bins = (np.frombuffer(centre.convert("HSV").tobytes(), np.uint8) >> 3).reshape(-1, 3) + _OFFSETS
    counts = np.bincount(bins.reshape(-1), minlength=3 * BINS).reshape(3, BINS)
    # rounding the running sum, not the shares, keeps the sum exact
    running = (counts.cumsum(axis=1) * (2 * MOST) + len(bins)) // (2 * len(bins))
    return np.diff(running, axis=1, prepend=0).astype(np.uint8).reshape(-1)


def overlap(a: Histogram, b: Histogram) -> float:
    """What two histograms share, in [0, 1]: 1 for equal ones, 0 where no bin is filled in both."""
    return int(np.minimum(a, b).sum(dtype=np.int32)) / (3 * MOST)
