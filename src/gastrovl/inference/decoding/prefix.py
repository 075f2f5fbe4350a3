"""Images to what all questions about them share: tower features, image tokens, and keys and values of the prefix.

A prompt begins with the image, so the language model's keys and values up to the image's last token are those of every
question about it: they are worked out once, and so are the tower's features, which the perception head reads. Images
are told apart by their pixels as the model sees them, so that copies of one image are one image here.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gastrovl.core.errors import ModelInputError
from gastrovl.inference.decoding.rowcache import KeysValues, cache_argument, growing_cache, layers_of
from gastrovl.model.fusion.cross_attention import image_keys
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration, merge_image_features
from gastrovl.model.processor import GastroVLProcessor

REMEMBERED = 8  # images kept from one call to the next
_TOGETHER = 32  # images in one pass


@dataclass
class _Known:
    """What is known of one image so far."""

    square: NDArray[np.uint8]
    features: Tensor | None = None  # (cells, tower width)
    tokens: Tensor | None = None  # (image tokens, text width)
    gates: Tensor | None = None  # of gated cross-attention
    layers: list[KeysValues] | None = None  # each (heads, prefix, head width)


class SharedImages:
    """What was worked out of images, by their keys."""

    def __init__(
        self, model: GastroVLForConditionalGeneration, processor: GastroVLProcessor, remembered: int = REMEMBERED
    ) -> None:
        self.model, self.processor, self.remembered = model, processor, remembered
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        prompt = processor.encode_prompt([("user", "?")])
        self.length = prompt.index(processor.image_token_id) + processor.image_tokens
        self._ids = prompt[: self.length]

    def keys(self, images: Sequence[Image.Image]) -> list[bytes]:
        """A key for each image; the same object is looked at once."""
        by_object: dict[int, bytes] = {}
        for image in images:
            if id(image) not in by_object:
                square = self.processor.square(image)
                key = hashlib.blake2b(square.tobytes(), digest_size=16).digest()
                self._known.setdefault(key, _Known(square))
                self._known.move_to_end(key)
                by_object[id(image)] = key
        return [by_object[id(image)] for image in images]

    def forget(self) -> None:
        """Keep the last images only, and of those nothing that holds a whole batch in memory."""
        while len(self._known) > self.remembered:
            self._known.popitem(last=False)
        for one in self._known.values():
            one.features, one.tokens, one.gates = _own(one.features), _own(one.tokens), _own(one.gates)
            if one.layers is not None and one.layers[0][0]._is_view():
                one.layers = [(keys.clone(), values.clone()) for keys, values in one.layers]

    def clear(self) -> None:
        """Forget every image, as has to be done when the model's weights have changed."""
        self._known.clear()

    def suffix(self, prompt: Sequence[int]) -> list[int]:
        """What of a prompt's tokens follows the shared ones.

        Raises:
            ModelInputError: The prompt begins otherwise.
        """
        if list(prompt[: self.length]) != self._ids:
            raise ModelInputError(
                "the chat template begins this prompt differently from others, so that no prefix is shared; expected "
                "the same words before every image"
            )
        return list(prompt[self.length :])

    def features(self, keys: Sequence[bytes]) -> Tensor:
        """What the tower says of each, (keys, cells, tower width)."""
        for some in self._without(keys, "features"):
            squares = np.stack([self._known[key].square for key in some])
            pixels = self.processor.pixels(squares).to(self.model.device, self.model.dtype)
            for key, features in zip(some, self.model.model.tower_features(pixels), strict=True):
                self._known[key].features = features
        return torch.stack([_there(self._known[key].features) for key in keys])

    def tokens(self, keys: Sequence[bytes]) -> Tensor:
        """The tokens of each, (keys, image tokens, text width)."""
        self._encode(keys)
        return torch.stack([_there(self._known[key].tokens) for key in keys])

    def shown(self, keys: Sequence[bytes]) -> Tensor:
        """The tokens of each for any place behind the prefix, (keys, image tokens, text width)."""
        return self.model.model.project(self.features(keys))

    def gates(self, keys: Sequence[bytes]) -> Tensor | None:
        """Keys and values for gated cross-attention of each; None for a model without."""
        if not len(self.model.model.gated_blocks):
            return None
        self._encode(keys)
        return torch.stack([_there(self._known[key].gates) for key in keys])

    def layers(self, keys: Sequence[bytes]) -> list[KeysValues]:
        """Keys and values of the shared tokens of each, layer by layer, (keys, heads, shared, head width)."""
        self._encode(keys)
        each = [self._known[key].layers or [] for key in keys]
        return [
            (torch.stack([one[0] for one in layer]), torch.stack([one[1] for one in layer]))
            for layer in zip(*each, strict=True)
        ]

    def _without(self, keys: Sequence[bytes], what: str) -> list[list[bytes]]:
        """Those of which something is not known yet, in batches."""
        left = [key for key in dict.fromkeys(keys) if getattr(self._known[key], what) is None]
        return [left[start : start + _TOGETHER] for start in range(0, len(left), _TOGETHER)]

    def _encode(self, keys: Sequence[bytes]) -> None:
        """Run the language model over the shared tokens of those of which it has not been done."""
        trunk = self.model.model
        for some in self._without(keys, "layers"):
            tokens = trunk.project(self.features(some))
            ids = torch.tensor([self._ids] * len(some), device=tokens.device)
            embedded = self.model.get_input_embeddings()(ids)
            gates = image_keys(trunk.gated_blocks, tokens) if len(trunk.gated_blocks) else None
            if gates is None:
                is_image = ids == self.processor.image_token_id
                embedded = merge_image_features(embedded, tokens.flatten(0, 1), is_image)
            cache = growing_cache()
            trunk.language_model(
                inputs_embeds=embedded,
                position_ids=torch.arange(self.length, device=tokens.device).unsqueeze(0),
                use_cache=True,
                **{cache_argument(trunk.language_model): cache},
                **trunk.gating(None, gates),
            )
            layers = layers_of(cache)
            for row, key in enumerate(some):
                one = self._known[key]
                one.tokens, one.gates = tokens[row], None if gates is None else gates[row]
                one.layers = [(keys[row], values[row]) for keys, values in layers]


def _own(tensor: Tensor | None) -> Tensor | None:
    """The tensor, without the batch that it is a part of."""
    return tensor.clone() if tensor is not None and tensor._is_view() else tensor


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
