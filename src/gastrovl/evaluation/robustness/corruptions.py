"""The name of a corruption, a level from 1 to 5 and an image to the corrupted image, the same for ever.

The randomness comes from the image, the corruption and a seed, not from the level: a stroke keeps its direction and
foam its bubbles as they grow, so that what changes along a curve is the level alone. No pixel moves by design, so boxes
stay true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Box
from gastrovl.evaluation.robustness import objects, optics

LEVELS = (1, 2, 3, 4, 5)
Corrupt = Callable[[Image.Image, int, np.random.Generator], Image.Image]
INSTRUMENT = "instrument"
CORRUPTIONS: dict[str, Corrupt] = {
    "motion_blur": optics.motion_blur,
    "defocus": optics.defocus,
    "glare": objects.glare,
    "bubbles": objects.bubbles,
    "under_exposure": optics.under_exposure,
    "over_exposure": optics.over_exposure,
    "colour_cast": optics.colour_cast,
    "jpeg": optics.jpeg,
    "text_overlay": objects.text_overlay,
    "vignette": optics.vignette,
    INSTRUMENT: objects.instrument,
    "noise": optics.noise,
}


def corrupt(
    image: Image.Image, name: str, level: int, *, key: str, seed: int = 0, boxes: Sequence[Box] = ()
) -> Image.Image:
    """An RGB image of the same size as `image`, corrupted.

    Args:
        key: What makes the image itself, e.g. the SHA-256 of its file.
        boxes: What the image's questions are about; an instrument hides at most a quarter of each.

    Raises:
        ConfigError: There is no such corruption or level.
    """
    check_names([name])
    check_levels([level])
    generator = generator_of(key, name, seed)
    if name == INSTRUMENT:
        return objects.instrument(image, level, generator, boxes)
    return CORRUPTIONS[name](image, level, generator)


def generator_of(key: str, purpose: str, seed: int) -> np.random.Generator:
    """Randomness that depends on these three only."""
    digest = hashlib.sha256(f"{seed}\n{purpose}\n{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def check_names(names: Sequence[str]) -> None:
    """Raises:
    ConfigError: One is no corruption.
    """
    for name in names:
        if name not in CORRUPTIONS:
            raise ConfigError(f"corruption {name!r} does not exist; expected some of {', '.join(CORRUPTIONS)}")


def check_levels(levels: Sequence[int]) -> None:
    """Raises:
    ConfigError: One is no level.
    """
    for level in levels:
        if level not in LEVELS:
            raise ConfigError(f"level {level} does not exist; expected some of 1 (slight) to 5 (hardly usable)")
