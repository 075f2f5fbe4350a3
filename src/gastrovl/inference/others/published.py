"""Conversations to the replies of a Hugging Face vision-language model of another's making, run here from its folder.

The model keeps its own class, processor and chat template. What `gastrovl train` fine-tuned is a checkpoint of ours and
is answered by `predictor.Predictor`, which knows what it was taught.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gastrovl.core.errors import ModelInputError
from gastrovl.core.files import sha256_file
from gastrovl.core.replyform import Syntax
from gastrovl.core.types import Conversation, Prediction
from gastrovl.inference.decoding.confidence import ReplyConfidence
from gastrovl.inference.others.describe import load_describer
from gastrovl.inference.others.description import Asked, ModelDescription, ask_in_form, counts_pixels, open_shown

_DECIDING = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


class Published:
    """A snapshot folder that answers greedily; an `Answerer`.

    Attributes:
        batch_size: Conversations in one call of the model; padding on the left must be something it was trained for.

    Args:
        labels: Names for {labels} of its prompts.

    Raises:
        CheckpointError: As `describe.load_describer`.
        ConfigError: There is no such device, or a variable of the path is not set.
    """

    def __init__(self, description: ModelDescription, labels: Sequence[str], device: str | None = None) -> None:
        folder = description.folder()
        loaded = load_describer(folder, device=device, dtype=description.dtype)
        self.model, self.processor = loaded.model, loaded.processor
        self._description, self._labels = description, labels
        self.name, self.workers = description.name, 1
        self.batch_size: int | None = description.batch_size
        self.fingerprint = description.fingerprint(labels, folder_hash(folder))
        self.settings: dict[str, Any] | None = description.model_dump(mode="json", exclude_defaults=True)
        self.currency: str | None = None
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._ends = _as_set(self.model.generation_config.eos_token_id) or _as_set(tokenizer.eos_token_id)

    @torch.inference_mode()
    def answers(self, batch: Sequence[Conversation], folder: Path) -> Iterator[Prediction]:
        """The model's reply to each conversation of one task.

        Raises:
            ImageError: An image is broken.
            ModelInputError: The model sees another image size than the one that its boxes are declared to count in.
        """
        description = self._description
        started = time.perf_counter()
        images = [open_shown(folder / one.image.path, description) for one in batch]
        asked = [
            ask_in_form(one, image.size, description, self._labels) for one, image in zip(batch, images, strict=True)
        ]
        inputs = self._inputs(asked, images)
        length, room = inputs["input_ids"].shape[1], description.room(batch[0].task)
        confidence = ReplyConfidence()
        generated = self.model.generate(
            **inputs, max_new_tokens=room, do_sample=False, num_beams=1, logits_processor=[confidence]
        )
        rows = generated[:, length:].tolist()
        lengths = [next((n + 1 for n, token in enumerate(row) if token in self._ends), len(row)) for row in rows]
        seconds = (time.perf_counter() - started) / len(batch)
        sure = confidence.of_replies(lengths)
        for n, conversation in enumerate(batch):
            words = rows[n][: lengths[n]]
            yield Prediction(
                conversation_id=conversation.id,
                text=self._text(words),
                confidence=sure[n],
                model=self.name,
                seconds=seconds,
                stop_reason="end" if words and words[-1] in self._ends else "length",
                form=description.form,
                image_wh=asked[n].image_wh if counts_pixels(description.form) else None,
            )

    def _inputs(self, asked: Sequence[Asked], images: Sequence[Image.Image]) -> Any:
        """Tensors of the model's own processor."""
        dialogues = []
        for one, image in zip(asked, images, strict=True):
            said = [_message("system", self._description.system)] if self._description.system else []
            said += [_message(role, text) for role, text in one.turns]
            first = next(turn for turn in said if turn["role"] == "user")
            first["content"].insert(0, {"type": "image", "image": image})
            dialogues.append(said)
        inputs = self.processor.apply_chat_template(
            dialogues, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
        )
        if counts_pixels(self._description.form) and "image_grid_thw" in inputs:
            self._check_sizes(images, inputs["image_grid_thw"].tolist())
        return inputs.to(self.model.device, dtype=self.model.dtype)

    def _check_sizes(self, images: Sequence[Image.Image], grids: Sequence[Sequence[int]]) -> None:
        """Refuse boxes in pixels where the processor scales an image once more (Qwen-VL counts in what it sees)."""
        patch = int(self.processor.image_processor.patch_size)
        for image, (_, rows, columns) in zip(images, grids, strict=True):
            if (seen := (columns * patch, rows * patch)) != image.size:
                raise ModelInputError(
                    f"{self.name}: was shown {image.width}x{image.height} px and sees {seen[0]}x{seen[1]} px, in which "
                    "its boxes would count; set `image.multiple_px` to its patch times its merge (28 for Qwen2.5-VL), "
                    "and `image.most_side_px` to what it can see"
                )

    def _text(self, words: list[int]) -> str:
        """A reply as text; marks around boxes are special tokens of some models, kept where the form has them."""
        form = self._description.form
        keeps_marks = form is not None and form.boxes.syntax in (Syntax.TAGS, Syntax.LOC)
        kept = [word for word in words if word not in self._ends]
        return str(self.processor.decode(kept, skip_special_tokens=not keeps_marks)).strip()


def folder_hash(folder: Path) -> str:
    """A hash of the weights, config, tokenizer and template files of a snapshot; reads all of them."""
    paths = sorted({path for pattern in _DECIDING for path in Path(folder).glob(pattern)})
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path.name} {sha256_file(path)}\n".encode())
    return digest.hexdigest()


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _as_set(tokens: int | list[int] | None) -> set[int]:
    return set() if tokens is None else set(tokens) if isinstance(tokens, list) else {tokens}
