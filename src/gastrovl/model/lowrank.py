"""A frozen linear layer with a low-rank adapter as matrix products alone, forward and backward.

PEFT scales and adds the adapter's output as tensors of the layer's full width, and so does their backward pass; on a
CPU these passes over memory take as long as the adapter's products themselves. Scaled at its rank and added by the
product that makes it, the same sum (Hu et al., ICLR 2022) needs none of them.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor, nn


def fuse_adapters(model: nn.Module) -> int:
    """Have the adapters of a PEFT model compute so wherever it is the same; returns how many layers do.

    Adapters that are switched off, merged, more than one, of another kind, or on a layer that is rounded, trains itself
    or lies in pieces, go PEFT's own way, call by call.
    """
    from peft.tuners.lora.layer import Linear

    layers = [module for module in model.modules() if type(module) is Linear and type(module.base_layer) is nn.Linear]
    for layer in layers:
        layer.forward = types.MethodType(_forward, layer)
    return len(layers)


def _forward(layer: Any, x: Tensor, *others: Any, **named: Any) -> Tensor:
    names = layer.active_adapters
    base = layer.base_layer
    is_plain = not (others or named or layer.disable_adapters or layer.merged or base.weight.requires_grad)
    if not is_plain or len(names) != 1 or names[0] not in layer.lora_A or names[0] in layer.lora_variant:
        return type(layer).forward(layer, x, *others, **named)
    down, up, dropout = (getattr(layer, part)[names[0]] for part in ("lora_A", "lora_B", "lora_dropout"))
    if any(hasattr(part.weight, "ds_id") for part in (base, down, up)) or down.bias is not None or up.bias is not None:
        return type(layer).forward(layer, x)
    drops = isinstance(dropout, nn.Dropout) and dropout.training and dropout.p > 0
    function: Any = _Adapted
    found: Tensor = function.apply(
        x, dropout(x) if drops else None, base.weight, base.bias, down.weight, up.weight, layer.scaling[names[0]]
    )
    return found


class _Adapted(torch.autograd.Function):
    """x @ weight.T + bias + scaling * (dropped @ down.T) @ up.T, where `weight` and `bias` are frozen.

    x: (..., inputs). dropped: as x, or None where it is x. weight: (outputs, inputs). down: (rank, inputs).
    up: (outputs, rank).
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        read = flat if dropped is None else dropped.reshape(flat.shape).to(dtype)
        frozen = weight.to(dtype).T
        found = flat @ frozen if bias is None else torch.addmm(bias.to(dtype), flat, frozen)
        low = (read @ down.to(dtype).T).mul_(scaling)
        found.addmm_(low, up.to(dtype).T)
        ctx.save_for_backward(read, low, weight, down, up)
        ctx.scaling, ctx.shape, ctx.drops = scaling, x.shape, dropped is not None
        return found.reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        read, low, weight, down, up = ctx.saved_tensors
        dtype = read.dtype
        flat = slope.reshape(-1, slope.shape[-1]).to(dtype)
        by_low = (flat @ up.to(dtype)).mul_(ctx.scaling)
        by_x, by_dropped = None, None
        if ctx.needs_input_grad[0]:
            by_x = flat @ weight.to(dtype)
            if not ctx.drops:
                by_x.addmm_(by_low, down.to(dtype))
            by_x = by_x.reshape(ctx.shape)
        if ctx.drops and ctx.needs_input_grad[1]:
            by_dropped = (by_low @ down.to(dtype)).reshape(ctx.shape)
        by_down = (by_low.T @ read).to(down.dtype) if ctx.needs_input_grad[4] else None
        by_up = (flat.T @ low).to(up.dtype) if ctx.needs_input_grad[5] else None
        return by_x, by_dropped, None, None, by_down, by_up, None
