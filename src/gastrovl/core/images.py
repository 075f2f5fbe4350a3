"""Image files to decoded images, with every way a file can be broken told apart."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image

from gastrovl.core.errors import ImageError

MAX_PIXELS = 100_000_000  # refused from the header, before decoding: a small file can unfold into gigabytes


def open_image(path: Path) -> Image.Image:
    """Decode an image file to RGB.

    Raises:
        ImageError: The file is missing, empty, no image, truncated, or larger than MAX_PIXELS.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: no such image")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes); copy it again from its source")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path)
        with opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ImageError(
                    f"{path}: {width} x {height} px, more than {MAX_PIXELS:,} pixels; refused unread. "
                    "Scale it down first if it is genuine"
                )
            return opened.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: refused unread: {error}. Scale it down first if it is genuine") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path}: cannot be decoded ({error}); it is truncated or no image. Copy it again") from error
