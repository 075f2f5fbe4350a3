"""A checkpoint folder to a model on a device in float32, in bfloat16, or with int8 in its language model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from gastrovl.core.errors import ConfigError
from gastrovl.model.checkpoint import CheckpointCard, load_checkpoint, read_card
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.quantise import quantise

Precision = Literal["float32", "bfloat16", "int8"]


def load_in(
    folder: Path, device: torch.device, precision: Precision | None = None
) -> tuple[Any, GastroVLProcessor, CheckpointCard]:
    """Model (in evaluation mode), processor and card.

    Args:
        precision: `float32`, the default on a CPU; `bfloat16`, that on a GPU; or `int8`, which rounds the matrices of
            the language model to a quarter of their memory and, on a CPU, costs time. A perception head keeps float32:
            boxes are read in it.

    Raises:
        CheckpointError: The folder is incomplete or of another version.
        ConfigError: There is no such precision.
        MissingExtraError: `int8`, and bitsandbytes is not installed.
    """
    chosen = precision or ("bfloat16" if device.type == "cuda" else "float32")
    if chosen not in get_args(Precision):
        raise ConfigError(f"dtype {chosen!r} is unknown; expected one of {', '.join(get_args(Precision))}")
    card = read_card(Path(folder))
    narrow = torch.bfloat16 if chosen == "bfloat16" else torch.float32
    has_head = bool(card.recognised) or card.locates
    model, processor, card = load_checkpoint(Path(folder), torch.float32 if has_head else narrow)
    model = model.to(device)
    if model.perception is not None:  # its convolutions get maps that lie so; else weights are turned at every look
        model.perception.to(memory_format=torch.channels_last)
    if chosen == "bfloat16" and has_head:
        head = model.perception
        model.perception = None
        model.to(narrow)
        model.perception = head
    if chosen == "int8":
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at every layer that it casts its inputs
        quantise(model, "int8", device, torch.float32)
        model.eval()
    return model, processor, card
