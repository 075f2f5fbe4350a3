"""Images to what all questions about them share: tower features, image tokens, and keys and values of the prefix.

A prompt begins with the image, so the language model's keys and values up to the image's last token are those of every
question about it: they are worked out once, and so are the tower's features, which the perception head reads. The
pass that works them out may read a first prompt about each image to its end. Images are told apart by their pixels as
the model sees them, so that copies of one image are one image here.
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
from gastrovl.core.types import Box
from gastrovl.inference.decoding.rowcache import KeysValues, cache_argument, growing_cache, layers_of
from gastrovl.model.fusion.cross_attention import image_keys
from gastrovl.model.fusion.projector import pool_regions
from gastrovl.model.gastrovl import GastroVLForConditionalGeneration, merge_image_features
from gastrovl.model.processor import GastroVLProcessor, region_boxes

REMEMBERED = 8  # images kept from one call to the next
_TOGETHER = 32  # images in one pass


@dataclass(frozen=True)
class Prompt:
    """One row: whose image, the prompt's tokens, and the boxes asked about, or the images that are shown behind it."""

    key: bytes
    ids: Sequence[int]
    regions: tuple[Box, ...] = ()
    further: tuple[bytes, ...] = ()


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
        self._shown: dict[int, tuple[Image.Image, bytes]] = {}  # by the object's id, which stays its own that long
        self._pad = int(processor.tokenizer.pad_token_id)
        prompt = processor.encode_prompt([("user", "?")])
        self.length = prompt.index(processor.image_token_id) + processor.image_tokens
        self._ids = prompt[: self.length]

    def keys(self, images: Sequence[Image.Image]) -> list[bytes]:
        """A key for each image; the same object is looked at once, until `forget`."""
        for image in images:
            if id(image) not in self._shown:
                square = self.processor.square(image)
                key = hashlib.blake2b(square.tobytes(), digest_size=16).digest()
                self._known.setdefault(key, _Known(square))
                self._known.move_to_end(key)
                self._shown[id(image)] = image, key
        return [self._shown[id(image)][1] for image in images]

    def forget(self) -> None:
        """Keep the last images only, and of those nothing that holds a whole batch in memory.

        To be called when a batch is answered: its images are not looked at again before.
        """
        self._shown.clear()
        while len(self._known) > self.remembered:
            self._known.popitem(last=False)
        for one in self._known.values():
            one.features, one.tokens, one.gates = _own(one.features), _own(one.tokens), _own(one.gates)
            if one.layers is not None and one.layers[0][0]._is_view():
                one.layers = [(keys.clone(), values.clone()) for keys, values in one.layers]

    def clear(self) -> None:
        """Forget every image, as has to be done when the model's weights have changed."""
        self._shown.clear()
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
        for some in self._without(keys, "tokens"):
            for key, tokens in zip(some, self.model.model.project(self.features(some)), strict=True):
                self._known[key].tokens = tokens
        return torch.stack([_there(self._known[key].tokens) for key in keys])

    def gates(self, keys: Sequence[bytes]) -> Tensor | None:
        """Keys and values for gated cross-attention of each; None for a model without."""
        if not len(self.model.model.gated_blocks):
            return None
        for some in self._without(keys, "gates"):
            for key, gates in zip(some, image_keys(self.model.model.gated_blocks, self.tokens(some)), strict=True):
                self._known[key].gates = gates
        return torch.stack([_there(self._known[key].gates) for key in keys])

    def layers(self, keys: Sequence[bytes]) -> list[KeysValues]:
        """Keys and values of the shared tokens of each, layer by layer, (keys, heads, shared, head width)."""
        for some in self._without(keys, "layers"):
            self._read(some)
        each = [self._known[key].layers or [] for key in keys]
        return [
            (torch.stack([one[0] for one in layer]), torch.stack([one[1] for one in layer]))
            for layer in zip(*each, strict=True)
        ]

    def is_read(self, key: bytes) -> bool:
        """Whether the language model has read the shared tokens of an image."""
        return self._known[key].layers is not None

    def begin(self, prompts: Sequence[Prompt]) -> Tensor:
        """Prompts about images not read yet, no two about one, to the states their replies would begin in.

        One pass reads images and words; the images count as read afterwards.

        Returns:
            (prompts, text width).
        """
        parts = [prompts[start : start + _TOGETHER] for start in range(0, len(prompts), _TOGETHER)]
        return torch.cat([self._read([prompt.key for prompt in part], part) for part in parts])

    def embedded(self, prompts: Sequence[Prompt], ids: Tensor) -> Tensor:
        """Words of what follows the images of prompts, (rows, length), each box with what it encloses behind it.

        As `GastroVLModel.with_regions` has it; further images stand among the words of their own rows. Returns (rows,
        length, text width).
        """
        words: Tensor = self.model.get_input_embeddings()(ids)
        boxes = region_boxes([prompt.regions for prompt in prompts])
        is_bare = boxes is None and not any(prompt.further for prompt in prompts)
        if is_bare or len(self.model.model.gated_blocks):
            return words
        among: list[Tensor] = []  # row by row, each of which has either boxes or images
        pooled = None
        if boxes is not None:
            boxes = boxes.to(words.device)
            tokens = self.tokens([prompt.key for prompt in prompts])
            pooled = pool_regions(tokens, boxes.nan_to_num(), self.model.config.token_grid_side())
        for row, prompt in enumerate(prompts):
            if pooled is not None:
                among.append(pooled[row, : len(prompt.regions)])
            if prompt.further:
                among.append(self.tokens(prompt.further).flatten(0, 1))
        return merge_image_features(words, torch.cat(among), ids == self.processor.image_token_id)

    def _without(self, keys: Sequence[bytes], what: str) -> list[list[bytes]]:
        """Those of which something is not known yet, in batches."""
        left = [key for key in dict.fromkeys(keys) if getattr(self._known[key], what) is None]
        return [left[start : start + _TOGETHER] for start in range(0, len(left), _TOGETHER)]

    def _read(self, keys: Sequence[bytes], prompts: Sequence[Prompt] = ()) -> Tensor:
        """Run the language model over the shared tokens of images, and on over the rest of a prompt about each.

        What follows is padded on the right, which no token before looks at. Returns the last states, (keys, width).
        """
        trunk, device = self.model.model, self.model.device
        gates, tokens = self.gates(keys), self.tokens(keys)
        ids = torch.tensor([self._ids] * len(keys), device=device)
        embedded = self.model.get_input_embeddings()(ids)
        if gates is None:
            embedded = merge_image_features(embedded, tokens.flatten(0, 1), ids == self.processor.image_token_id)
        suffixes = [self.suffix(prompt.ids) for prompt in prompts] or [[]] * len(keys)
        lengths = [self.length + len(suffix) for suffix in suffixes]
        if prompts:
            longest = max(map(len, suffixes))
            after = torch.tensor([one + [self._pad] * (longest - len(one)) for one in suffixes], device=device)
            embedded = torch.cat([embedded, self.embedded(prompts, after)], dim=1)
        cache = growing_cache()
        said: Tensor = trunk.language_model(
            inputs_embeds=embedded,
            position_ids=torch.arange(embedded.shape[1], device=device).unsqueeze(0),
            use_cache=True,
            **{cache_argument(trunk.language_model): cache},
            **trunk.gating(None, gates),
        ).last_hidden_state
        layers = [tuple(one[:, :, : self.length] for one in layer) for layer in layers_of(cache)]
        for row, key in enumerate(keys):
            self._known[key].layers = [(keys[row], values[row]) for keys, values in layers]
        return said[torch.arange(len(said), device=device), torch.tensor(lengths, device=device) - 1]


def _own(tensor: Tensor | None) -> Tensor | None:
    """The tensor, without the batch that it is a part of."""
    return tensor.clone() if tensor is not None and tensor._is_view() else tensor


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
