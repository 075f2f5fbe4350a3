"""LoRA on the language model through PEFT, and merging it back so that plain transformers can load the result."""

from __future__ import annotations

import warnings
from typing import Any

from gastrovl.core.errors import ConfigError
from gastrovl.model.config import LoraConfig
from gastrovl.model.lowrank import fuse_adapters
from gastrovl.model.published.families import FAMILIES
from gastrovl.model.quantise import is_quantised, merge_floats


def add_lora(model: Any, config: LoraConfig) -> Any:
    """Wrap `model` in a PEFT model; the connector stays whole and trainable beside the adapters.

    Raises:
        ConfigError: `config.target` matches no layer.
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    family = FAMILIES.get(model.config.model_type)
    peft_config = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target,
        modules_to_save=[family.projector if family else "multi_modal_projector"],
    )
    with warnings.catch_warnings():  # PEFT asks transformers >= 5.20 for an attribute by its former name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        try:
            adapted = get_peft_model(model, peft_config)
        except ValueError as error:
            raise ConfigError(f"model.lora.target {config.target!r}: adapters cannot be placed ({error})") from error
    fuse_adapters(adapted)
    return adapted


def merge(model: Any) -> Any:
    """The plain float model with every adapter folded into its weights; one without adapters comes back as it is."""
    if is_quantised(model):
        return merge_floats(model)
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def inner(model: Any) -> Any:
    """The model itself, under whatever wraps it for adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
