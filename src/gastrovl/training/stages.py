"""Which weights a stage opens and at which rate, and the table that says so before it starts."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from gastrovl.core.errors import ConfigError
from gastrovl.training.config import Part, StageConfig

_NO_DECAY = ("bias", "norm", "embed", "positions", "queries", "rows", "columns")
_UNUSED_ENDS = (
    "post_layernorm",
    ".head.",
    "pooler",
    "vision_tower.layernorm",
    "vision_tower_2.layernorm",
    "post_layer_norm",
)
_BLOCK = re.compile(r"\blayers?\.(\d+)\.")


def part_of(name: str) -> Part | None:
    """The part a parameter belongs to, by its name; None for what never trains."""
    if "lora_" in name:
        return Part.LORA
    if "original_module" in name:
        return None
    if "vision_tower" in name:
        return Part.VISION
    if "multi_modal_projector" in name or "grounding" in name or "gated_blocks" in name:
        return Part.PROJECTOR
    return Part.LANGUAGE


def open_parts(model: nn.Module, stage: StageConfig) -> dict[Part, int]:
    """Freeze everything but what the stage trains; returns the number of open parameters of each part.

    Raises:
        ConfigError: A part the stage wants to train does not exist in the model.
    """
    counts = dict.fromkeys(stage.trains, 0)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        is_open = part in stage.trains and not _never_trains(name, model)
        parameter.requires_grad_(is_open)
        if is_open and part is not None:
            counts[part] += parameter.numel()
    if empty := [part.value for part, count in counts.items() if count == 0]:
        raise ConfigError(f"stage {stage.name!r}: the model has no parameters of {', '.join(empty)} to train")
    return counts


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules whose parameters are all frozen; they stay in evaluation mode, so that running statistics do not move."""
    return [
        module
        for module in model.modules()
        if any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters())
    ]


def parameter_groups(model: nn.Module, stage: StageConfig) -> list[dict[str, Any]]:
    """Optimiser groups: one per part and decay, each with the part's own peak rate."""
    groups: dict[tuple[Part, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if parameter.requires_grad and part is not None:
            decays = parameter.ndim > 1 and not any(word in name for word in _NO_DECAY)
            groups.setdefault((part, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": stage.rates.get(part, stage.learning_rate),
            "weight_decay": stage.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def describe(stage: StageConfig, counts: dict[Part, int], model: nn.Module) -> list[tuple[str, str, str]]:
    """Rows (part, parameters, peak rate) of what a stage trains and what it leaves alone."""
    total: dict[Part, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part is not None:
            total[part] = total.get(part, 0) + parameter.numel()
    rows = []
    for part, count in total.items():
        rate = f"{stage.rates.get(part, stage.learning_rate):.1e}" if part in counts else "frozen"
        rows.append((part.value, f"{counts.get(part, 0):,} of {count:,}", rate))
    return rows


def _never_trains(name: str, model: nn.Module) -> bool:
    """Parameters that get no gradient by construction: an identity behind a linear connector, a tower's unused end."""
    config = getattr(model, "config", None)
    is_linear = getattr(config, "projector_hidden_act", None) == "linear"
    if is_linear and "multi_modal_projector.linear_2" in name:
        return True
    return "vision_tower" in name and (
        any(word in name for word in _UNUSED_ENDS) or _is_behind_the_features(name.partition("vision_tower")[2], config)
    )


def _is_behind_the_features(name: str, config: Any) -> bool:
    """Whether a parameter of a transformer tower belongs to a block behind the hidden state that is used."""
    block = _BLOCK.search(name)
    blocks = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    used: int = config.vision_feature_layer  # index into the hidden states: the embeddings, then one for each block
    if name.startswith("_2."):
        blocks, used = config.second_tower["config"].get("num_hidden_layers"), config.second_tower["feature_layer"]
    if block is None or blocks is None:
        return False
    return int(block.group(1)) >= (used if used >= 0 else blocks + 1 + used)
