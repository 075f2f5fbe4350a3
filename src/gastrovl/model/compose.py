"""A model from its parts: pretrained ones bring their weights, the others start at random."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlavaConfig

from gastrovl.core.errors import ConfigError
from gastrovl.model.config import (
    PLAIN_CONNECTORS,
    ConnectorConfig,
    GastroVLConfig,
    PartConfig,
    PerceptionConfig,
    part_hf_config,
)
from gastrovl.model.fusion.second_tower import SecondTower
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration
from gastrovl.model.vision import TowerShape, load_tower, tower_shape

_BIASED_HEADS = ("phi",)  # language models whose output layer has a bias


def compose(
    vision: PartConfig,
    language: PartConfig,
    connector: ConnectorConfig,
    *,
    vocabulary: int,
    image_token_id: int,
    image_size_px: int,
    feature_layer: int,
    pad_token_id: int,
    eos_token_id: int,
    second: SecondTower | None = None,
    second_path: str | None = None,
    perception: PerceptionConfig | None = None,
    reads_weights: bool = True,
) -> GastroVLForConditionalGeneration:
    """A model from its parts; parts with a `path` bring their weights, the others start at random (torch's seed).

    Without `reads_weights` nothing but config files is read; call it under `torch.device("meta")` for the shape alone.

    Raises:
        ConfigError: A part that plain LLaVA cannot hold with a `linear` or `mlp` connector, or an unknown tower.
    """
    vision_config = part_hf_config(vision)
    vision_config.image_size = image_size_px
    text_config = part_hf_config(language)
    is_stated = language.path is not None or "vocab_size" in (language.config or {})
    text_config.vocab_size = max(vocabulary, text_config.vocab_size if is_stated else 0)
    text_config.pad_token_id, text_config.eos_token_id = pad_token_id, eos_token_id
    # Published weights are often bfloat16; a part built in that would not meet the others, and training keeps float32.
    vision_config.dtype = text_config.dtype = torch.float32
    shape = tower_shape(vision_config, image_size_px)
    if shape.is_convolutional and feature_layer != -1:
        raise ConfigError(f"feature_layer {feature_layer}: a convolutional tower gives its last map only; set it to -1")
    if connector.kind in PLAIN_CONNECTORS:
        _check_plain(
            connector,
            vision_config.model_type,
            shape,
            text_config.model_type if language.path else "",
            second,
            perception,
        )
    config = _llava_config(vision_config, text_config, connector, shape, image_token_id, feature_layer, second)
    if perception:
        config.perception = perception.model_dump()
    model = GastroVLForConditionalGeneration(config)
    if not reads_weights:
        return model
    if connector.kind == "linear":
        _make_identity(model.model.multi_modal_projector.linear_2)
    if vision.path:
        model.model.vision_tower.load_state_dict(load_tower(vision.path).state_dict())
    if second_path:
        model.model.vision_tower_2.load_state_dict(load_tower(second_path).state_dict())
    if language.path:
        _take_language_weights(model, language.path)
    return model


def _check_plain(
    connector: ConnectorConfig,
    tower: str,
    shape: TowerShape,
    pretrained_language: str,
    second: SecondTower | None,
    perception: PerceptionConfig | None,
) -> None:
    """Refuse what plain LLaVA would read wrongly or not at all."""
    reason = ""
    if shape.is_convolutional:
        reason = f"the convolutional tower {tower!r}: its maps carry no positions"
    elif shape.prefix > 1:
        reason = f"the tower {tower!r}: its register tokens would be taken for patches"
    elif pretrained_language in _BIASED_HEADS:
        reason = f"the weights of a {pretrained_language!r} model: the bias of its output layer would be lost"
    elif second:
        reason = "a second tower"
    elif perception:
        reason = "a perception head"
    if reason:
        raise ConfigError(
            f"connector {connector.kind!r} makes a plain LLaVA model, which cannot hold {reason}; "
            "use connector `pool`, `query` or `attention`"
        )


def _llava_config(
    vision_config: Any,
    text_config: Any,
    connector: ConnectorConfig,
    shape: TowerShape,
    image_token_id: int,
    layer: int,
    second: SecondTower | None,
) -> LlavaConfig:
    fields: dict[str, Any] = {
        "vision_config": vision_config,
        "text_config": text_config,
        "image_token_index": image_token_id,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": "default" if shape.prefix == 1 else "full",
        "tie_word_embeddings": bool(text_config.tie_word_embeddings),
    }
    if connector.kind in PLAIN_CONNECTORS:
        activation = "linear" if connector.kind == "linear" else "gelu"
        return LlavaConfig(**fields, image_seq_length=shape.tokens, projector_hidden_act=activation)
    tokens = sum(side * side for side in connector.grids) if connector.kind == "pool" else connector.queries
    return GastroVLConfig(
        **fields,
        image_seq_length=1 if connector.gated_every else tokens,
        connector_kind=connector.kind,
        connector_grids=list(connector.grids),
        connector_queries=connector.queries,
        region_tokens=connector.regions,
        head_bias=text_config.model_type in _BIASED_HEADS,
        connector_depth=connector.depth,
        gated_every=connector.gated_every,
        second_tower=second.model_dump() if second else None,
    )


def _make_identity(layer: Any) -> None:
    """LLaVA's projector has two layers; a single linear one is that with an identity behind it, which never trains."""
    with torch.no_grad():
        layer.weight.copy_(torch.eye(layer.in_features))
        layer.bias.zero_()


def _take_language_weights(model: GastroVLForConditionalGeneration, path: str) -> None:
    donor = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, use_safetensors=True)
    vocabulary = model.lm_head.out_features
    if donor.get_input_embeddings().num_embeddings < vocabulary:
        donor.resize_token_embeddings(vocabulary)
    model.model.language_model.load_state_dict(donor.get_decoder().state_dict())
    model.lm_head.load_state_dict(donor.get_output_embeddings().state_dict())
