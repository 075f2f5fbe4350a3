"""Images and a local vision encoder to a file of embeddings, by which near-duplicates can be found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gastrovl.core.errors import ModelInputError
from gastrovl.core.files import atomic_path, write_text
from gastrovl.core.images import open_image
from gastrovl.model.vision import image_processor, load_tower, tower_shape, tower_tokens


def embed_images(
    paths: Sequence[Path],
    encoder_folder: Path,
    *,
    batch_size: int = 16,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """The mean of an encoder's last patch features for each image, scaled to length 1, (images, width).

    Args:
        paths: Image files.
        encoder_folder: A Hugging Face vision encoder with safetensors weights and its preprocessor_config.json; of a
            two-tower model the vision part is taken. Images are squashed to its square input.
        batch_size: Images encoded at once.
        device: As torch names it.
        progress: Called with (images done, images in all).

    Raises:
        ImageError: An image cannot be read.
        ConfigError: The layout of this kind of encoder is not known, or its folder lacks the image processor.
        ModelInputError: There are no images.
    """
    if not paths:
        raise ModelInputError("no images to embed; pass at least one path")
    tower = load_tower(str(encoder_folder)).to(device).eval()
    side = int(getattr(tower.config, "image_size", 224))
    processor = image_processor(str(encoder_folder), tower.config, side)
    shape = tower_shape(tower.config, side)
    rows = []
    for start in range(0, len(paths), batch_size):
        pictures = [open_image(path) for path in paths[start : start + batch_size]]
        pixels = processor(images=pictures, return_tensors="pt")["pixel_values"].to(device)
        with torch.inference_mode():
            features = tower_tokens(tower, shape, pixels, -1).float().mean(dim=1)
        rows.append(torch.nn.functional.normalize(features, dim=1).cpu().numpy())
        if progress:
            progress(min(start + batch_size, len(paths)), len(paths))
    embeddings: NDArray[np.float32] = np.concatenate(rows)
    return embeddings


def write_embeddings(path: Path, ids: Sequence[str], embeddings: NDArray[np.float32]) -> None:
    """Write `NAME.npy` and the ids to `NAME.json` beside it, as `gastrovl.data.embeddings.read_embeddings` reads them.

    Raises:
        ModelInputError: There are not as many ids as embeddings.
        OutputError: The files cannot be written.
    """
    if len(ids) != len(embeddings):
        raise ModelInputError(f"{len(ids)} ids for {len(embeddings)} embeddings; expected as many")
    path = Path(path).with_suffix(".npy")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, embeddings, allow_pickle=False)
    write_text(path.with_suffix(".json"), json.dumps(list(ids)) + "\n")
