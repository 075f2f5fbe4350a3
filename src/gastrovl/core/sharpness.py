"""The green channel of a frame to how sharp it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def sharpness(whole: NDArray[np.uint8]) -> float:
    """Standard deviation of the Laplacian of every other row of the central half (Pech-Pacheco et al., ICPR 2000).

    It depends on the size: compare frames of about 576 px on their longer side.

    Args:
        whole: The green channel, (height, width).
    """
    height, width = whole.shape
    green = whole[height // 4 : height - height // 4, width // 4 : width - width // 4].astype(np.int16)
    if min(green.shape) < 3:
        return 0.0
    middle = green[1:-1:2]
    laplacian = 4 * middle[:, 1:-1]
    for around in (green[:-2:2, 1:-1], green[2::2, 1:-1], middle[:, :-2], middle[:, 2:]):
        laplacian -= around
    values = laplacian.astype(np.float32)
    # by rows and not by np.dot, which for so many numbers wakes threads that then keep another worker's core busy
    squares = float(np.einsum("ij,ij->i", values, values).sum(dtype=np.float64)) / values.size
    spread: float = max(0.0, squares - float(values.mean()) ** 2) ** 0.5
    return spread
