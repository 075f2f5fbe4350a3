"""A model that lies in pieces on several devices (FSDP, ZeRO-3) as one whole set of weights, and back.

Under plain data parallelism every process holds all weights and nothing here does anything.
"""

from __future__ import annotations

import os
from typing import Any

from accelerate.utils import DistributedType
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict

from gastrovl.core.errors import ConfigError
from gastrovl.model import adapters

_ASKED = {  # what `accelerate launch` sets for each way of sharding
    "ACCELERATE_USE_FSDP": DistributedType.FSDP,
    "ACCELERATE_USE_DEEPSPEED": DistributedType.DEEPSPEED,
}


def check_kind(accelerator: Any) -> None:
    """Check that the way of sharding that was asked for is the one in use.

    Raises:
        ConfigError: It is not. accelerate says nothing then: without a GPU it replicates where it should shard.
    """
    for variable, kind in _ASKED.items():
        is_asked = os.environ.get(variable, "false").lower() in ("true", "1")
        if is_asked and accelerator.distributed_type != kind:
            raise ConfigError(
                f"accelerate was asked for {kind.value} ({variable}), but set up {accelerator.distributed_type.value} on "
                f"{accelerator.device.type}; sharding needs several GPUs. Launch with configs/accelerate/ddp.yaml, which "
                "also runs on CPUs, or put this on GPUs"
            )


def name_blocks(accelerator: Any, model: Any) -> None:
    """Tell FSDP which of the model's layers it gathers one at a time.

    transformers lists them for all models of a family; accelerate refuses a list with a class that this one lacks.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.transformer_cls_names_to_wrap is None:
        present = {type(module).__name__ for module in model.modules()}
        plugin.transformer_cls_names_to_wrap = sorted(present & set(adapters.inner(model)._no_split_modules or ()))


def is_sharded(accelerator: Any) -> bool:
    """Whether no process holds all weights, or the wrapper is not ours to read."""
    return accelerator.distributed_type in _ASKED.values()


def whole_state(model: Any, accelerator: Any = None) -> dict[str, Tensor]:
    """All weights of a sharded model, on the CPU of the first process; every process has to ask, the others get none.

    Args:
        accelerator: The one that wrapped the model; needed for DeepSpeed, whose pieces only it can put together.
    """
    if accelerator is not None and accelerator.distributed_type == DistributedType.DEEPSPEED:
        state: dict[str, Tensor] = accelerator.get_state_dict(model) or {}
    else:
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def take_whole_state(model: Any, state: dict[str, Tensor]) -> None:
    """Give a sharded model the weights that the first process holds; every process has to come."""
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
