"""Rows of questions to prompts for sampling, and prompts with sampled replies to the packed rows that are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gastrovl.model.gastrovl import IGNORED
from gastrovl.model.processor import Dialogue, GastroVLProcessor, region_boxes
from gastrovl.training.rows.asked import Asked
from gastrovl.training.rows.dataset import Row
from gastrovl.training.rows.packing import collate, pack

ASKED = "asked"  # key of a batch: of each image its questions, which the model itself never sees
_ENDLESS = 2**31  # tokens of a row; how many replies stand in one follows from `dialogues_per_image` and `group`


class QuestionCollator:
    """Rows to one batch of prompts, padded on the left, with the images they are about.

    Gives input_ids and attention_mask (prompts, length), image_rows (prompts,), pixel_values or tower_features of the
    images, prompt_regions where a question has a box, and ASKED. label_weights, (prompts, 2), make each question count
    as one where a step's size is summed up, see `StepCollator`.
    """

    def __init__(self, processor: GastroVLProcessor) -> None:
        self.processor = processor

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        questions = [one for row in rows for one in row.asked]
        length, pad = max(len(one.prompt) for one in questions), int(self.processor.tokenizer.pad_token_id)
        missing = [length - len(one.prompt) for one in questions]
        batch: dict[str, Any] = {
            "input_ids": torch.tensor(
                [[pad] * count + list(one.prompt) for count, one in zip(missing, questions, strict=True)]
            ),
            "attention_mask": torch.tensor([[0] * count + [1] * (length - count) for count in missing]),
            "image_rows": torch.tensor([number for number, row in enumerate(rows) for _ in row.asked]),
            "label_weights": torch.tensor([[0.0, 1.0]] * len(questions)),
            ASKED: [row.asked for row in rows],
        }
        regions = region_boxes([one.regions for one in questions])
        if regions is not None:
            batch["prompt_regions"] = regions
        features = [row.features for row in rows if row.features is not None]
        if len(features) == len(rows):
            batch["tower_features"] = torch.stack(features)
        else:
            batch["pixel_values"] = self.processor.pixels(np.stack([row.square for row in rows]))
        return batch


@dataclass(frozen=True)
class PackedReplies:
    """One row for each image with all replies to all its questions.

    Attributes:
        inputs: What the model's `forward` takes of it.
        reply_of: Which reply each token that was said belongs to, in the order of the tokens, (tokens,).
    """

    inputs: dict[str, Tensor]
    reply_of: Tensor


def pack_replies(
    asked: Sequence[Sequence[Asked]], replies: Sequence[Sequence[int]], processor: GastroVLProcessor
) -> PackedReplies:
    """Pack replies behind their questions, as many to each question.

    A reply may end in the image's placeholder: nothing keeps a model from saying it, and nothing but such a reply tells
    it not to. There it is a token to be judged, and not the place of an image.

    Args:
        asked: Of each image, its questions.
        replies: Token ids; all to the first question of the first image, then to its second.
    """
    count = len(replies) // sum(map(len, asked))
    rows, first, begun = [], [], 0
    for questions in asked:
        first.append(begun)
        dialogues = []
        for question in questions:
            for reply in replies[begun : begun + count]:
                prompt = list(question.prompt)
                is_answer = [False] * len(prompt) + [True] * len(reply)
                dialogues.append(Dialogue([*prompt, *reply], is_answer, question.prefix, question.regions))
            begun += count
        rows.append(pack(dialogues, [1.0] * len(dialogues), _ENDLESS))
    pad_id = int(processor.tokenizer.pad_token_id)
    inputs = collate(rows, pad_id)
    del inputs["label_weights"]
    inputs["input_ids"] = inputs["input_ids"].masked_fill(inputs["labels"] == processor.image_token_id, pad_id)
    number = inputs["segments"] - 1 + torch.tensor(first).unsqueeze(1)  # of the reply that each token belongs to
    return PackedReplies(inputs, number[:, 1:][inputs["labels"][:, 1:] != IGNORED])
