"""The model that a run begins with: built or read, given adapters and training heads, told how rows are attended."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gastrovl.core.boxcoding import BoxCodingConfig, location_word
from gastrovl.core.errors import ConfigError
from gastrovl.model import adapters
from gastrovl.model.checkpoint import build_model, load_checkpoint
from gastrovl.model.packed.flex import why_not_flex
from gastrovl.model.packed.shared_prefix import Backend
from gastrovl.model.presets import resolve
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.quantise import quantise
from gastrovl.model.tokenizer import load_tokenizer
from gastrovl.training.config import Part, TrainConfig
from gastrovl.training.inputs import check_tokenizer

Say = Callable[[str], None]


def start_model(config: TrainConfig) -> tuple[Any, GastroVLProcessor]:
    random.seed(config.seed)
    torch.manual_seed(config.seed)
    if config.start_from:
        model, processor, card = load_checkpoint(Path(config.start_from))
        if (card.family is None) != (config.model.huggingface is None):
            kind = "a composed model" if card.family is None else f"a fine-tuned {card.family} model"
            raise ConfigError(
                f"start_from {config.start_from}: is {kind}; describe it under `model` as the run that made it did "
                "(`huggingface` for one that was published whole, and only then)"
            )
        _recode(model, processor, config)
    else:
        model, processor = build_model(config.model, config.seed)
    check_tokenizer(model, processor.tokenizer, config)
    _check_words_learn(processor, config)
    if config.quantise:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        quantise(model, config.quantise, device, getattr(torch, config.precision))
    if any(Part.LORA in stage.trains for stage in config.stages):
        lora = resolve(config.model).lora
        if lora is None:
            raise ConfigError("a stage trains `lora`, but neither model.lora nor the preset describes adapters")
        model = adapters.add_lora(model, lora)
    if any(stage.grounding_weight for stage in config.stages):
        adapters.inner(model).add_grounding_head()
    if any(stage.contrastive_weight for stage in config.stages):
        adapters.inner(model).add_contrastive_head()
    return model, processor


def _recode(model: Any, processor: GastroVLProcessor, config: TrainConfig) -> None:
    """Write boxes as the config says from here on, where the checkpoint has the words for it."""
    said, own = config.model.box_coding, processor.coding.config
    if said is None or said == own:
        return
    if _bins(said) != _bins(own):
        raise ConfigError(
            f"start_from {config.start_from}: writes boxes as {own.kind} ({own.bins} bins), model.box_coding asks for "
            f"{said.kind} ({said.bins} bins), and location tokens are given to a model when it is built; leave "
            "model.box_coding out, or start from parts"
        )
    processor.write_boxes_as(said)
    model.locations = processor.locations


def _bins(coding: BoxCodingConfig) -> int:
    """How many location tokens a coding needs."""
    return coding.bins if coding.kind == "tokens" else 0


def _check_words_learn(processor: GastroVLProcessor, config: TrainConfig) -> None:
    """Refuse location tokens whose embeddings would stay as they were drawn."""
    is_taught = any(Part.LANGUAGE in stage.trains and Part.LANGUAGE not in stage.layers for stage in config.stages)
    if not processor.locations or config.start_from or is_taught:
        return
    described = resolve(config.model)
    assert described.tokenizer is not None
    assert described.chat_template is not None
    if location_word(0) not in load_tokenizer(described.tokenizer, described.chat_template).get_vocab():
        raise ConfigError(
            "model.box_coding `tokens` adds words to the language model, and no stage trains its embeddings: adapters "
            "(`lora`) and `layers` leave them as they are; add a stage that trains `language`, or write boxes as digits"
        )


def choose_attention(model: Any, config: TrainConfig, say: Say) -> None:
    """Set how packed rows are attended; on a GPU the fast way is tried out first.

    Raises:
        ConfigError: `attention: flex` is asked for and cannot work here.
    """
    inner, device = adapters.inner(model), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    inner.packed_attention = config.attention
    if config.attention is not Backend.FLEX and (config.attention is not Backend.AUTO or device.type == "cpu"):
        return
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    reason = why_not_flex(inner.config.get_text_config(), device, dtype)
    if reason and config.attention is Backend.FLEX:
        raise ConfigError(f"attention: flex cannot be used here: {reason}; leave `attention` out to have it chosen")
    inner.packed_attention = Backend.MASK if reason else Backend.FLEX
    say(f"packed rows are attended by {inner.packed_attention}" + (f": {reason}" if reason else ""))
