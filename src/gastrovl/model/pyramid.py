"""A convolutional tower for few images: what is seen coarsely is led back to a fine map, as in a U-shaped network.

Source: feature pyramids (Lin et al., CVPR 2017) over residual blocks (He et al., CVPR 2016), with the lateral sums of
U-Net (Ronneberger et al., MICCAI 2015). Other towers end in a map of one pixel in sixteen or thirty-two a side, where a
small lesion is one cell; this one ends at one in eight, and each of its cells knows the whole frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

PYRAMID_MULTIPLE = 32  # of pixels, that an image's side has to be
STRIDE = 8  # pixels of the image a cell of the map, along each side
_KIND = "gastrovl_pyramid"


class PyramidConfig(PreTrainedConfig):
    """Shape of a `PyramidTower`.

    Attributes:
        stem_size: Channels at half of the image's side.
        hidden_sizes: Channels of the four stages, at a quarter, an eighth, a sixteenth and a thirty-second.
        depths: Residual blocks of each stage.
        decoder_sizes: Channels on the way back, at a sixteenth and a thirty-second.
        output_size: Channels of the map that the tower gives, at an eighth.
        image_size: Side of the square, in pixels; a multiple of 32.
    """

    model_type = _KIND

    def __init__(
        self,
        stem_size: int = 24,
        hidden_sizes: tuple[int, ...] = (32, 64, 128, 256),
        depths: tuple[int, ...] = (1, 2, 3, 2),
        decoder_sizes: tuple[int, int] = (112, 160),
        output_size: int = 128,
        image_size: int = 160,
        **others: Any,
    ) -> None:
        self.stem_size, self.output_size, self.image_size = stem_size, output_size, image_size
        self.hidden_sizes, self.depths = list(hidden_sizes), list(depths)
        self.decoder_sizes = list(decoder_sizes)
        super().__init__(**others)


class PyramidTower(PreTrainedModel):
    """Normalised images, (images, 3, side, side), to one map, (images, output_size, side / 8, side / 8)."""

    config_class = PyramidConfig
    base_model_prefix = "pyramid"
    main_input_name = "pixel_values"

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__(config)
        quarter, eighth, sixteenth, last = sizes = config.hidden_sizes
        stem = config.stem_size
        self.stem = nn.Sequential(_convolution(3, stem, 3, 2), _convolution(stem, quarter, 3, 2))
        before = [quarter, *sizes[:-1]]
        self.stages = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(was, size, 2 if number else 1), *(ResidualBlock(size, size) for _ in range(depth - 1))
            )
            for number, (was, size, depth) in enumerate(zip(before, sizes, config.depths, strict=True))
        )
        fine, coarse = config.decoder_sizes
        self.frame = nn.Sequential(nn.Linear(last, last), nn.ReLU(), nn.Linear(last, last))
        self.coarse = nn.Conv2d(last, coarse, 1, bias=False)
        self.up_sixteenth, self.side_sixteenth = nn.Conv2d(coarse, fine, 1, bias=False), _lateral(sixteenth, fine)
        self.join_sixteenth = ResidualBlock(fine, fine)
        width = config.output_size
        self.up_eighth, self.side_eighth = nn.Conv2d(fine, width, 1, bias=False), _lateral(eighth, width)
        self.side_quarter = nn.Conv2d(quarter, width, 2, 2, bias=False)  # four fine cells into one: no detail is lost
        self.join_eighth = ResidualBlock(width, width)
        self.post_init()

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None
    ) -> BaseModelOutput:
        """The map as `last_hidden_state` and as the one hidden state; the other arguments are those of any tower."""
        del output_hidden_states, return_dict
        found, maps = self.stem(pixel_values), []
        for stage in self.stages:
            found = stage(found)
            maps.append(found)
        quarter, eighth, sixteenth, last = maps
        coarse = self.coarse(last + self.frame(last.mean(dim=(2, 3)))[:, :, None, None])
        middle = self.join_sixteenth(_sum(self.up_sixteenth(coarse), self.side_sixteenth(sixteenth)))
        side = self.side_eighth(eighth) + self.side_quarter(quarter)
        fine = self.join_eighth(_sum(self.up_eighth(middle), side))
        return BaseModelOutput(last_hidden_state=fine, hidden_states=(fine,))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """He's initialisation (ICCV 2015) of convolutions; PyTorch's own for the rest."""
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.Linear)):
            module.reset_parameters()


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm beside a skip."""

    def __init__(self, before: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _convolution(before, size, 3, stride)
        self.second = nn.Sequential(nn.Conv2d(size, size, 3, 1, 1, bias=False), nn.BatchNorm2d(size))
        self.skip = None
        if stride != 1 or before != size:
            self.skip = nn.Sequential(nn.Conv2d(before, size, 1, stride, bias=False), nn.BatchNorm2d(size))

    def forward(self, found: Tensor) -> Tensor:
        """(images, before, side, side) to (images, size, side / stride, side / stride)."""
        skip = found if self.skip is None else self.skip(found)
        return torch.relu(self.second(self.first(found)) + skip)


def _convolution(before: int, size: int, side: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, size, side, stride, side // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(size), nn.ReLU(inplace=True))


def _lateral(before: int, size: int) -> nn.Conv2d:
    return nn.Conv2d(before, size, 1, bias=False)


def _sum(coarse: Tensor, side: Tensor) -> Tensor:
    larger = nn.functional.interpolate(coarse, size=side.shape[-2:], mode="bilinear", align_corners=False)
    return torch.relu(larger + side)


AutoConfig.register(_KIND, PyramidConfig)
AutoModel.register(PyramidConfig, PyramidTower)
