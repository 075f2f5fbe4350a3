"""Images to 4x4 RGB thumbnails, the little that the nearest-neighbour baseline is allowed to see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gastrovl.core.errors import ImageError
from gastrovl.core.images import open_image
from gastrovl.evaluation.questions import Question

SIDE = 4
Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
Thumbnails = dict[str, NDArray[np.float32]]  # sha256 of the original image -> (SIDE * SIDE * 3,) in [0, 1]
_PAIRS_AT_ONCE = 4_000_000  # distances held in memory


def thumbnail(image: Image.Image) -> NDArray[np.float32]:
    """Mean colour of each cell of a 4x4 grid, (48,), in [0, 1]; the image is squeezed to a square."""
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1) / np.float32(255)


def read_thumbnails(parts: Sequence[tuple[Sequence[Question], Path]], progress: Progress | None = None) -> Thumbnails:
    """Thumbnails of all images of several conversation lists, each with the folder its paths are relative to.

    Raises:
        ImageError: An image is missing or broken.
    """
    path_of = {one.image.sha256: folder / one.image.path for conversations, folder in parts for one in conversations}
    found: Thumbnails = {}
    for done, (key, path) in enumerate(path_of.items(), start=1):
        try:
            found[key] = thumbnail(open_image(path))
        except ImageError as error:
            raise ImageError(
                f"{error}. The nearest-neighbour baseline reads every image; restore the dataset folder, "
                "or pass --no-images to leave this baseline out"
            ) from error
        if progress:
            progress("thumbnails for the nearest-neighbour baseline", done, len(path_of))
    return found


def nearest(asked: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each row of `asked`, (a, d), the row of `known`, (b, d), at the least Euclidean distance; ties: the first."""
    found = np.empty(len(asked), dtype=np.int64)
    squares = (known.astype(np.float64) ** 2).sum(axis=1)
    chunk = max(1, _PAIRS_AT_ONCE // max(1, len(known)))
    for start in range(0, len(asked), chunk):
        rows = asked[start : start + chunk].astype(np.float64)
        found[start : start + chunk] = np.argmin(squares - 2.0 * (rows @ known.T.astype(np.float64)), axis=1)
    return found
