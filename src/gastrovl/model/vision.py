"""Any transformers vision tower as one thing: pixels in, a grid of feature tokens out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig

from gastrovl.core.errors import ConfigError, ModelInputError
from gastrovl.model import preactivation  # noqa: F401 - transformers learns its type
from gastrovl.model.pyramid import PYRAMID_MULTIPLE, STRIDE, PyramidConfig

# Class and register tokens that stand before the patches in a tower's hidden states.
_PREFIX_TOKENS = {
    "clip_vision_model": 1,
    "dinov2": 1,
    "vit": 1,
    "deit": 1,
    "siglip_vision_model": 0,
    "siglip2_vision_model": 0,
}
_PIL_PROCESSORS = {
    "siglip_vision_model": "SiglipImageProcessorPil",
    "clip_vision_model": "CLIPImageProcessorPil",
    "dinov2": "BitImageProcessorPil",
    "vit": "ViTImageProcessorPil",
}


@dataclass(frozen=True)
class TowerShape:
    """What a tower gives: `grid_side` x `grid_side` tokens of `width` channels after `prefix` class or register tokens.

    `is_convolutional` towers give maps, (batch, channels, height, width), and carry no positions of their own.
    """

    width: int
    grid_side: int
    prefix: int
    is_convolutional: bool

    @property
    def tokens(self) -> int:
        return self.grid_side * self.grid_side


def tower_shape(config: PreTrainedConfig, image_size_px: int) -> TowerShape:
    """The shape of a tower's features for square images of `image_size_px`.

    Raises:
        ConfigError: The tower is of a kind whose geometry is not known here.
    """
    kind = config.model_type
    if isinstance(config, PyramidConfig):
        if image_size_px % PYRAMID_MULTIPLE:
            raise ConfigError(f"image_size_px {image_size_px} is no multiple of the pyramid's {PYRAMID_MULTIPLE}")
        return TowerShape(config.output_size, image_size_px // STRIDE, 0, is_convolutional=True)
    if hasattr(config, "hidden_sizes") and hasattr(config, "depths"):
        stride = _stem_stride(config) * 2 ** (len(config.hidden_sizes) - 1)
        return TowerShape(config.hidden_sizes[-1], -(-image_size_px // stride), 0, is_convolutional=True)
    if kind not in _PREFIX_TOKENS and kind != "dinov3_vit":
        known = ", ".join(
            sorted(
                [
                    *_PREFIX_TOKENS,
                    "dinov3_vit",
                    "resnet",
                    "convnext",
                    "convnextv2",
                    "gastrovl_pyramid",
                    "gastrovl_preactivation",
                ]
            )
        )
        raise ConfigError(f"vision model_type {kind!r}: its token layout is not known here; known: {known}")
    prefix = 1 + config.num_register_tokens if kind == "dinov3_vit" else _PREFIX_TOKENS[kind]
    if image_size_px % config.patch_size:
        raise ConfigError(f"image_size_px {image_size_px} is no multiple of the tower's patch size {config.patch_size}")
    return TowerShape(config.hidden_size, image_size_px // config.patch_size, prefix, is_convolutional=False)


def load_tower(path: str) -> nn.Module:
    """The vision tower in a local folder; of a two-tower model (CLIP, SigLIP) or a LLaVA model its vision part."""
    model = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
    if hasattr(model, "vision_tower"):
        return model.vision_tower
    return model.vision_model if hasattr(model, "vision_model") and hasattr(model, "text_model") else model


def tower_tokens(tower: nn.Module, shape: TowerShape, pixels: Tensor, layer: int) -> Tensor:
    """The patch features of `layer`, class and register tokens left out.

    Args:
        pixels: Normalised images, (images, 3, side, side).
        layer: Index into the tower's hidden states, -1 for the last.

    Returns:
        (images, grid_side * grid_side, width), row by row from the top left.

    Raises:
        ModelInputError: The tower gave another number of tokens than its config promises.
    """
    output = tower(pixels, output_hidden_states=True, return_dict=True)
    features = output.hidden_states[layer]
    if shape.is_convolutional:
        features = features.flatten(2).transpose(1, 2)
    features = features[:, shape.prefix :]
    if features.shape[1] != shape.tokens:
        raise ModelInputError(
            f"the vision tower gave {features.shape[1]} tokens for pixels {tuple(pixels.shape)}, expected "
            f"{shape.tokens}; the images were prepared with another size than the model's image_size_px"
        )
    return features


def image_processor(path: str | None, config: PreTrainedConfig, image_size_px: int) -> Any:
    """The Pillow-based image processor of a tower, set to squash any image to a square of `image_size_px`.

    A squash, not a centre crop: fractions of the original image stay what they are, so boxes survive. Random-weight
    towers of other families take SigLIP's normalisation (mean and standard deviation 0.5). The class follows from the
    tower, because AutoImageProcessor wants torchvision before transformers 5.18.

    Raises:
        ConfigError: The folder of a pretrained tower does not say how its images were normalised.
    """
    import transformers

    if path and not any(
        (Path(path) / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    ):
        raise ConfigError(
            f"vision part {path!r}: no preprocessor_config.json there, so the normalisation of its images is unknown; "
            "copy it from where the weights come from"
        )
    name = _PIL_PROCESSORS.get(config.model_type, "SiglipImageProcessorPil")
    processor_class = getattr(transformers, name)
    processor = processor_class.from_pretrained(path, local_files_only=True) if path else processor_class()
    processor.size = {"height": image_size_px, "width": image_size_px}
    processor.default_to_square = True
    processor.do_center_crop = False
    return processor


def _stem_stride(config: PreTrainedConfig) -> int:
    if config.model_type == "resnet":
        return 8 if config.downsample_in_first_stage else 4
    return int(config.patch_size)
