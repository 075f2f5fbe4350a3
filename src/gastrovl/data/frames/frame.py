"""One picture of a moving source: the form in which videos and DICOM files hand out their frames."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        number: Its place in the file, from 0.
        seconds: Since the file's first frame, or None when the file does not say.
    """

    number: int
    seconds: float | None
    picture: Image.Image
