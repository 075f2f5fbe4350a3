"""How fast a step could be at best on this machine, by arithmetic, and whether two ways compute the same."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import FlopCounterMode

from gastrovl.model import adapters
from gastrovl.model.packed.shared_prefix import Backend
from gastrovl.training.rows.dataset import Collator
from training_ways import Dialogues, Made, Plain, Setting, device, make, padded, rows_of

_SIDE = 2048
_VIEWS = ("view", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze", "detach", "permute", "split", "t.")


class Traffic(TorchDispatchMode):
    """Bytes that the operations of a step read and write, each on its own, matrix products apart."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.product_bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), given: Any = None) -> Any:
        del types
        found = function(*arguments, **(given or {}))
        name = str(function)
        if not any(f"aten.{view}" in name or f"aten._{view}" in name for view in _VIEWS):
            leaves = tree_flatten((arguments, given, found))[0]
            moved = sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))
            if any(word in name for word in ("mm", "attention", "linear", "conv")):
                self.product_bytes += moved
            else:
                self.bytes += moved
        return found


def limits(setting: Setting) -> dict[str, Any]:
    """FLOPs and bytes of one step of ours and of the plain way, and this machine's peak rates."""
    made = make(setting)
    # PyTorch's counter does not know its own masked attention on a CPU; the plain way's is left uncounted
    adapters.inner(made.model).packed_attention = Backend.GROUPS if device() == "cpu" else Backend.AUTO
    ours, plain = our_batch(made, setting), plain_batch(made, setting)
    wrapped = Plain(made.model)
    found = {
        "ours": counted(lambda: made.model(**ours).loss.backward()),
        "trainer": counted(lambda: wrapped(**plain)["loss"].backward()),
    }
    return found | {"peak_flops": peak_flops(setting.precision), "peak_bytes_per_s": peak_bandwidth()}


def counted(step: Any) -> dict[str, float]:
    """FLOPs of the matrix products of a step, and bytes that pass memory."""
    with FlopCounterMode(display=False) as flops:
        step()
    with Traffic() as traffic:
        step()
    return {
        "flops": float(flops.get_total_flops()),
        "bytes": float(traffic.bytes),
        "product_bytes": float(traffic.product_bytes),
    }


def our_batch(made: Made, setting: Setting) -> dict[str, Any]:
    """The first images' rows, with cached features, on the device."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = rows_of(made, Path(folder))
        return on_device(Collator(made.processor, None)([dataset[index] for index in range(setting.images)]))


def plain_batch(made: Made, setting: Setting) -> dict[str, Any]:
    """The same dialogues, each a padded row of its own."""
    dataset = Dialogues(made)
    return on_device(padded(made, [dataset[index] for index in range(setting.batch)]))


def on_device(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(device()) for name, value in batch.items()}


def equality(setting: Setting) -> dict[str, float]:
    """Largest relative differences of loss and gradients between ours and the plain way, float32, same dialogues."""
    made = make(setting)
    made.model.train()
    loss = made.model(**our_batch(made, setting)).loss
    loss.backward()
    ours = {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}
    made.model.zero_grad()
    expected = Plain(made.model)(**plain_batch(made, setting))["loss"]
    expected.backward()
    plain = {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}
    assert ours.keys() == plain.keys()
    apart = sum(float((ours[name] - plain[name]).double().square().sum()) for name in plain) ** 0.5
    size = sum(float(slope.double().square().sum()) for slope in plain.values()) ** 0.5
    return {
        "loss": float(loss.detach()),
        "loss_relative": abs(float(loss.detach()) - float(expected.detach())) / float(expected.detach()),
        "gradient_relative": apart / size,
        "gradient_max_absolute": max(float((ours[name] - plain[name]).abs().max()) for name in plain),
    }


def peak_flops(precision: str) -> float:
    """FLOPs a second of a large matrix product here, the best of several."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    side = _SIDE if device() == "cpu" else 4 * _SIDE
    one, other = (torch.randn(side, side, device=device(), dtype=dtype) for _ in range(2))
    return 2 * side**3 / _fastest(lambda: one @ other)


def peak_bandwidth() -> float:
    """Bytes a second read and written by a large copy here, the best of several."""
    source = torch.empty(2**28 // 4, device=device())
    target = torch.empty_like(source)
    return 2 * 2**28 / _fastest(lambda: target.copy_(source))


def _fastest(run: Any) -> float:
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        run()
        if device() == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
