"""Activations kept, or thrown away and worked out again in the backward pass: less memory for more time."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from gastrovl.model.packed.shared_prefix import attention_named

Choice = Literal["auto"] | bool
_ROOM = 0.9  # of the free memory, what a stage may take by the estimate before it recomputes


def set_checkpointing(model: Any, is_on: bool) -> None:
    """Recompute the blocks of tower and language model in the backward pass (Chen et al. 2016), or stop doing so.

    Args:
        model: A GastroVLForConditionalGeneration, without what wraps it for adapters.
    """
    config = model.get_decoder().config
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = is_on
            module._gradient_checkpointing_func = partial(_recomputed, config)


def keep_recomputing(model: Any) -> None:
    """Have the blocks of a frozen language model recompute too, although they are in evaluation mode.

    What feeds them learns through them, so their activations would be kept; transformers recomputes in training mode
    only. The blocks alone are put into it, not what they hold: no dropout wakes up.
    """
    for module in model.get_decoder().modules():
        if isinstance(module, nn.Module) and getattr(module, "gradient_checkpointing", False):
            module.training = True


def is_wanted(choice: Choice, needed_bytes: int | None, free_bytes: int | None) -> bool:
    """Whether a stage recomputes; `auto` does where it would not fit otherwise, and not where nothing is known.

    Args:
        needed_bytes: Estimate of what the stage takes when it keeps all activations.
        free_bytes: What the device has left before the stage.
    """
    if choice != "auto":
        return choice
    if needed_bytes is None or free_bytes is None:
        return False
    return needed_bytes > _ROOM * free_bytes


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a CUDA device or of this machine; None where nobody says."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system knows these names
        return None


def _recomputed(config: Any, call: Callable[..., Any], *args: Any) -> Any:
    return checkpoint(call, *args, use_reentrant=False, context_fn=partial(_contexts, config))


def _contexts(config: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What the forward pass runs in, and its repetition: the attention that packed rows had chosen for the former."""
    return nullcontext(), attention_named(config, config._attn_implementation)
