"""A model that lies in pieces on several devices (FSDP, ZeRO-3) as one whole set of weights, and back.

Under plain data parallelism every process holds all weights and nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from gastrovl.core.errors import ConfigError
from gastrovl.model import adapters
from gastrovl.model.quantise import is_quantised
from gastrovl.training.config import StageConfig

_ASKED = {  # what `accelerate launch` sets for each way of sharding
    "ACCELERATE_USE_FSDP": DistributedType.FSDP,
    "ACCELERATE_USE_DEEPSPEED": DistributedType.DEEPSPEED,
}


def check(accelerator: Any, model: Any, stage: StageConfig) -> None:
    """Check that the way of sharding that was asked for is in use and fits the stage, and tell FSDP the model's blocks.

    Raises:
        ConfigError: It is not: accelerate says nothing when, without a GPU, it replicates where it should shard. Or the
            stage keeps weights of its own, or rounded ones, which do not come in pieces here.
    """
    for variable, kind in _ASKED.items():
        is_asked = os.environ.get(variable, "false").lower() in ("true", "1")
        if is_asked and accelerator.distributed_type != kind:
            raise ConfigError(
                f"accelerate was asked for {kind.value} ({variable}), but set up {accelerator.distributed_type.value} "
                f"on {accelerator.device.type}; sharding needs several GPUs. Launch with configs/accelerate/ddp.yaml, "
                "which runs on CPUs too, or run this on GPUs"
            )
    asked = {"ema": stage.ema, "early_stop": stage.early_stop, "quantise": is_quantised(model)}
    check_whole(accelerator, stage.name, [name for name, value in asked.items() if value])
    _name_blocks(accelerator, model)


def check_whole(accelerator: Any, stage: str, needs: Sequence[str]) -> None:
    """Check that each process holds all weights where a stage uses settings that need them.

    Raises:
        ConfigError: The model lies in pieces, and one of `needs` is used.
    """
    if needs and is_sharded(accelerator):
        raise ConfigError(
            f"stage {stage!r}: {', '.join(needs)} cannot be used while {accelerator.distributed_type.value} lays the "
            "model in pieces; leave it out, or launch with configs/accelerate/ddp.yaml"
        )


def _name_blocks(accelerator: Any, model: Any) -> None:
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
        state: dict[str, Any] = accelerator.get_state_dict(model) or {}
    else:
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state.items()}


def expect_whole_models() -> None:
    """Have transformers build models whole again; under ZeRO-3 it builds them in pieces until a stage has ended."""
    unset_hf_deepspeed_config()


def take_whole_state(model: Any, state: dict[str, Any]) -> None:
    """Give a sharded model the weights that the first process holds; every process has to come."""
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
