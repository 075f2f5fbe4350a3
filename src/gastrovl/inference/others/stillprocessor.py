"""Dialogues with one still image each to the inputs of a Qwen2-VL or Qwen2.5-VL, where no torchvision is installed.

The family's own processor insists on one for videos, which needs torchvision. Template, tokenizer and image processor
are the folder's; what is added here is that the image's mark stands once for each of its tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, BatchFeature

from gastrovl.core.errors import ModelInputError

CLASSES = ("Qwen2VLProcessor", "Qwen2_5_VLProcessor")
MARK = "<|image_pad|>"


class StillProcessor:
    """The part of a processor's interface that answering needs."""

    def __init__(self, folder: Path, chat_template: str | None) -> None:
        self.image_processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.chat_template = chat_template or self.tokenizer.chat_template

    def apply_chat_template(self, said: list[Any], **_: Any) -> BatchFeature:
        """Tensors of one dialogue or of several, ready for an answer.

        Raises:
            ModelInputError: A dialogue's text has not exactly one image's mark.
        """
        dialogues = [said] if isinstance(said[0], dict) else said
        texts, images = [], []
        for dialogue in dialogues:
            text = self.tokenizer.apply_chat_template(
                dialogue, chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
            if text.count(MARK) != 1:
                raise ModelInputError(f"a dialogue holds {text.count(MARK)} marks {MARK!r}; expected one for its image")
            texts.append(text)
            images += [part["image"] for turn in dialogue for part in turn["content"] if part["type"] == "image"]
        pixels = self.image_processor(images=images, return_tensors="pt")
        per_image = (pixels["image_grid_thw"].prod(dim=1) // self.image_processor.merge_size**2).tolist()
        texts = [text.replace(MARK, MARK * count) for text, count in zip(texts, per_image, strict=True)]
        words = self.tokenizer(texts, padding=True, return_tensors="pt")
        is_image = words["input_ids"] == self.tokenizer.convert_tokens_to_ids(MARK)
        return BatchFeature({**words, **pixels, "mm_token_type_ids": is_image.int()})

    def decode(self, ids: Any, **options: Any) -> str:
        """Token ids as text."""
        return str(self.tokenizer.decode(ids, **options))
