"""Conversations and images to tensors: one place for the prompt, the answer mask and the pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gastrovl.core.boxcoding import BoxCoding, BoxCodingConfig, SizeWH, unread
from gastrovl.core.boxtext import BOX_PATTERN, decode_box
from gastrovl.core.errors import BoxTextError, ModelInputError
from gastrovl.core.types import Box
from gastrovl.model.locations import LocationTokens
from gastrovl.model.tokenizer import IMAGE_TOKEN


@dataclass(frozen=True)
class Dialogue:
    """Token ids of one dialogue, whether each is part of an answer, and how many stand up to the image's last token.

    Attributes:
        regions: The boxes asked about, in their order; each is followed by a token of its own.
        places: Of each location token in an answer, in their order, the bin it should say, not rounded.
    """

    ids: list[int]
    is_answer: list[bool]
    prefix: int
    regions: tuple[Box, ...] = ()
    places: tuple[float, ...] = ()


class GastroVLProcessor:
    """Tokenizer and image processor of one model, used alike in training, inference and export.

    Attributes:
        image_tokens: How many times the image token is repeated for one image.
        has_regions: Whether a box in a question is followed by one more image token, for what it encloses.
        coding: How boxes are written for the model. Turns come in, and replies go out, as datasets write them.
        locations: The location tokens of coding `tokens`, else None.
    """

    def __init__(
        self,
        tokenizer: Any,
        image_processor: Any,
        image_tokens: int,
        *,
        has_regions: bool = False,
        coding: BoxCodingConfig | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.image_tokens = image_tokens
        self.has_regions = has_regions
        self.write_boxes_as(coding or BoxCodingConfig())
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)

    @property
    def image_size_px(self) -> int:
        return int(self.image_processor.size["height"])

    def write_boxes_as(self, coding: BoxCodingConfig) -> None:
        """Choose how boxes are written.

        Raises:
            TokenizerError: The tokenizer lacks the location tokens of the coding.
        """
        self.coding = BoxCoding(coding)
        self.locations = LocationTokens.of(self.tokenizer, coding)

    def encode_dialogue(
        self, turns: Sequence[tuple[str, str]], size_wh: SizeWH | None = None, exact: Mapping[str, Box] | None = None
    ) -> Dialogue:
        """A whole dialogue of (role, text) turns, the image before the first user turn.

        The tokenizer's template is used, not the processor's: with transformers < 5.18 that one loses the answer mask.

        Args:
            size_wh: Of the original image, in pixels; for boxes that are written in them.
            exact: The boxes themselves, by their text in `turns`, see `BoxCoding.encode_text`.

        Raises:
            ModelInputError: The chat template marks no answer.
            BoxTextError: A box in a question is reversed or leaves the image, and the model takes regions, or any box
                is so and is written in another coding.
        """
        coded, places = self._coded(turns, size_wh, exact)
        encoded = self.tokenizer.apply_chat_template(
            self._messages(coded), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        place, ids = self._with_image(encoded["input_ids"])
        mask = encoded["assistant_masks"]
        if not any(mask):
            raise ModelInputError(
                "the chat template marks no answer tokens; put the assistant's words between `{% generation %}` and "
                "`{% endgeneration %}`"
            )
        is_answer = [bool(flag) for flag in mask]
        is_answer[place:place] = [False] * (self.image_tokens - 1)
        return Dialogue(ids, is_answer, place + self.image_tokens, self.regions(turns), places)

    def encode_prompt(
        self, turns: Sequence[tuple[str, str]], size_wh: SizeWH | None = None, *, further: Sequence[int] = ()
    ) -> list[int]:
        """Token ids of a dialogue that ends with a user turn, ready for an answer.

        Args:
            further: Turns, by their places, before whose words one more image each is shown; then no turn may name a
                box to a model that takes regions.
        """
        messages = self._messages(self._coded(turns, size_wh)[0], further)
        encoded = self.tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=True, add_generation_prompt=True
        )
        if not further:
            return self._with_image(encoded["input_ids"])[1]
        repeats = {self.image_token_id: self.image_tokens}
        return [token for token in encoded["input_ids"] for _ in range(repeats.get(token, 1))]

    def regions(self, turns: Sequence[tuple[str, str]]) -> tuple[Box, ...]:
        """The boxes that user turns ask about, in their order; none when the model takes no regions.

        Raises:
            BoxTextError: A box is reversed or leaves the image.
        """
        texts = [text for role, text in turns if role == "user" and self.has_regions]
        return tuple(decode_box(found.group(0)) for text in texts for found in BOX_PATTERN.finditer(text))

    def decode(self, ids: Sequence[int], size_wh: SizeWH | None = None, places: Sequence[float] | None = None) -> str:
        """The text of generated ids, special tokens left out, stripped, with boxes as datasets write them.

        Where boxes are broken they stay as the model wrote them, see `boxcoding.unread`.

        Args:
            size_wh: Of the original image, in pixels.
            places: The bin of each location token in `ids`, not rounded, where more is known than the tokens say.
        """
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)).strip()
        if self.coding.is_plain:
            return text
        try:
            return self.coding.decode_text(text, size_wh, places)
        except BoxTextError:
            return unread(text)

    def square(self, image: Image.Image, side: int | None = None) -> NDArray[np.uint8]:
        """The image squashed to a square, uint8 (side, side, 3); the model's own size when `side` is None.

        Resized as the image processor itself does it, so that plain transformers gives the same pixels.
        """
        side = side or self.image_size_px
        resample = Image.Resampling(int(self.image_processor.resample))
        return np.asarray(image.convert("RGB").resize((side, side), resample))

    def pixels(self, squares: NDArray[np.uint8]) -> Tensor:
        """Normalised pixels of squares, (images, side, side, 3) uint8 to (images, 3, side, side) float32."""
        mean = torch.tensor(self.image_processor.image_mean).view(1, 3, 1, 1)
        deviation = torch.tensor(self.image_processor.image_std).view(1, 3, 1, 1)
        return (torch.from_numpy(squares).permute(0, 3, 1, 2).float() / 255 - mean) / deviation

    def beside(self, input_ids: Tensor) -> dict[str, Tensor]:
        """What the model takes beside (rows, length) ids and pixels to generate: nothing here."""
        del input_ids
        return {}

    def _coded(
        self, turns: Sequence[tuple[str, str]], size_wh: SizeWH | None, exact: Mapping[str, Box] | None = None
    ) -> tuple[Sequence[tuple[str, str]], tuple[float, ...]]:
        """Turns as the model reads and says them, and the places of the location tokens it says."""
        if self.coding.is_plain:
            return turns, ()
        coded: list[tuple[str, str]] = []
        places: list[float] = []
        for role, text in turns:
            said, boxes = self.coding.encode_text(text, size_wh, exact, sorts=role == "assistant")
            coded.append((role, said))
            if role == "assistant" and self.locations:
                places += [place for box in boxes for place in self.coding.places(box)]
        return coded, tuple(places)

    def _messages(self, turns: Sequence[tuple[str, str]], further: Sequence[int] = ()) -> list[dict[str, str]]:
        messages = [{"role": role, "content": text} for role, text in turns]
        if not messages or messages[0]["role"] != "user":
            raise ModelInputError(
                "a dialogue starts with a user turn; found " + (messages[0]["role"] if messages else "none")
            )
        for message in messages:
            if IMAGE_TOKEN in message["content"]:
                raise ModelInputError(f"a turn holds {IMAGE_TOKEN!r}; the image's place is set here, not in the text")
            if self.has_regions and message["role"] == "user":
                marked = self.coding.pattern.sub(lambda found: found.group(0) + IMAGE_TOKEN, message["content"])
                message["content"] = marked
        for place in (0, *further):
            messages[place]["content"] = IMAGE_TOKEN + "\n" + messages[place]["content"]
        return messages

    def _with_image(self, ids: Sequence[int]) -> tuple[int, list[int]]:
        """Where the image begins, and the ids with its token repeated; once in the text is faster to tokenise."""
        place = list(ids).index(self.image_token_id)
        return place, [*ids[:place], *[self.image_token_id] * self.image_tokens, *ids[place + 1 :]]


def name_ids(tokenizer: Any, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids of names as they stand within a text, and which of them are no padding, both (names, longest)."""
    rows = [tokenizer.encode(" " + name, add_special_tokens=False) for name in names]
    length, pad = max(len(row) for row in rows), int(tokenizer.pad_token_id)
    ids = [row + [pad] * (length - len(row)) for row in rows]
    return torch.tensor(ids), torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])


def region_boxes(regions: Sequence[Sequence[Box]]) -> Tensor | None:
    """Regions of several images as (images, most regions, 4) fractions, NaN where there is none; None without any."""
    most = max(len(boxes) for boxes in regions)
    if not most:
        return None
    empty = (math.nan,) * 4
    return torch.tensor([[*(box.xyxy for box in boxes), *[empty] * (most - len(boxes))] for boxes in regions])
