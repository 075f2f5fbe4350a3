"""What a model is made of: the YAML description, and the Hugging Face config of models with a pooling connector."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from transformers import AutoConfig, LlavaConfig

from gastrovl.core.boxcoding import BoxCodingConfig
from gastrovl.core.config import Config
from gastrovl.core.errors import ConfigError

ConnectorKind = Literal["linear", "mlp", "pool", "query", "attention"]
PLAIN_CONNECTORS = ("linear", "mlp")


class PartConfig(Config):
    """A pretrained part, or the shape of one that starts from random weights.

    Attributes:
        path: Local folder of a Hugging Face model; its weights, config and preprocessing are used.
        config: `model_type` and the fields of that transformers config class, for random weights.
    """

    path: str | None = None
    config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> PartConfig:
        if (self.path is None) == (self.config is None):
            raise ValueError("give either `path` (a local folder with weights) or `config` (random weights), not both")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("`config` needs `model_type`, e.g. siglip_vision_model or llama")
        return self


class ConnectorConfig(Config):
    """How vision features become language-model tokens.

    Attributes:
        kind: `linear` and `mlp` keep all N_v tokens and are plain LLaVA; `pool` averages them onto `grids`;
            `query` reads them with `queries` learned queries; `attention` gathers them into `queries` windows, each of
            which asks with what it shows.
        grids: Side lengths of the pooled grids, e.g. (14, 7, 1) for ColonGPT's 246 tokens.
        queries: Number of tokens that `query` and `attention` give (N_v'), any from 1 on.
        regions: Put one more token behind each box of a question: the mean of the image tokens inside it (`pool`, and
            `attention` with a square number of tokens). Box text alone has to be learned to mean a place.
        depth: Cross-attention blocks of `query`.
        gated_every: Before every so many decoder layers the text looks at the image tokens through a gated
            cross-attention block (Flamingo), and its sequence holds one placeholder instead of them; 0 puts the image
            tokens into the sequence.
    """

    kind: ConnectorKind = "mlp"
    grids: tuple[int, ...] = (14, 7, 1)
    queries: int = Field(default=64, gt=0)
    regions: bool = False
    depth: int = Field(default=1, gt=0)
    gated_every: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_grid(self) -> ConnectorConfig:
        if self.regions and self.kind != "pool" and not (self.kind == "attention" and is_square(self.queries)):
            raise ValueError(
                "`regions` needs connector `pool`, or `attention` with a square number of `queries`, whose tokens form "
                f"a grid of ours; found {self.kind!r}"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> ConnectorConfig:
        if self.depth > 1 and self.kind != "query":
            raise ValueError(f"`depth` counts the blocks of connector `query`; found {self.depth} with {self.kind!r}")
        if self.gated_every and self.kind in PLAIN_CONNECTORS:
            raise ValueError(
                f"`gated_every` needs connector `pool`, `attention` or `query`; {self.kind!r} makes a plain LLaVA "
                "model, which has no such layers"
            )
        if self.gated_every and self.regions:
            raise ValueError(
                "`regions` are tokens in the text's sequence, and `gated_every` keeps the image out of it; choose one"
            )
        return self


class PerceptionConfig(Config):
    """A head that locates and recognises on the tower's own map, beside the language model (see `perception`).

    Attributes:
        width: Channels of the head.
        upscale: How many times finer its masks are than the tower's grid, along each side.
    """

    width: int = Field(default=96, gt=0)
    upscale: int = Field(default=2, ge=1, le=8)


class LoraConfig(Config):
    """Low-rank adapters on the language model (Hu et al., ICLR 2022).

    Attributes:
        target: Regular expression that a layer's whole name matches.
    """

    rank: int = Field(default=128, gt=0)
    alpha: float = 256.0
    dropout: float = Field(default=0.05, ge=0, lt=1)
    target: str = r".*(language|text)_model.*\.(q_proj|k_proj|v_proj|o_proj|dense|fc1|fc2|gate_proj|up_proj|down_proj)"


class ModelConfig(Config):
    """A whole model.

    Attributes:
        preset: Name in `gastrovl.model.presets`; other keys replace the preset's.
        vision, language, connector, lora: The parts.
        feature_layer: Which hidden state of the tower is used (-1: last, -2: last but one).
        tokenizer: `gastrovl` for the one that is shipped, else a local folder; a language model with a `path` brings
            its own when this is left out.
        chat_template: Name of a template in `model/chat_templates`.
        image_size_px: Side of the square the tower sees; None takes the tower's own.
        huggingface: Local snapshot folder of a whole vision-language model, in the place of preset and parts; only
            `lora` and `image_size_px` go with it (see `gastrovl.model.published.families`).
        vision_2: A second tower, whose channels are joined to the first one's on the first one's grid.
        feature_layer_2: Which of its hidden states is used.
        image_size_2_px: Side of the square it sees; None takes the first tower's.
        perception: A head for boxes, presence and names of regions; None leaves all answers to the language model.
        box_coding: How boxes are written in what the model reads and says; None writes them as datasets do.
    """

    preset: str | None = None
    vision: PartConfig | None = None
    language: PartConfig | None = None
    connector: ConnectorConfig | None = None
    lora: LoraConfig | None = None
    feature_layer: int | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    image_size_px: int | None = None
    huggingface: str | None = None
    vision_2: PartConfig | None = None
    feature_layer_2: int = -1
    image_size_2_px: int | None = None
    perception: PerceptionConfig | None = None
    box_coding: BoxCodingConfig | None = None

    @model_validator(mode="after")
    def _is_whole_or_parts(self) -> ModelConfig:
        beside = {"huggingface", "lora", "image_size_px"}
        fields = {name: field for name, field in type(self).model_fields.items() if name not in beside}
        parts = [
            name
            for name, field in fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        ]
        if self.huggingface is not None and parts:
            raise ValueError(
                f"`huggingface` names a whole model, so {', '.join(parts)} cannot be chosen; leave them out"
            )
        return self

    @model_validator(mode="after")
    def _has_second_tower(self) -> ModelConfig:
        if self.vision_2 is None and (self.image_size_2_px is not None or self.feature_layer_2 != -1):
            raise ValueError(
                "`image_size_2_px` and `feature_layer_2` say nothing without `vision_2`; name a second tower"
            )
        return self


class GastroVLConfig(LlavaConfig):
    """A LLaVA config of what plain transformers cannot hold: other connectors, a second tower, gated cross-attention.

    `second_tower` holds the fields of `second_tower.SecondTower`, `perception` those of PerceptionConfig.
    """

    model_type = "gastrovl"
    connector_kind: str = "pool"
    connector_grids: list[int] | None = None
    connector_queries: int = 64
    region_tokens: bool = False
    head_bias: bool = False  # Phi's output layer has one, plain LLaVA's has none
    connector_depth: int = 1
    gated_every: int = 0
    second_tower: dict[str, Any] | None = None
    perception: dict[str, Any] | None = None

    def token_grid_side(self) -> int | None:
        """Side of the grid that the first image tokens form, row by row from the top left; None when they form none."""
        if self.connector_kind == "pool" and self.connector_grids:
            return self.connector_grids[0]
        is_grid = self.connector_kind == "attention" and is_square(self.connector_queries)
        return math.isqrt(self.connector_queries) if is_grid else None


AutoConfig.register("gastrovl", GastroVLConfig)


def is_square(number: int) -> bool:
    """Whether that many tokens can form a square grid."""
    return math.isqrt(number) ** 2 == number


def part_hf_config(part: PartConfig) -> Any:
    """The transformers config of a part.

    Raises:
        ConfigError: There is no such folder, or the installed transformers knows no such model type or field.
    """
    if part.path is not None:
        if not (Path(part.path) / "config.json").is_file():
            raise ConfigError(f"model part {part.path!r}: no config.json there; give a local Hugging Face model folder")
        config = AutoConfig.from_pretrained(part.path, local_files_only=True)
        return getattr(config, "vision_config", config) if "vision" not in config.model_type else config
    assert part.config is not None
    fields = dict(part.config)
    model_type = fields.pop("model_type")
    try:
        default = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise ConfigError(f"model_type {model_type!r} is not known to the installed transformers: {error}") from error
    known = {"rope_scaling", *default.to_dict(), *(getattr(default, "rope_parameters", None) or {})}
    for name in fields:
        # transformers takes a misspelt name in silence and builds the default shape, often of billions
        if name not in known and not hasattr(default, name):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ConfigError(f"model_type {model_type!r} knows no {name!r}{hint}")
    return AutoConfig.for_model(model_type, **fields)
