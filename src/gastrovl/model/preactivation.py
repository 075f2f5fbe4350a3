"""A pre-activation residual network as a vision tower that transformers loads by its type: pixels to a map of features.

transformers knows ResNet with the activation behind each sum only (He et al. 2016a), and pre-activation ones only with
group norm and standardised weights (`bit`). Weights of the published ResNet v2, batch norm before each convolution (He
et al. 2016b, arXiv 1603.05027), fit neither.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

_KIND = "gastrovl_preactivation"


class PreactivationConfig(PreTrainedConfig):
    """Shape of a `PreactivationTower`; the defaults are those of ResNet-50 without its last stage.

    Attributes:
        embedding_size: Channels behind the stem, a 7x7 convolution of stride 2 and a pooling of stride 2.
        hidden_sizes, depths: Channels and blocks of each stage; every stage but the first halves the map.
        patch_size: Pixels of the image that a cell of the first stage's map spans, along each side.
    """

    model_type = _KIND
    patch_size = 4

    def __init__(
        self,
        embedding_size: int = 64,
        hidden_sizes: tuple[int, ...] = (256, 512, 1024),
        depths: tuple[int, ...] = (3, 4, 6),
        **others: Any,
    ) -> None:
        self.embedding_size = embedding_size
        self.hidden_sizes, self.depths = list(hidden_sizes), list(depths)
        super().__init__(**others)


class Bottleneck(nn.Module):
    """Three convolutions, each behind a batch norm and ReLU, added to the input or to its projection."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, projects: bool) -> None:
        super().__init__()
        width = outputs // 4
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, width, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(width), nn.Conv2d(width, outputs, 1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(active)
        shown: Tensor = self.conv1(active)
        shown = self.conv2(F.relu(self.norm2(shown)))
        shown = self.conv3(F.relu(self.norm3(shown)))
        return kept + shown


class PreactivationTower(PreTrainedModel):
    """(images, 3, height, width) -> the map of every stage; the last one is normed and rectified."""

    config_class = PreactivationConfig
    base_model_prefix = "preactivation"
    main_input_name = "pixel_values"

    def __init__(self, config: PreactivationConfig) -> None:
        super().__init__(config)
        self.input_norm = nn.BatchNorm2d(3)
        self.stem = nn.Conv2d(3, config.embedding_size, 7, 2, 3, bias=False)
        self.stem_norm = nn.BatchNorm2d(config.embedding_size)
        stages, inputs = [], config.embedding_size
        for stage, (blocks, outputs) in enumerate(zip(config.depths, config.hidden_sizes, strict=True)):
            made = []
            for number in range(blocks):
                stride = 2 if stage > 0 and number == 0 else 1
                made.append(Bottleneck(inputs, outputs, stride, projects=number == 0))
                inputs = outputs
            stages.append(nn.Sequential(*made))
        self.stages = nn.ModuleList(stages)
        self.norm = nn.BatchNorm2d(inputs)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None
    ) -> BaseModelOutput:
        """The maps of stem and stages as hidden states, the last of them as `last_hidden_state`.

        Args:
            pixel_values: Normalised images, (images, 3, height, width).
        """
        del output_hidden_states, return_dict  # those of any tower
        shown = F.relu(self.stem_norm(self.stem(self.input_norm(pixel_values))))
        maps = [F.max_pool2d(shown, 3, 2, 1)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        maps[-1] = F.relu(self.norm(maps[-1]))
        return BaseModelOutput(last_hidden_state=maps[-1], hidden_states=tuple(maps))


AutoConfig.register(_KIND, PreactivationConfig)
AutoModel.register(PreactivationConfig, PreactivationTower)
