"""A DICOM file (VL Endoscopic, still, multi-frame or video) to its frames; of the header, only times are handed on.

Source: DICOM PS3.3, A.32.1 (VL Endoscopic Image), A.32.5 (Video Endoscopic Image) and C.7.6.5 (Cine Module).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gastrovl.core.errors import MissingExtraError, SourceError
from gastrovl.core.images import MAX_PIXELS
from gastrovl.data.frames.frame import Frame
from gastrovl.data.frames.video import stream_frames

# Which free library decodes what pydicom cannot decode alone.
_DECODERS = {"JPEG-LS": "pyjpegls", "JPEG 2000": "pylibjpeg-openjpeg", "High-Throughput": "pylibjpeg-openjpeg"}


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark: "DICM" after a preamble of 128 bytes (PS3.10, 7.1)."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def patient_of(path: Path) -> str:
    """What tells patients apart (patient id, else study); for grouping in memory, never to be written.

    Raises:
        SourceError: The file is broken.
        MissingExtraError: pydicom is not installed.
    """
    header = _read(path, is_header=True)
    for keyword in ("PatientID", "StudyInstanceUID", "SOPInstanceUID"):
        if value := str(header.get(keyword) or "").strip():
            return f"{keyword} {header.get('IssuerOfPatientID') or ''} {value}"
    return str(path)


def dicom_frames(path: Path, is_burned_in_allowed: bool = False) -> Iterator[Frame]:
    """All frames of a DICOM file, as RGB or grey.

    Raises:
        SourceError: It is broken, holds no picture of 8 bits a sample, is compressed in a way that cannot be decoded
            here (the message names the transfer syntax and the package), or says that text is burned into its pixels.
        MissingExtraError: A library is not installed.
    """
    header = _read(path)
    if str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES" and not is_burned_in_allowed:
        raise SourceError(
            f"{path}: its header says that text is burned into the pixels, which may name the patient; look at the "
            "frames and mask the text, then pass --allow-burned-in"
        )
    syntax = getattr(header.file_meta, "TransferSyntaxUID", None)
    if syntax is None or "PixelData" not in header:
        raise SourceError(f"{path}: holds no picture; expected a VL Endoscopic image or video. Choose another file")
    if syntax.name.startswith(("MPEG", "HEVC")):
        from pydicom.encaps import generate_frames

        whole = b"".join(generate_frames(header.PixelData, number_of_frames=1))
        yield from stream_frames(io.BytesIO(whole), f"{path} ({syntax.name})")
        return
    seconds = _clock(header)
    for number, pixels in enumerate(_pixels(path, header, syntax)):
        yield Frame(number, seconds(number), _picture(pixels, header, path))


def _read(path: Path, *, is_header: bool = False) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError(
            f'{path}: reading DICOM needs the library pydicom; install it with `pip install "gastrovl[formats]"`'
        ) from error
    try:
        return pydicom.dcmread(path, stop_before_pixels=is_header)
    except Exception as error:  # pydicom raises whatever its parsers meet in a broken file
        raise SourceError(
            f"{path}: not a whole DICOM file ({type(error).__name__}: {str(error)[:200]}); copy it again"
        ) from error


def _pixels(path: Path, header: Any, syntax: Any) -> Iterator[np.ndarray[Any, Any]]:
    from pydicom.pixels import iter_pixels

    count = _frame_count(header, path)
    if int(header.get("Rows") or 0) * int(header.get("Columns") or 0) > MAX_PIXELS:
        raise SourceError(f"{path}: frames of more than {MAX_PIXELS:,} pixels; refused unread")
    number = 0
    try:
        for pixels in iter_pixels(header):
            yield pixels
            number += 1
    except SourceError:
        raise
    except Exception as error:  # so many decoders, so many errors
        package = next((package for name, package in _DECODERS.items() if name in syntax.name), "python-gdcm")
        remedy = f"install the package {package}" if syntax.is_compressed else "copy the file again"
        raise SourceError(
            f"{path}: cannot be decoded after {number} of {count} frames; its transfer syntax is {syntax.name} "
            f"({syntax}); {remedy} ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if number != count:
        raise SourceError(f"{path}: holds {number} frames, but its header says {count}; copy the file again")


def _frame_count(header: Any, path: Path) -> int:
    try:
        count = int(header.get("NumberOfFrames") or 1)
    except (TypeError, ValueError) as error:
        raise SourceError(f"{path}: its number of frames cannot be read ({error}); export the file again") from error
    return max(count, 1)


def _picture(pixels: np.ndarray[Any, Any], header: Any, path: Path) -> Image.Image:
    kind = str(header.get("PhotometricInterpretation", ""))
    if pixels.dtype != np.uint8 or (pixels.ndim == 2) != kind.startswith("MONOCHROME"):
        raise SourceError(
            f"{path}: pixels are {kind or 'of no stated kind'}, {pixels.dtype}; expected colour or grey of 8 bits a "
            "sample, as VL Endoscopic images have. Convert the file first"
        )
    return Image.fromarray(255 - pixels if kind == "MONOCHROME1" else pixels)


def _clock(header: Any) -> Callable[[int], float | None]:
    """From a frame's number to its seconds since the first (PS3.3 C.7.6.5: frame time or vector in ms, else 1/s).

    No list of all times: a header of a few bytes may claim two thousand million frames.
    """
    try:
        count = max(int(header.get("NumberOfFrames") or 1), 1)
        vector = header.get("FrameTimeVector")
        if vector is not None and len(vector) == count:
            times = np.cumsum([float(step) for step in vector]) / 1000
            return lambda number: float(times[number] - times[0])
        step = float(header.get("FrameTime") or 0) / 1000
        for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
            rate = float(header.get(keyword) or 0)
            step = step or (1 / rate if rate > 0 else 0)
    except (TypeError, ValueError):
        return lambda _number: None
    return lambda number: number * step if step > 0 else None
