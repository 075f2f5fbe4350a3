"""A second vision tower beside the first: its map brought to the first one's grid, for channels to be joined.

Joining channels keeps the number of tokens, so a second view costs the language model nothing: Prismatic (Karamcheti et
al. 2024) joins SigLIP and DINOv2 so, and Eagle (Shi et al. 2024) finds that it matches or beats every other way. Both
see one squash of one image; the second tower's pixels are the first one's, resized and normalised anew inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig

from gastrovl.core.config import Config
from gastrovl.core.errors import ConfigError
from gastrovl.model.config import PartConfig, part_hf_config
from gastrovl.model.vision import TowerShape, image_processor, tower_shape, tower_tokens


class SecondTower(Config):
    """What a checkpoint's config says of its second tower.

    Attributes:
        config: Its transformers config; `image_size` is the side of the square it sees.
        feature_layer: Which hidden state is used.
        scale, shift: Of each colour, from the first tower's normalised pixels to its own.
    """

    config: dict[str, Any]
    feature_layer: int
    scale: tuple[float, ...] = Field(min_length=3, max_length=3)
    shift: tuple[float, ...] = Field(min_length=3, max_length=3)

    def hf_config(self) -> PreTrainedConfig:
        """The tower's transformers config."""
        fields = dict(self.config)
        return AutoConfig.for_model(fields.pop("model_type"), **fields)

    @cached_property
    def shape(self) -> TowerShape:
        """The shape of the tower's features."""
        return tower_shape(self.hf_config(), self.config["image_size"])

    def features(self, tower: nn.Module, pixels: Tensor, grid_side: int) -> Tensor:
        """What the tower says of the first tower's pixels, on the first tower's grid.

        A finer map is averaged, a coarser one interpolated.

        Args:
            pixels: (images, 3, side, side), normalised for the first tower.

        Returns:
            (images, grid_side**2, width), row by row from the top left.
        """
        own, shape = self.config["image_size"], self.shape
        scale, shift = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (self.scale, self.shift))
        if own != pixels.shape[-1]:
            pixels = nn.functional.interpolate(pixels, (own, own), mode="bilinear", antialias=True)
        found = tower_tokens(tower, shape, pixels * scale + shift, self.feature_layer)
        if shape.grid_side == grid_side:
            return found
        grid = found.transpose(1, 2).reshape(len(found), -1, shape.grid_side, shape.grid_side)
        if shape.grid_side > grid_side:
            grid = nn.functional.adaptive_avg_pool2d(grid, grid_side)
        else:
            grid = nn.functional.interpolate(grid, (grid_side, grid_side), mode="bilinear", align_corners=False)
        return grid.flatten(2).transpose(1, 2)


def describe_second_tower(
    part: PartConfig, feature_layer: int, image_size_px: int, first: tuple[Sequence[float], Sequence[float]]
) -> SecondTower:
    """The second tower of a model that is to be built.

    Args:
        first: Mean and standard deviation of the first tower's pixels, of each colour.

    Raises:
        ConfigError: The tower's geometry is unknown, or its folder does not say how images were normalised.
    """
    config = part_hf_config(part)
    config.image_size = image_size_px
    shape = tower_shape(config, image_size_px)
    if shape.is_convolutional and feature_layer != -1:
        raise ConfigError(
            f"feature_layer_2 {feature_layer}: a convolutional tower gives its last map only; set it to -1"
        )
    processor = image_processor(part.path, config, image_size_px)
    mean, deviation = (torch.tensor(values, dtype=torch.float64) for values in first)
    own_mean, own_deviation = torch.tensor(processor.image_mean).double(), torch.tensor(processor.image_std).double()
    return SecondTower(
        config={name: value for name, value in config.to_dict().items() if name != "dtype"},
        feature_layer=feature_layer,
        scale=tuple((deviation / own_deviation).tolist()),
        shift=tuple(((mean - own_mean) / own_deviation).tolist()),
    )


def joined(first: TowerShape, second: TowerShape) -> TowerShape:
    """The shape of two towers' joined features: the first one's grid, the channels of both."""
    return TowerShape(first.width + second.width, first.grid_side, first.prefix, first.is_convolutional)
