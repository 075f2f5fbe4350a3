"""Bytes of a request to a decoded image: base64 or a data URL, of known formats, of bounded pixels."""

from __future__ import annotations

import base64
import binascii
import io
import re
import threading
import warnings

from PIL import Image

from gastrovl.serving.refusals import RefusedError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)
_LOCK = threading.Lock()  # filters of warnings belong to the process, and images are decoded by several threads
_BLANKS = str.maketrans("", "", " \t\r\n")


def from_data_url(url: str, param: str) -> bytes:
    """The bytes in a data URL.

    Raises:
        RefusedError: It is another kind of URL, which a server of images of patients must not fetch, or broken.
    """
    if not (head := _DATA_URL.match(url)):
        is_data = url[:5].lower() == "data:"
        what = "a data URL that is no base64 image" if is_data else "a URL of another kind"
        code = "invalid_image" if is_data else "image_url_not_allowed"
        raise RefusedError(
            400, code, f"{what}; images come as data:image/png;base64,... only, nothing is fetched", param=param
        )
    return from_base64(url[head.end() :], param)


def from_base64(text: str, param: str) -> bytes:
    """The bytes in base64 text, which may also be a data URL.

    Raises:
        RefusedError: It is neither.
    """
    if ":" in text[:12]:  # of some URL; base64 has no colon
        return from_data_url(text, param)
    try:
        return base64.b64decode(text.translate(_BLANKS), validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError(400, "invalid_image", "the image is not base64", param=param) from None


def decode(content: bytes, param: str, max_pixels: int) -> Image.Image:
    """An RGB image, as `core.images.open_image` would read it from a file.

    Raises:
        RefusedError: It is empty, of no known format, broken, or has too many pixels; the last is read from its header,
            so that a small file cannot unfold into gigabytes.
    """
    if not content:
        raise RefusedError(400, "invalid_image", "the image is empty (0 bytes)", param=param)
    try:
        with _LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large sizes, which are refused below, and of odd metadata
            opened = Image.open(io.BytesIO(content), formats=FORMATS)
        with opened:
            width, height = opened.size
            if width * height <= max_pixels:
                return opened.convert("RGB")
    except Image.DecompressionBombError:
        raise _too_many(max_pixels, param) from None
    except Exception:  # Pillow's readers fail in many ways at broken files; what they say may quote memory
        raise RefusedError(
            400,
            "invalid_image",
            f"the image cannot be decoded; expected a whole {', '.join(FORMATS)} file",
            param=param,
        ) from None
    raise _too_many(max_pixels, param)


def _too_many(max_pixels: int, param: str) -> RefusedError:
    return RefusedError(
        413, "too_many_pixels", f"the image has more than {max_pixels:,} pixels; scale it down first", param=param
    )
