"""A frozen language model's matrices to 8 or 4 bits a weight through bitsandbytes, and back to floats after training.

QLoRA (Dettmers et al. 2023): adapters learn against the rounded weights. What is kept in the end are the rounded
weights as floats with the adapters added, which is the very model that was trained; adding the adapters to the weights
before rounding would make another one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from gastrovl.core.errors import CheckpointError, MissingExtraError

Kind = Literal["nf4", "int8"]
_LAYERS = ("Linear4bit", "Linear8bitLt")


def quantise(model: Any, kind: Kind, device: torch.device, dtype: torch.dtype) -> None:
    """Round the linear layers of the language model in place; the output layer keeps its floats.

    Args:
        model: A GastroVLForConditionalGeneration, before adapters are added.
        kind: `nf4` with doubly quantised scales, or `int8` with one scale a row.
        device: Where the weights are rounded and stay.
        dtype: What a 4-bit layer computes in.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    bnb = _bitsandbytes()
    language = model.get_decoder()
    for name, layer in [*language.named_modules()]:
        if type(layer) is nn.Linear:
            language.set_submodule(name, _rounded(bnb, layer, kind, dtype).to(device))
    setattr(model, "is_loaded_in_4bit" if kind == "nf4" else "is_loaded_in_8bit", True)  # which adapters PEFT makes


def merge_floats(model: Any) -> Any:
    """The plain float model that a quantised one with or without adapters is: rounded weights plus adapters.

    Args:
        model: As trained; a PEFT model or the model itself.
    """
    weights = {name: _float_weight(layer) for name, layer in model.named_modules() if _is_adapted(layer)}
    changed = {id(model.get_submodule(name).get_base_layer()): weight for name, weight in weights.items()}
    plain = model.unload() if hasattr(model, "unload") else model
    for name, layer in [*plain.named_modules()]:
        if _is_rounded(layer):
            plain.set_submodule(name, _float_layer(layer, changed.get(id(layer))))
    plain.is_loaded_in_4bit = plain.is_loaded_in_8bit = False
    return plain


def is_quantised(model: Any) -> bool:
    """Whether any layer of a model, under adapters or not, is rounded."""
    return any(_is_rounded(layer) for layer in model.modules())


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's weights without rounded layers, which never change and are rounded anew by whoever reads."""
    left_out = _rounded_names(model)
    if not left_out:
        save_model(model, str(path))
        return
    save_file({name: value.contiguous() for name, value in _kept(model, left_out).items()}, path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Read what `save_weights` wrote into a model that is built and rounded alike.

    Raises:
        CheckpointError: The weights are those of another model.
    """
    left_out = _rounded_names(model)
    if not left_out:
        load_model(model, path)
        return
    content = load_file(path)
    kept = set(_kept(model, left_out))
    if kept != set(content):
        raise CheckpointError(
            f"{path}: holds {len(content)} tensors, {len(kept ^ set(content))} of them or of the model's {len(kept)} "
            "without a partner; it was written by another model, start the stage anew"
        )
    model.load_state_dict(content, strict=False)


def _kept(model: nn.Module, left_out: tuple[str, ...]) -> dict[str, Tensor]:
    """A model's tensors by name, each shared one once."""
    seen: set[tuple[int, torch.Size]] = set()
    kept: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        place = (value.data_ptr(), value.shape)
        if not name.startswith(left_out) and (place not in seen or not value.numel()):
            seen.add(place)
            kept[name] = value
    return kept


def _rounded_names(model: nn.Module) -> tuple[str, ...]:
    return tuple(f"{name}." for name, layer in model.named_modules() if _is_rounded(layer) and not _is_adapted(layer))


def _is_rounded(layer: nn.Module) -> bool:
    return type(layer).__name__ in _LAYERS and type(layer).__module__.startswith("bitsandbytes")


def _is_adapted(layer: Any) -> bool:
    """Whether a layer is PEFT's, around a rounded one."""
    return hasattr(layer, "get_delta_weight") and _is_rounded(layer.get_base_layer())


def _rounded(bnb: Any, layer: nn.Linear, kind: Kind, dtype: torch.dtype) -> nn.Module:
    shape = (layer.in_features, layer.out_features, layer.bias is not None)
    new: Any
    if kind == "nf4":
        new = bnb.nn.Linear4bit(*shape, compute_dtype=dtype, quant_type="nf4")
        # Else it repacks itself on some CPUs at the first evaluation and rounds its scales once more: another model.
        new.support_avx512bf16_for_cpu = False
        new.weight = bnb.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    else:
        new = bnb.nn.Linear8bitLt(*shape, has_fp16_weights=False)
        new.weight = bnb.nn.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    new.bias = layer.bias
    rounded: nn.Module = new.train(layer.training)
    return rounded


def _float_weight(layer: Any) -> Tensor:
    """What a rounded layer with adapters multiplies by, float32."""
    weight = _floats(layer.get_base_layer())
    for adapter in layer.active_adapters:
        weight = weight + layer.get_delta_weight(adapter).to(weight)
    return weight


def _floats(layer: Any) -> Tensor:
    """A rounded layer's weight as float32, (out, in)."""
    if type(layer).__name__ == "Linear4bit":
        found: Tensor = _bitsandbytes().functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        return found.float()
    scale = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB  # it moves in the first call
    return layer.weight.data.float() * (scale / 127.0).unsqueeze(1)


def _float_layer(layer: Any, weight: Tensor | None) -> nn.Linear:
    weight = _floats(layer) if weight is None else weight
    new = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device=weight.device)
    with torch.no_grad():
        new.weight.copy_(weight)
        if layer.bias is not None:
            new.bias.copy_(layer.bias)
    return new


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise MissingExtraError(
            "quantise: the library bitsandbytes is not installed; "
            'install it with `pip install "gastrovl[quant]"`, or leave `quantise` out'
        ) from error
    return bitsandbytes
