"""Which images are good enough for a dataset, and what happens with those that are not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.errors import ImageError
from gastrovl.data.copies import CopyOptions
from gastrovl.data.embeddings import EmbeddingFile
from gastrovl.data.images import PILLOW_LIMIT_PX, BrokenImage
from gastrovl.data.measures import FaultOptions


class QualityOptions(Config):
    """Which images are good enough, and which count as copies of each other.

    Attributes:
        on_broken_image: "stop" ends the build with the list of all of them; "skip" leaves them out and records them.
        max_px: Largest width x height that is decoded at all.
        min_side_px: Smallest width or height.
        copies: How copies of an image are found, which are one group then; null finds byte-equal files only.
        embeddings: Near-duplicates by embeddings of the images count as copies too.
        faults: What is done about dark, blurred, overexposed, letterboxed and painted-on frames; null measures none.
    """

    on_broken_image: Literal["stop", "skip"] = "stop"
    max_px: int = Field(default=50_000_000, gt=0, le=PILLOW_LIMIT_PX)
    min_side_px: int = Field(default=32, ge=1)
    copies: CopyOptions | None = CopyOptions()
    embeddings: EmbeddingFile | None = None
    faults: FaultOptions | None = FaultOptions()


def stop_at_broken(broken: list[BrokenImage]) -> None:
    """Refuse broken images.

    Raises:
        ImageError: With all of them, if there are any.
    """
    if broken:
        raise ImageError(
            f"{len(broken)} images cannot be used:\n"
            + "\n".join(f"  {row}" for row in broken)
            + "\nExpected whole images; repair them, or leave them out by `quality.on_broken_image: skip` in the config"
        )
