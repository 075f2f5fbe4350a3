"""Which weights a stage opens and at which rate, and the table that says so before it starts."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

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
_CONTRAST = re.compile(r"(?:^|\.)contrast\.")
# What families of Hugging Face models call the two parts before the language model.
_PROJECTORS = ("multi_modal_projector", "gated_blocks", "visual.merger", ".connector.")
_TOWERS = ("vision_tower", ".visual.", ".vision_model.")
_SECOND_TOWER = "vision_tower_2."
_PERCEPTION = re.compile(r"(?:^|\.)perception\.")
_GROUNDING = re.compile(r"(?:^|\.)grounding\.")
_BLOCK = re.compile(r"\blayers?\.(\d+)\.")
_UNIT = re.compile(r"\b(?:layers?|stages)\.(\d+)\.")  # a block, or of a convolutional tower a stage


def part_of(name: str) -> Part | None:
    """The part a parameter belongs to, by its name; None for what never trains."""
    if "lora_" in name:
        return Part.LORA
    if "original_module" in name:
        return None
    if _PERCEPTION.search(name):
        return Part.PERCEPTION
    if any(word in name for word in _PROJECTORS) or _CONTRAST.search(name) or _GROUNDING.search(name):
        return Part.PROJECTOR
    if _SECOND_TOWER in name:
        return Part.VISION_2
    if any(word in name for word in _TOWERS):
        return Part.VISION
    return Part.LANGUAGE


def block_of(name: str) -> int | None:
    """The number of the block that a parameter belongs to, by its name; None for embeddings, final norms and heads."""
    found = _UNIT.search(name)
    return int(found.group(1)) if found else None


def weights_in(parameter: nn.Parameter) -> int:
    """How many weights a parameter holds; one of 4 bits a weight keeps two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def open_parts(model: nn.Module, stage: StageConfig) -> dict[Part, int]:
    """Freeze everything but what the stage trains; returns the number of open parameters of each part.

    Raises:
        ConfigError: A part or layer the stage wants to train does not exist in the model.
    """
    counts = dict.fromkeys(stage.trains, 0)
    chosen = {part: _chosen_blocks(model, part, text) for part, text in stage.layers.items()}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        is_open = part in stage.trains and not _never_trains(name, model) and _is_used(name, stage)
        if part in chosen:
            is_open = is_open and block_of(name) in chosen[part]
        parameter.requires_grad_(is_open)
        if is_open and part is not None:
            counts[part] += weights_in(parameter)
    if empty := [_called(part, stage) for part, count in counts.items() if count == 0]:
        raise ConfigError(f"stage {stage.name!r}: the model has no parameters of {', '.join(empty)} to train")
    return counts


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules whose parameters are all frozen; they stay in evaluation mode, so that running statistics do not move."""
    return [
        module
        for module in model.modules()
        if any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters())
    ]


def open_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What a stage changes, by name: the open parameters, and the running statistics beside them."""
    found: dict[str, Tensor] = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    for prefix, module in model.named_modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            statistics = module.named_buffers(prefix, recurse=False)
            found |= {name: buffer for name, buffer in statistics if buffer.is_floating_point()}
    return found


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
            total[part] = total.get(part, 0) + weights_in(parameter)
    rows = []
    for part, count in total.items():
        rate = f"{stage.rates.get(part, stage.learning_rate):.1e}" if part in counts else "frozen"
        rows.append((_called(part, stage), f"{counts.get(part, 0):,} of {count:,}", rate))
    return rows


def _called(part: Part, stage: StageConfig) -> str:
    return f"{part.value}[{stage.layers[part]}]" if part in stage.layers else part.value


def _chosen_blocks(model: nn.Module, part: Part, text: str) -> set[int]:
    """The blocks of a part that a slice such as `-4:` names, counted among those that can train."""
    found = {
        block_of(name)
        for name, _ in model.named_parameters()
        if part_of(name) == part and not _never_trains(name, model)
    }
    blocks = sorted(block for block in found if block is not None)
    first, _, last = text.partition(":")
    return set(blocks[slice(int(first) if first else None, int(last) if last else None)])


def _is_used(name: str, stage: StageConfig) -> bool:
    """False for what only another stage's loss uses; several processes would wait for its gradient."""
    if _GROUNDING.search(name):
        return stage.grounding_weight > 0
    if _PERCEPTION.search(name):
        return stage.perception_weight > 0 and (stage.answer_weight > 0 or ".of_state." not in name)
    if not _CONTRAST.search(name):
        return True
    return stage.contrastive_weight > 0 and (stage.contrastive == "sigmoid" or "bias" not in name)


def _never_trains(name: str, model: nn.Module) -> bool:
    """Parameters that get no gradient by construction: an identity behind a linear connector, a tower's unused end."""
    config = getattr(model, "config", None)
    is_linear = getattr(config, "projector_hidden_act", None) == "linear"
    if is_linear and "multi_modal_projector.linear_2" in name:
        return True
    reads_behind = hasattr(config, "vision_config") and not hasattr(
        config, "vision_feature_layer"
    )  # the norm, as Gemma
    if reads_behind:
        return "vision_tower" in name and ".head." in name
    return "vision_tower" in name and (
        any(word in name for word in _UNUSED_ENDS) or _is_behind_the_features(name.partition("vision_tower")[2], config)
    )


def _is_behind_the_features(name: str, config: Any) -> bool:
    """Whether a parameter of a transformer tower belongs to a block behind the hidden state that is used."""
    block = _BLOCK.search(name)
    blocks = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    used = config.vision_feature_layer  # index into the hidden states: the embeddings, then one for each block
    if name.startswith("_2."):
        blocks, used = config.second_tower["config"].get("num_hidden_layers"), config.second_tower["feature_layer"]
    if block is None or blocks is None:
        return False
    layers = used if isinstance(used, list) else [used]
    return int(block.group(1)) >= max(layer if layer >= 0 else blocks + 1 + layer for layer in layers)
