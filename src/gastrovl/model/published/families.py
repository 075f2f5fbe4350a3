"""Hugging Face vision-language models we can fine-tune: what each family calls its parts and shows its language model.

Every image is squashed to one square, as our composed models do, so that a family always has the same number of image
tokens and a box in fractions of the original image stays true whatever its aspect ratio. Splitting into tiles, panning
and dynamic resolution are switched off for that reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gastrovl.core.errors import ConfigError
from gastrovl.model.vision import tower_shape

Layout = Literal["plain", "listed", "patches"]


@dataclass(frozen=True)
class Shown:
    """One image as its language model sees it.

    Attributes:
        side_px: Side of the square that the tower sees.
        tokens: How many tokens stand for it.
    """

    side_px: int
    tokens: int


@dataclass(frozen=True)
class Preparation:
    """How pixels are prepared, by the names that image processors of transformers give these numbers.

    Their classes are not used: some of them want torchvision, and all that we need of them stands in their files.

    Attributes:
        resample: Filter of PIL.
        image_mean, image_std: Of each channel, after division by 255.
        patch_size, merge_size, temporal_patch_size: Of families that take patches.
    """

    resample: int
    image_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2


_BILINEAR, _BICUBIC, _LANCZOS = 2, 3, 1
_OF_CLIP = Preparation(_BICUBIC, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Family:
    """What we have to know of one `model_type`; its class, its forward and its weights stay its own.

    Attributes:
        projector: Name of the module between tower and language model.
        packs: Whether it reads plain positions, looks back only and without limit, so that the dialogues of an image
            can share a row. The others get one row for each dialogue, and their own positions and masks.
        layout: `plain` pixels are (images, 3, side, side), `listed` ones (images, 1, 3, side, side), `patches` are rows
            of one patch each, in the order in which they are merged.
        shown: From a config and the wished side to what an image is shown as.
        prepared: How its image processor prepares pixels where its file does not say so.
        written: From the tokenizer's words and the config to (what its template writes for an image, what its processor
            puts there, with the image token once).
        settings: What switches its image processor to one squashed square, besides its size.
        beside: From (which tokens are the image's, patches along a side of it) to what its forward takes beside ids
            and pixels.
    """

    projector: str
    packs: bool
    layout: Layout
    shown: Callable[[Any, int | None], Shown]
    prepared: Preparation
    written: Callable[[Any, Any], tuple[str, str]]
    settings: dict[str, Any]
    beside: Callable[[Tensor, int], dict[str, Tensor]]


def _fixed(config: Any, wished: int | None) -> int:
    """The side of a tower that has learned its positions for one size."""
    side = int(config.vision_config.image_size)
    if wished not in (None, side):
        raise ConfigError(f"model.image_size_px {wished}: this model's tower sees {side} px only; leave it out")
    return side


def _llava_shown(config: Any, wished: int | None) -> Shown:
    side = _fixed(config, wished)
    shape = tower_shape(config.vision_config, side)
    # "default" drops the first token, whether or not the tower has one before its patches
    kept = shape.prefix if config.vision_feature_select_strategy == "full" else shape.prefix - 1
    return Shown(side, shape.tokens + kept)


def _qwen_shown(config: Any, wished: int | None) -> Shown:
    vision = config.vision_config
    step = int(vision.patch_size) * int(vision.spatial_merge_size)
    side = wished or 448 // step * step
    if side % step:
        near = max(1, round(side / step)) * step
        raise ConfigError(f"model.image_size_px {side}: this model needs a multiple of {step}, e.g. {near}")
    return Shown(side, (side // step) ** 2)


def _gemma_shown(config: Any, wished: int | None) -> Shown:
    return Shown(_fixed(config, wished), int(config.mm_tokens_per_image))


def _idefics_shown(config: Any, wished: int | None) -> Shown:
    side = _fixed(config, wished)
    return Shown(side, (side // int(config.vision_config.patch_size)) ** 2 // int(config.scale_factor) ** 2)


def _as_written(tokenizer: Any, config: Any) -> tuple[str, str]:
    token = tokenizer.convert_ids_to_tokens(config.image_token_id)
    return token, token


def _gemma_written(tokenizer: Any, config: Any) -> tuple[str, str]:
    begin, end = tokenizer.convert_ids_to_tokens([config.boi_token_index, config.eoi_token_index])
    return begin, f"\n\n{begin}{tokenizer.convert_ids_to_tokens(config.image_token_id)}{end}\n\n"


def _idefics_written(tokenizer: Any, config: Any) -> tuple[str, str]:
    token, around = tokenizer.convert_ids_to_tokens(config.image_token_id), "<fake_token_around_image>"
    return token, f"{around}<global-img>{token}{around}"


def _nothing(is_image: Tensor, patches: int) -> dict[str, Tensor]:
    del is_image, patches
    return {}


def _qwen_beside(is_image: Tensor, patches: int) -> dict[str, Tensor]:
    grid = torch.tensor([[1, patches, patches]], device=is_image.device)
    return {"image_grid_thw": grid.expand(len(is_image), 3), "mm_token_type_ids": is_image.int()}


def _gemma_beside(is_image: Tensor, patches: int) -> dict[str, Tensor]:
    del patches
    return {"token_type_ids": is_image.long()}


_LLAVA = Family(
    projector="multi_modal_projector",
    packs=True,
    layout="plain",
    shown=_llava_shown,
    prepared=_OF_CLIP,
    written=_as_written,
    settings={"do_center_crop": False},
    beside=_nothing,
)
_QWEN = Family(
    projector="merger",
    packs=False,  # positions of rows, columns and time
    layout="patches",
    shown=_qwen_shown,
    prepared=_OF_CLIP,
    written=_as_written,
    settings={},
    beside=_qwen_beside,
)
_GEMMA = Family(
    projector="multi_modal_projector",
    packs=False,  # image tokens see each other, and most layers look back a short way only
    layout="plain",
    shown=_gemma_shown,
    prepared=Preparation(_BILINEAR),
    written=_gemma_written,
    settings={"do_pan_and_scan": False},
    beside=_gemma_beside,
)


_IDEFICS = Family(
    projector="connector",
    packs=True,
    layout="listed",
    shown=_idefics_shown,
    prepared=Preparation(_LANCZOS),
    written=_idefics_written,
    settings={"do_image_splitting": False},
    beside=_nothing,
)

FAMILIES = {
    "llava": _LLAVA,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "gemma3": _GEMMA,
    "smolvlm": _IDEFICS,
    "idefics3": _IDEFICS,
}
