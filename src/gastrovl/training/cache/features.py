"""What a frozen tower says of images that a stage shows: computed once, kept on disk, read from there in every row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple
from typing import Any

import numpy as np
import PIL
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from gastrovl.core.parallel import in_order
from gastrovl.core.types import ImageRef
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.training.cache.store import FeatureCache, FeatureSpace
from gastrovl.training.config import TOWERS, StageConfig
from gastrovl.training.rows.augment import View
from gastrovl.training.rows.dataset import RowDataset
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.stages import part_of

Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]
Sight = tuple[ImageRef, View]
BATCH = 16  # images at once; the last batch is filled up, so that an entry does not depend on how many are missing
_FORMAT = 1


class TowerFeatures:
    """The kept features of the images of one store; may be sent to other processes."""

    def __init__(self, space: FeatureSpace, images: ImageStore, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.space, self.images, self.shape, self.dtype = space, images, shape, dtype
        self.damaged_before = 0  # entries that were found damaged, and made anew, before the rows were read

    def key(self, image: ImageRef, view: View) -> bytes:
        """Changes with everything that decides the pixels: original, stored file, size it is cut from, view."""
        said = [image.sha256, self.images.digest(image.path), self.images.side, *view.window.xyxy]
        said += [view.is_mirrored_x, view.is_mirrored_y, *view.gains, view.contrast, *map(repr, view.operations)]
        return hashlib.sha256(json.dumps(said).encode()).digest()[:16]

    def get(self, image: ImageRef, view: View) -> Tensor | None:
        """Of an image in a view, (grid cells, tower width); None when nothing sound is kept of it."""
        data = self.space.read(self.key(image, view))
        return None if data is None else torch.from_numpy(data).view(self.dtype).view(self.shape)


class FeatureFiller:
    """Runs a model's tower, as it is now, on images whose features are not kept yet.

    Args:
        model: A GastroVLForConditionalGeneration on `device`.
        precision: The context the stage computes in (automatic mixed precision or none).
        dtype: What features are kept in.
        rank, world_size: Each of several processes begins with its own share, then takes what others have left; the
            model must be the same in all. They need not wait for each other, and one that dies is made up for.
    """

    def __init__(
        self,
        model: Any,
        processor: GastroVLProcessor,
        cache: FeatureCache,
        *,
        precision: AbstractContextManager[Any],
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world_size: int = 1,
        say: Say = print,
        progress: Progress | None = None,
    ) -> None:
        self.model, self.processor, self.cache = model, processor, cache
        self.precision, self.dtype, self.device = precision, dtype, device
        self.rank, self.world_size, self.say, self.progress = rank, world_size, say, progress
        shape = model.model.shape
        self.shape = (shape.tokens, shape.width)
        self._meaning = tower_meaning(model, processor) | {
            "dtype": str(dtype),
            "device": torch.device(device).type,
        }

    def fill(self, dataset: RowDataset, what: str) -> TowerFeatures | None:
        """Features of everything the rows of `dataset` show; None when they cannot be kept, which is said once.

        Raises:
            ImageError: An image that has to be looked at is missing or broken.
        """
        if self.cache.is_off:
            return None
        sights = dataset.sights()
        dataset.images.hash(sorted({image.path for image, _ in sights}))
        space = None
        try:
            space = self.cache.space(self._meaning, self.dtype.itemsize * self.shape[0] * self.shape[1])
            features = TowerFeatures(space, dataset.images, self.shape, self.dtype)
            wanted = {features.key(*sight): sight for sight in sights}
            space.refresh(self.say)
            space.pin(wanted)
            missing = [key for key in wanted if key not in space]
            features.damaged_before = space.damaged
            count = f"{len(wanted)} views of images" if dataset.cached_views else f"{len(wanted)} images"
            if not missing:
                self.say(f"  tower does not run: what it says of {count} is kept in {space.folder}")
                return features
            if problem := self.cache.room.problem(len(missing) * space.entry_bytes):
                self._say_why_not(problem)
                return None
            self.say(f"  tower runs once for {len(missing)} of {count}, kept in {space.folder}")
            self._compute(space, dataset, {key: wanted[key] for key in missing}, what)
            space.pin(wanted)
        except OSError as error:
            self.cache.is_off = True
            self._say_why_not(str(error.strerror or error))
            if space is not None:
                space.give_back()
            return None
        return features

    def finish(self, dataset: RowDataset, what: str) -> None:
        """Let go of a dataset's features; those found damaged on the way are made anew for the next stage or run."""
        if not isinstance(features := dataset.features, TowerFeatures):
            return
        dataset.features = None
        features.space.refresh(self.say)
        features.space.close()
        if features.space.damaged > features.damaged_before and (mended := self.fill(dataset, what)):
            mended.space.close()

    def _compute(self, space: FeatureSpace, dataset: RowDataset, missing: dict[bytes, Sight], what: str) -> None:
        """Own share first, then whatever is still missing."""
        keys, known, was_training = list(missing), len(space), self.model.training
        self.model.eval()
        try:
            start, end = (rank * len(keys) // self.world_size for rank in (self.rank, self.rank + 1))
            own = keys[start:end] or keys
            while own:
                for batch, squares in in_order(_drawn(dataset, missing), _batches(own, space)):
                    if any(key not in space for key in batch):
                        space.add(batch, self._entries(squares))
                    if self.progress:
                        self.progress(what, min(len(space) - known, len(keys)), len(keys))
                space.refresh()
                left = [key for key in keys[end:] + keys[:end] if key not in space]
                if set(own) <= set(left):
                    raise OSError("what is written there cannot be read back")
                own = left
        finally:
            space.close_writer()
            self.model.train(was_training)

    @torch.no_grad()
    def _entries(self, squares: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Squares, (images, side, side, 3), to entries, (images, bytes)."""
        count = len(squares)
        padded = np.concatenate([squares, np.repeat(squares[-1:], BATCH - count, axis=0)])
        with self.precision:
            features = self.model.model.tower_features(self.processor.pixels(padded).to(self.device))
        kept: NDArray[np.uint8] = features[:count].to(self.dtype).cpu().contiguous().view(torch.uint8).numpy()
        return kept.reshape(count, -1)

    def _say_why_not(self, problem: str) -> None:
        self.say(f"  feature cache {self.cache.room.root} is not used: {problem}; the tower runs for every batch")


def may_keep(stage: StageConfig, dataset: RowDataset) -> bool:
    """Whether the tower's word on an image holds for the whole stage: nothing trains it, no row mixes two images."""
    is_mixed = dataset.is_training and (stage.cutmix > 0 or stage.paste > 0)
    is_drawn_anew = dataset.is_training and dataset.augment is not None and not dataset.cached_views
    return not stage.trains_tower and not is_mixed and not is_drawn_anew


def tower_meaning(model: Any, processor: GastroVLProcessor) -> dict[str, Any]:
    """Everything besides image, view and number format that features depend on; a change of any is another cache."""
    config, images = model.config.vision_config.to_dict(), processor.image_processor
    return {
        "format": _FORMAT,
        "weights": vision_digest(model),
        "config": {name: value for name, value in config.items() if name not in ("_name_or_path", "dtype")},
        "layer": model.config.vision_feature_layer,
        "second_tower": getattr(model.config, "second_tower", None),
        "attention": model.model.vision_tower.config._attn_implementation,
        "matmul": torch.get_float32_matmul_precision(),
        "shape": astuple(model.model.shape),
        "image_size_px": processor.image_size_px,
        "resample": int(images.resample),
        "mean": list(images.image_mean),
        "std": list(images.image_std),
        "software": {"torch": torch.__version__, "transformers": transformers.__version__, "pillow": PIL.__version__},
    }


def vision_digest(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all that a model's vision part holds, lower-case hex."""
    digest = hashlib.sha256()
    for name, value in sorted((name, value) for name, value in model.state_dict().items() if part_of(name) in TOWERS):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(memoryview(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _batches(keys: Sequence[bytes], space: FeatureSpace) -> Iterator[list[bytes]]:
    """Keys in batches; those that another process has added by the time a batch is made are left out."""
    for start in range(0, len(keys), BATCH):
        if batch := [key for key in keys[start : start + BATCH] if key not in space]:
            yield batch


def _drawn(
    dataset: RowDataset, sights: dict[bytes, Sight]
) -> Callable[[list[bytes]], tuple[list[bytes], NDArray[np.uint8]]]:
    def draw(batch: list[bytes]) -> tuple[list[bytes], NDArray[np.uint8]]:
        shown = [sights[key] for key in batch]
        squares = {path: dataset.images.square(path) for path in dict.fromkeys(image.path for image, _ in shown)}
        return batch, np.stack([dataset.render(squares[image.path], view) for image, view in shown])

    return draw
