"""Keys and values of prompts to a cache with room for what is to come, which is written in place and loses rows."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

KeysValues = tuple[Tensor, Tensor]  # of one layer, each (rows, heads, length, head width)


class _RoomyLayer(DynamicLayer):
    """A layer whose tensors are made once: one that grows by concatenation copies all rows at every token."""

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()
        length = keys.shape[2]
        self._room = tuple(one.new_empty(*one.shape[:2], length + room, one.shape[3]) for one in (keys, values))
        for roomy, one in zip(self._room, (keys, values), strict=True):
            roomy[:, :, :length] = one
        self._show(length)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeysValues:
        """All keys and values so far, the new ones last."""
        del args, kwargs
        begin = self.keys.shape[2]
        end = begin + key_states.shape[2]
        for roomy, new in zip(self._room, (key_states, value_states), strict=True):
            roomy[:, :, begin:end] = new
        self._show(end)
        return self.keys, self.values

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        length = self.keys.shape[2]
        self._room = tuple(one.index_select(0, rows) for one in self._room)
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (one[:, :, :length] for one in self._room)


def roomy_cache(layers: Sequence[KeysValues], room: int) -> Cache:
    """A cache that begins with these layers and takes `room` more tokens."""
    return Cache(layers=[_RoomyLayer(keys, values, room) for keys, values in layers])


def growing_cache(layers: Sequence[KeysValues] = ()) -> Cache:
    """A cache that begins with these layers, which stay as they are."""
    if not layers:
        return Cache(layer_class_to_replicate=DynamicLayer)
    found = []
    for keys, values in layers:
        layer = DynamicLayer()
        layer.keys, layer.values = keys, values
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        found.append(layer)
    return Cache(layers=found)


def layers_of(cache: Cache) -> list[KeysValues]:
    """What a cache holds, layer by layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def keep_rows(cache: Cache, rows: Tensor) -> None:
    """Go on with these rows of a roomy cache only."""
    for layer in cache.layers:
        layer.keep(rows)


def cache_argument(language_model: torch.nn.Module) -> str:
    """The name by which a language model takes its cache; transformers 5.20 gave it another one."""
    return "cache" if "cache" in inspect.signature(type(language_model).forward).parameters else "past_key_values"
