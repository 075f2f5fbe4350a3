"""A picture to whether the model can say anything about it: readable, like what it learnt from, and of the right place.

Three questions, the cheapest first. Is it dark, blown out, blurred or empty (pixels)? Is it like no frame of the
training data (the distance of Mahalanobis in the checkpoint's own tower features, as Lee et al., NeurIPS 2018, for one
class and with a shrunk covariance)? Is it more like the examples of what the model is not for, such as colon, than like
the frames it is for (Fisher's linear discriminant)? The last one exists only where such examples were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from gastrovl.core.config import Config
from gastrovl.core.errors import CheckpointError, ModelInputError
from gastrovl.core.files import atomic_path
from gastrovl.core.sharpness import sharpness
from gastrovl.inference.conformal import hierarchical_quantile
from gastrovl.inference.verdicts import ScopeAnswer
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration
from gastrovl.model.processor import GastroVLProcessor

FILE = "scope.safetensors"
SHRINKAGE = 0.1  # of correlations towards none
DARK, BLOWN_OUT, BLURRED = 0.12, 0.2, 2.0  # as builds of datasets report them (`data.measures.FaultOptions`)
_SIDE_PX = 576  # at which sharpness is measured
_THUMBNAIL = 64
_BLACK, _WHITE = 24, 250  # of 255
_LIT = 0.02  # share of pixels that are not black, below which nothing is to be seen
LEAST_FRAMES = 8

Floats = NDArray[np.float32]


class ScopeLimits(Config):
    """Where the borders lie, and what they were found on; the directions stand in scope.safetensors.

    Attributes:
        level: Share of in-scope frames, of a new group, that should pass each border.
        distance: The greatest Mahalanobis distance that counts as like the training data.
        discriminant: The greatest value that counts as inside; None without examples of what is outside.
        train_frames, outside_frames, border_frames, border_groups: What directions and borders were found on.
        is_assured: Whether the groups were enough for `level`; if not, the borders are the greatest values seen.
    """

    level: float = Field(gt=0, lt=1)
    distance: float
    discriminant: float | None = None
    train_frames: int
    outside_frames: int = 0
    border_frames: int
    border_groups: int
    is_assured: bool


@dataclass(frozen=True)
class Scope:
    """The fitted directions with their borders.

    Attributes:
        mean, scale: Of each feature of the training frames, (features,).
        whitener: Turns standardised features into ones whose squared length is the squared distance,
            (features, features).
        direction: Of the discriminant in standardised features, (features,), or None.
    """

    limits: ScopeLimits
    mean: Floats
    scale: Floats
    whitener: Floats
    direction: Floats | None = None

    def distances(self, features: Floats) -> Floats:
        """How far frames lie from the training data, (frames,)."""
        found: Floats = np.linalg.norm(self._standard(features) @ self.whitener, axis=1)
        return found

    def discriminants(self, features: Floats) -> Floats | None:
        """How much frames are like what is outside, (frames,); None without examples."""
        return None if self.direction is None else self._standard(features) @ self.direction

    def judge(self, image: Image.Image, features: Floats) -> ScopeAnswer:
        """What is said of one picture, given its `tower_summary`, (features,)."""
        fault = unreadable(image)
        if fault is not None:
            return ScopeAnswer("unreadable", fault)
        strange = float(self.distances(features[None])[0]) / self.limits.distance
        values, border = self.discriminants(features[None]), self.limits.discriminant
        outside = None if values is None or border is None else float(values[0]) - border
        if strange > 1:
            return ScopeAnswer("unlike", "unlike any frame that the model learnt from", strange, outside)
        if outside is not None and outside > 0:
            return ScopeAnswer("outside", "more like pictures that the model is not for", strange, outside)
        return ScopeAnswer("in_scope", "", strange, outside)

    def _standard(self, features: Floats) -> Floats:
        return (features - self.mean) / self.scale


def unreadable(image: Image.Image) -> str | None:
    """Why nothing can be seen in an RGB picture: empty, dark, blown out or blurred; None if it is readable."""
    factor = max(1, round(max(image.size) / _SIDE_PX))
    copy = image.reduce(factor) if factor > 1 else image
    small = np.asarray(copy.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX))
    is_lit = small.max(axis=2) >= _BLACK
    if is_lit.mean() < _LIT:
        return "empty: nearly all of it is black"
    if small[is_lit].mean() / 255 < DARK:
        return "dark"
    if (small.min(axis=2) >= _WHITE).mean() >= BLOWN_OUT:
        return "overexposed"
    return "blurred" if sharpness(np.asarray(copy.getchannel("G"))) < BLURRED else None


@torch.inference_mode()
def tower_summary(
    model: GastroVLForConditionalGeneration, processor: GastroVLProcessor, images: Sequence[Image.Image]
) -> Floats:
    """Mean and spread over the cells of the tower's features, (images, 2 * tower width).

    Raises:
        ModelInputError: The model is one of Hugging Face's, whose tower is its own affair.
    """
    if not isinstance(model, GastroVLForConditionalGeneration):
        raise ModelInputError("this model has no vision tower of ours, so that its scope cannot be fitted")
    squares = np.stack([processor.square(image) for image in images])
    return summary_of(model.model.tower_features(processor.pixels(squares).to(model.device, model.dtype)))


def summary_of(features: torch.Tensor) -> Floats:
    """Mean and spread over the cells of what a tower said, (images, cells, width) to (images, 2 * width)."""
    wide = features.float()
    found: Floats = torch.cat([wide.mean(dim=1), wide.std(dim=1)], dim=1).cpu().numpy()
    return found


def fit_scope(
    train: Floats, border: Floats, border_groups: Sequence[str], outside: Floats | None = None, level: float = 0.9
) -> Scope:
    """Directions from training frames, borders from validation frames that had no say in them.

    Args:
        train: `tower_summary` of training frames that the model is for, (frames, features).
        border: The same of validation frames, (frames, features).
        outside: The same of examples of what it is not for.
        level: Share of in-scope frames of a new group that should pass each border.

    Raises:
        ModelInputError: There are too few frames.
    """
    if len(train) < LEAST_FRAMES or not len(border):
        raise ModelInputError(
            f"{len(train)} training frames and {len(border)} validation frames; expected at least {LEAST_FRAMES} and 1"
        )
    seen = train if outside is None else np.concatenate([train, outside])
    mean, scale = seen.mean(axis=0), seen.std(axis=0) + 1e-6
    whitener = _whitener([(seen - mean) / scale])
    direction = None
    if outside is not None and len(outside):
        own, other = (train - mean) / scale, (outside - mean) / scale
        pooled = _whitener([own, other])
        apart = other.mean(axis=0) - own.mean(axis=0)
        direction = (pooled @ (pooled.T @ apart)).astype(np.float32)
    unlimited = Scope(_no_limits(level), mean, scale, whitener, direction)
    distance, is_enough = _border(unlimited.distances(border), border_groups, level)
    values = unlimited.discriminants(border)
    limits = ScopeLimits(
        level=level,
        distance=distance,
        discriminant=None if values is None else _border(values, border_groups, level)[0],
        train_frames=len(train),
        outside_frames=0 if outside is None else len(outside),
        border_frames=len(border),
        border_groups=len(set(border_groups)),
        is_assured=is_enough,
    )
    return Scope(limits, mean, scale, whitener, direction)


def save_scope(folder: Path, scope: Scope) -> None:
    """Write the directions to scope.safetensors of a checkpoint folder; the limits go where the caller keeps them."""
    tensors = {"mean": scope.mean, "scale": scope.scale, "whitener": scope.whitener}
    if scope.direction is not None:
        tensors["direction"] = scope.direction
    with atomic_path(Path(folder) / FILE) as temporary:
        save_file({name: np.ascontiguousarray(one, dtype=np.float32) for name, one in tensors.items()}, temporary)


def load_scope(folder: Path, limits: ScopeLimits) -> Scope:
    """Read the directions back.

    Raises:
        CheckpointError: The file is missing or broken.
    """
    path = Path(folder) / FILE
    try:
        tensors = load_file(path)
        return Scope(limits, tensors["mean"], tensors["scale"], tensors["whitener"], tensors.get("direction"))
    except (OSError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); run `gastrovl calibrate` again") from error


def _whitener(parts: Sequence[Floats]) -> Floats:
    """The inverse square root of the shrunk pooled covariance of standardised features, (features, features)."""
    covariance = np.mean([np.cov(part, rowvar=False) for part in parts], axis=0)
    level = float(np.trace(covariance)) / len(covariance)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(shrunk)
    found: Floats = (vectors / np.sqrt(np.maximum(values, 1e-12))).astype(np.float32)
    return found


def _border(values: Floats, groups: Sequence[str], level: float) -> tuple[float, bool]:
    cut = hierarchical_quantile(values.tolist(), groups, level)
    return (cut, True) if np.isfinite(cut) else (float(values.max()), False)


def _no_limits(level: float) -> ScopeLimits:
    return ScopeLimits(level=level, distance=1.0, train_frames=0, border_frames=0, border_groups=0, is_assured=False)
