"""Conversations and images to the tensors of another's model: its own template and pixels, our squares and boxes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gastrovl.core.boxcoding import SizeWH
from gastrovl.core.errors import CheckpointError, ModelInputError
from gastrovl.core.types import Box
from gastrovl.model.processor import Dialogue, GastroVLProcessor
from gastrovl.model.published.families import Family, Preparation, Shown

_PROBE = [("user", "?"), ("assistant", "Yes.")]


class ForeignProcessor(GastroVLProcessor):
    """Tokenizer, chat template and image processor of a Hugging Face snapshot behind the interface of our own.

    Published templates seldom mark the assistant's words, so an answer is found as what follows the tokens of its
    prompt, up to and with the token that ends a turn. A template that writes no such token (LLaVA's) gets the
    tokenizer's end token behind each answer: a model that never sees an end never stops. `tokenizer.eos_token` is that
    token afterwards, whatever the snapshot calls its end.

    Attributes:
        folder: The snapshot, whose files for tokenizer and processor a checkpoint takes over.
    """

    def __init__(
        self, folder: Path, family: Family, config: Any, tokenizer: Any, prepared: Preparation, shown: Shown
    ) -> None:
        super().__init__(tokenizer, prepared, shown.tokens)
        self.folder, self.family, self._shown = folder, family, shown
        self.image_token_id = int(config.image_token_id)
        self.template = _read_template(folder, tokenizer)
        self._marker, self._written = family.written(tokenizer, config)
        self._ends_turns = True
        self._end_turns(_stops(folder, config, tokenizer))

    @property
    def image_size_px(self) -> int:
        return self._shown.side_px

    def encode_dialogue(
        self, turns: Sequence[tuple[str, str]], size_wh: SizeWH | None = None, exact: Mapping[str, Box] | None = None
    ) -> Dialogue:
        """A whole dialogue of (role, text) turns, up to the end of its last answer; boxes stay as they are written.

        Raises:
            ModelInputError: The template writes the tokens of a prompt differently once its answer follows, or there is
                no answer.
        """
        del size_wh, exact
        ids = self._ids(turns)
        is_answer, end = [False] * len(ids), 0
        for number, (role, _) in enumerate(turns):
            if role != "assistant":
                continue
            prompt = self._ids(turns[:number], asks=True)
            if ids[: len(prompt)] != prompt:
                raise ModelInputError(
                    f"{self.folder}: the chat template writes a prompt differently once an answer follows, so answers "
                    "cannot be told apart; give the folder a template whose prompt is the beginning of the dialogue"
                )
            if self.tokenizer.eos_token_id not in ids[len(prompt) :]:
                raise ModelInputError(
                    f"{self.folder}: the chat template writes no {self.tokenizer.eos_token!r} behind an answer, as it "
                    "does elsewhere, so a model would not learn to stop; give the folder a template that always does"
                )
            end = ids.index(self.tokenizer.eos_token_id, len(prompt)) + 1
            is_answer[len(prompt) : end] = [True] * (end - len(prompt))
        if not end:
            raise ModelInputError("a dialogue to learn from needs an answer; found user turns only")
        place, ids = self._with_image(ids[:end])
        is_answer[place:place] = [False] * (self.image_tokens - 1)
        return Dialogue(ids, is_answer[: len(ids)], place + self.image_tokens)

    def encode_prompt(
        self, turns: Sequence[tuple[str, str]], size_wh: SizeWH | None = None, *, further: Sequence[int] = ()
    ) -> list[int]:
        """Token ids of a dialogue that ends with a user turn, ready for an answer.

        Raises:
            ModelInputError: More than one image is shown.
        """
        del size_wh
        if further:
            raise ModelInputError(f"{self.folder}: prompts are written for one image here; found {1 + len(further)}")
        return self._with_image(self._ids(turns, asks=True))[1]

    def pixels(self, squares: NDArray[np.uint8]) -> Tensor:
        """Normalised pixels of squares, (images, side, side, 3) uint8, in the family's layout, float32."""
        pixels = super().pixels(squares)
        if self.family.layout == "listed":
            return pixels.unsqueeze(1)
        if self.family.layout == "patches":
            said = self.image_processor
            return merged_patches(pixels, said.patch_size, said.merge_size, said.temporal_patch_size)
        return pixels

    def beside(self, input_ids: Tensor) -> dict[str, Tensor]:
        """What the family's forward takes beside ids and pixels, for (rows, length) ids of one image each."""
        patches = self.image_size_px // self.image_processor.patch_size
        return self.family.beside(input_ids == self.image_token_id, patches)

    def _ids(self, turns: Sequence[tuple[str, str]], *, asks: bool = False) -> list[int]:
        """Tokens of a dialogue with the image's token once; with `asks`, up to where the next answer begins."""
        tokenizer = self.tokenizer
        text = tokenizer.apply_chat_template(
            self._said(turns), chat_template=self.template, tokenize=False, add_generation_prompt=asks
        )
        if text.count(self._marker) != 1:
            raise CheckpointError(
                f"{self.folder}: the chat template writes {self._marker!r} {text.count(self._marker)} times for one "
                "image, expected once; template, tokenizer and config.json are of different models"
            )
        text = text.replace(self._marker, self._written)
        has_begin = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
        ids: list[int] = tokenizer(text, add_special_tokens=not has_begin)["input_ids"]
        if ids.count(self.image_token_id) != 1:
            raise CheckpointError(
                f"{self.folder}: the tokenizer reads {self._written!r} without its image token "
                f"{self.image_token_id}; copy the tokenizer files that belong to the model"
            )
        return ids

    def _said(self, turns: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        if not turns or turns[0][0] != "user":
            raise ModelInputError("a dialogue starts with a user turn; found " + (turns[0][0] if turns else "none"))
        messages: list[dict[str, Any]] = []
        for role, text in turns:
            if self._marker in text or self._written in text:
                raise ModelInputError(f"a turn holds {self._marker!r}; the image's place is set here, not in the text")
            if role == "assistant" and not self._ends_turns:
                text = text + self.tokenizer.eos_token
            messages.append({"role": role, "content": [{"type": "text", "text": text}]})
        messages[0]["content"].insert(0, {"type": "image"})
        return messages

    def _end_turns(self, stops: Iterable[int]) -> None:
        """Find the token that ends an answer, and make it the tokenizer's end token."""
        marks = {token for token, word in self.tokenizer.added_tokens_decoder.items() if word.special} | set(stops)
        prompt, whole = self._ids(_PROBE[:1], asks=True), self._ids(_PROBE)
        written = [token for token in whole[len(prompt) :] if token in marks]
        self._ends_turns = bool(written)
        if written:
            self.tokenizer.eos_token = self.tokenizer.convert_ids_to_tokens(written[0])
        elif self.tokenizer.eos_token_id is None:
            raise CheckpointError(
                f"{self.folder}: neither chat template nor tokenizer says how an answer ends; set `eos_token` in "
                "tokenizer_config.json"
            )
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token


def merged_patches(pixels: Tensor, patch: int, merge: int, frames: int) -> Tensor:
    """Images as rows of one patch each, the patches that are merged into one token behind each other (Qwen2-VL).

    Args:
        pixels: (images, 3, side, side); the side is a multiple of patch * merge.
        frames: How often an image is repeated as the frames of a still video.

    Returns:
        (images * patches, 3 * frames * patch * patch).
    """
    images, channels, side, _ = pixels.shape
    cells = side // (patch * merge)
    parts = pixels.view(images, channels, cells, merge, patch, cells, merge, patch).permute(0, 2, 5, 3, 6, 1, 4, 7)
    parts = parts.unsqueeze(6).expand(*parts.shape[:6], frames, patch, patch)
    return parts.reshape(images * (side // patch) ** 2, channels * frames * patch * patch)


def _read_template(folder: Path, tokenizer: Any) -> str:
    """The chat template of a snapshot: a file of its own, older ones as JSON, else the tokenizer's."""
    for name in ("chat_template.jinja", "chat_template.json"):
        path = folder / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            return text if name.endswith(".jinja") else str(json.loads(text)["chat_template"])
    if not isinstance(tokenizer.chat_template, str):
        raise CheckpointError(f"{folder}: has no chat template; add the model's chat_template.jinja to the folder")
    return tokenizer.chat_template


def _stops(folder: Path, config: Any, tokenizer: Any) -> list[int]:
    """Every token that the snapshot says ends a text."""
    found = [tokenizer.eos_token_id, config.get_text_config().eos_token_id]
    path = folder / "generation_config.json"
    if path.is_file():
        found.append(json.loads(path.read_text(encoding="utf-8")).get("eos_token_id"))
    flat = [token for one in found for token in (one if isinstance(one, list) else [one])]
    return [token for token in flat if token is not None]
