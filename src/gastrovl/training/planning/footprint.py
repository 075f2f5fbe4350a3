"""A stage's model without weights to what one image costs: operations, and bytes that the backward pass keeps.

The real modules run on tensors that have a shape and no storage (torch's meta device and fake tensors), so frozen
parts, adapters, shared keys and mixed precision cost what they cost in training, and a model of 8 B parameters is
measured in a few MB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from gastrovl.model import adapters
from gastrovl.model.packed.shared_prefix import Backend, answering_states
from gastrovl.training.config import Part, StageConfig
from gastrovl.training.planning.lengths import RowShape
from gastrovl.training.stages import open_parts, part_of

_FLOAT = 4
_ATEN = torch.ops.aten


@dataclass(frozen=True)
class PartSize:
    """Parameters of one part, and how many of them the stage trains."""

    part: Part
    parameters: int
    trainable: int


@dataclass(frozen=True)
class Footprint:
    """What a stage costs for each image (one row of the batch), and once for each batch.

    Attributes:
        parts: Of vision, projector, language and lora, as far as the model has them.
        spare_parameters: Of no part; adapters keep a copy of the connector as it was.
        tower_flops: Of one image through the vision tower, forward.
        forward_flops, backward_flops: Of one row through what runs in every step (the tower only if it does).
        language_flops: The part of `forward_flops` that gradient checkpointing computes twice.
        kept_bytes: Kept for the backward pass from one row, without the output layer's.
        kept_once_bytes: Kept however many rows there are: above all the weights' copies in bfloat16.
        language_kept_bytes: The part of `kept_bytes` that gradient checkpointing computes anew.
        tower_bytes: Hidden states of one image that the tower holds while it runs, all of its blocks'.
        layers: Blocks of the language model; 0 when it does not run.
        block_parameters: Parameters of its largest block, which FSDP holds whole while it computes.
        width, vocabulary: Of the language model.
    """

    parts: tuple[PartSize, ...]
    spare_parameters: int
    tower_flops: int
    forward_flops: int
    backward_flops: int
    language_flops: int
    kept_bytes: int
    kept_once_bytes: int
    language_kept_bytes: int
    tower_bytes: int
    layers: int
    block_parameters: int
    width: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """All that lie in memory."""
        return sum(part.parameters for part in self.parts) + self.spare_parameters

    @property
    def trainable(self) -> int:
        """Of all parts."""
        return sum(part.trainable for part in self.parts)


@dataclass(frozen=True)
class _Cost:
    """One pass over some rows."""

    tower: int
    forward: int
    backward: int
    language: int
    kept: int
    language_kept: int


def footprint(
    model: Any, stage: StageConfig, row: RowShape, *, is_mixed: bool, is_tower_cached: bool, has_layout: bool
) -> Footprint:
    """Measure a stage; the model's parameters are opened and frozen as the stage does it.

    Args:
        model: On the meta device, with the adapters and the training heads that the run adds.
        row: How long rows are.
        is_mixed: Whether the stage computes in bfloat16 beside float32 weights.
        is_tower_cached: Whether the tower's features are read instead of computed.
        has_layout: Whether attention runs over the laid out tokens of `shared_prefix` (CPU) or under a mask (GPU).

    Raises:
        ConfigError: A part that the stage trains is not in the model.
    """
    open_parts(model, stage)
    parts = _sizes(model)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    _give_shapes(model, mode)
    inner = adapters.inner(model)
    few, many = (8, 24) if has_layout else (1, 2)  # a layout rounds its tokens up, which has to even out
    first, second = (
        _trace(inner, stage, row, mode, rows, is_mixed, is_tower_cached, has_layout) for rows in (few, many)
    )

    def per_row(name: str) -> int:
        return int(getattr(second, name) - getattr(first, name)) // (many - few)

    text = inner.config.text_config
    runs_language = bool(stage.answer_weight or stage.contrastive_weight)
    blocks = _blocks(inner.model.language_model)
    return Footprint(
        parts=parts,
        spare_parameters=sum(p.numel() for name, p in model.named_parameters() if part_of(name) is None),
        tower_flops=first.tower,
        forward_flops=per_row("forward"),
        backward_flops=per_row("backward"),
        language_flops=per_row("language"),
        kept_bytes=per_row("kept"),
        kept_once_bytes=max(0, first.kept - few * per_row("kept")),
        language_kept_bytes=per_row("language_kept"),
        tower_bytes=0 if is_tower_cached else _tower_bytes(inner.model),
        layers=len(blocks) if runs_language else 0,
        block_parameters=max((sum(p.numel() for p in block.parameters()) for block in blocks), default=0),
        width=text.hidden_size,
        vocabulary=text.vocab_size,
    )


def _sizes(model: nn.Module) -> tuple[PartSize, ...]:
    total, trainable = dict.fromkeys(Part, 0), dict.fromkeys(Part, 0)
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part is None:
            continue
        total[part] += parameter.numel()
        trainable[part] += parameter.numel() if parameter.requires_grad else 0
    return tuple(PartSize(part, total[part], trainable[part]) for part in Part if total[part])


def _blocks(language_model: nn.Module) -> list[nn.Module]:
    """The blocks of a decoder: its longest list of modules."""
    lists = [list(module) for module in language_model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def _tower_bytes(model: Any) -> int:
    blocks = getattr(model.config.vision_config, "num_hidden_layers", 1)
    return int(blocks + 1) * (model.shape.tokens + model.shape.prefix) * model.shape.width * _FLOAT


def _give_shapes(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace every tensor by one of the same shape that claims to lie on the CPU; shared ones stay shared."""
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def replaced(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            with mode:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = (tensor, nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty)
        return made[id(tensor)][1]

    for module in model.modules():
        for tensors in cast("tuple[dict[str, Any], ...]", (module._parameters, module._buffers)):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = replaced(tensor)


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of attention from shapes (rows, heads, length, width): two products."""
    rows, heads, queries, width = query
    return int(2 * rows * heads * queries * key[2] * (width + value[3]))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """The scores anew, and two products for each of the two."""
    del gradient
    rows, heads, queries, width = query
    return int(2 * rows * heads * queries * key[2] * (3 * width + 2 * value[3]))


# torch counts the attention kernels of GPUs only; that of CPUs is the same arithmetic.
_CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


class _Kept:
    """Bytes of the storages that autograd saves, the parameters' own left out."""

    def __init__(self, model: nn.Module) -> None:
        self._own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._seen: dict[int, Any] = {}  # the storages themselves, so that no address is used twice
        self.bytes = 0

    def note(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own and storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage
            self.bytes += storage.nbytes()
        return tensor


def _trace(
    model: Any,
    stage: StageConfig,
    row: RowShape,
    mode: FakeTensorMode,
    rows: int,
    is_mixed: bool,
    is_tower_cached: bool,
    has_layout: bool,
) -> _Cost:
    """Run forward and backward over `rows` rows of one shape."""
    kept, flops = _Kept(model), FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
    precision = torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_mixed)
    model.train()
    with flops, precision, torch.autograd.graph.saved_tensors_hooks(kept.note, lambda tensor: tensor):
        with mode:
            pixels = torch.empty(rows, 3, model.config.vision_config.image_size, model.config.vision_config.image_size)
        with torch.set_grad_enabled(stage.trains_tower):
            features = model.model.tower_features(pixels)
        tower = flops.get_total_flops()
        images = model.model.project(features)
        loss = images.sum() * 0.0
        if stage.grounding_weight and model.grounding is not None:
            loss = loss + _grounded(model.grounding, images)
        if stage.perception_weight and model.perception is not None:
            seen = model.perception.look(features)  # what it says of a few pairs is small beside what it keeps
            loss = loss + seen.keys.sum() + seen.cells.sum()
        before, kept_before = flops.get_total_flops(), kept.bytes
        if stage.contrastive_weight:
            loss = loss + _read(model, images[:, :0], row.caption, mode).sum()
        states = None
        if stage.answer_weight:
            states = _states(model, images, row, mode, has_layout)
        language, language_kept = flops.get_total_flops() - before, kept.bytes - kept_before
        kept_bytes = kept.bytes
        if states is not None:
            loss = loss + model.lm_head(states).float().sum()
        forward = flops.get_total_flops()
        loss.backward()
    for parameter in model.parameters():
        parameter.grad = None
    backward = flops.get_total_flops() - forward
    return _Cost(tower // rows, forward - tower * is_tower_cached, backward, language, kept_bytes, language_kept)


def _grounded(head: Any, images: Tensor) -> Tensor:
    """The readouts of the grounding head; its losses are small beside them, and need true boxes."""
    cells = images[:, : head.cells].float()
    weights = head.attention(cells).softmax(dim=1)
    summary: Tensor = head.summary((weights * cells).sum(dim=1))
    return summary.sum() + head.word(cells).sum() + head.box(cells).sigmoid().sum() + head.digits(cells).sum()


def _read(model: Any, images: Tensor, words: int, mode: FakeTensorMode) -> Tensor:
    """States of rows of `words` words behind images, under a mask over whole rows."""
    rows, tokens = images.shape[0], images.shape[1] + words
    with mode:
        ids = torch.empty(rows, words, dtype=torch.long)
        mask = torch.empty(rows, 1, tokens, tokens, dtype=torch.bool)
        positions = torch.empty(rows, tokens, dtype=torch.long)
    embedded = torch.cat([images, model.get_input_embeddings()(ids).to(images.dtype)], dim=1)
    states: Tensor = model.model.language_model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    return states


def _states(model: Any, images: Tensor, row: RowShape, mode: FakeTensorMode, has_layout: bool) -> Tensor:
    """States at the answers' positions, (rows * answers, width)."""
    rows, tokens = images.shape[0], images.shape[1]
    if not has_layout:
        states = _read(model, images, row.length - tokens, mode)
        return states[:, -row.answers :].flatten(0, 1)
    with mode:
        ids = torch.empty(rows, row.length - tokens, dtype=torch.long)
    embedded = torch.cat([images, model.get_input_embeddings()(ids).to(images.dtype)], dim=1)
    segments = torch.tensor(row.segments).expand(rows, -1)
    is_read = torch.zeros(rows, row.length, dtype=torch.bool)
    is_read[:, row.prefix : row.prefix + row.answers] = True
    positions = torch.arange(row.length).expand(rows, -1)
    return answering_states(model.model.language_model, embedded, positions, segments, is_read, Backend.GROUPS)
