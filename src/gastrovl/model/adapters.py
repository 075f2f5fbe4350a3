"""LoRA on the language model through PEFT, and merging it back so that plain transformers can load the result."""

from __future__ import annotations

from typing import Any

from gastrovl.model.config import LoraConfig


def add_lora(model: Any, config: LoraConfig) -> Any:
    """Wrap `model` in a PEFT model; the connector stays whole and trainable beside the adapters.

    Raises:
        ValueError: `config.target` matches no layer (from PEFT, naming the pattern).
    """
    from peft import LoraConfig as PeftLoraConfig
    from peft import get_peft_model

    peft_config = PeftLoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target,
        modules_to_save=["multi_modal_projector"],
    )
    return get_peft_model(model, peft_config)


def merge(model: Any) -> Any:
    """The plain model with every adapter folded into its weights; a model without adapters comes back as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def inner(model: Any) -> Any:
    """The model itself, under whatever wraps it for adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
