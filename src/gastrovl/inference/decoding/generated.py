"""Questions to replies through the model's own `generate`: for models of another's making, which share no prefix."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gastrovl.inference.decoding.confidence import ReplyConfidence
from gastrovl.inference.decoding.holding import Forms
from gastrovl.inference.decoding.prompts import prompt_ids
from gastrovl.inference.decoding.tokens import TokenBytes
from gastrovl.inference.question import Question, Reply
from gastrovl.model.processor import GastroVLProcessor, region_boxes


def generated(
    model: Any,
    processor: GastroVLProcessor,
    forms: Forms,
    questions: Sequence[Question],
    max_new_tokens: int,
    *,
    caches: bool = True,
) -> list[Reply]:
    """Greedy replies of one batch; without `caches` every step reads all tokens again, which is for checks."""
    started = time.perf_counter()
    inputs = inputs_of(processor, questions, model.device, model.dtype)
    held = forms.hold(questions, inputs["input_ids"].shape[1])
    confidence = ReplyConfidence([held], max(question.top_logprobs or 0 for question in questions))
    made = model.generate(
        **inputs,
        max_new_tokens=max(forms.limit(question, max_new_tokens) for question in questions),
        do_sample=False,
        num_beams=1,
        use_cache=caches,
        logits_processor=[confidence],
        pad_token_id=processor.tokenizer.pad_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
    )
    rows = made[:, inputs["input_ids"].shape[1] :].tolist()
    end = processor.tokenizer.eos_token_id
    lengths = [row.index(end) + 1 if end in row else len(row) for row in rows]
    seconds = (time.perf_counter() - started) / len(questions)
    tokens = TokenBytes(processor.tokenizer)
    told = [
        tokens.said(row[:length], *confidence.of_tokens(number, length), asked.top_logprobs)
        if asked.top_logprobs is not None
        else None
        for number, (asked, row, length) in enumerate(zip(questions, rows, lengths, strict=True))
    ]
    return [
        Reply(held.text(number, row[:length]), sure, seconds, "end" if end in row else "length", tokens=told[number])
        for number, (row, length, sure) in enumerate(zip(rows, lengths, confidence.of_replies(lengths), strict=True))
    ]


def inputs_of(
    processor: GastroVLProcessor,
    questions: Sequence[Question],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """The model's inputs for a batch, prompts padded on the left."""
    prompts = [prompt_ids(processor, question) for question in questions]
    length = max(len(prompt) for prompt in prompts)
    pad = int(processor.tokenizer.pad_token_id)
    squares = np.stack([processor.square(image) for question in questions for image in question.images])
    tensors = {
        "input_ids": torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts]),
        "attention_mask": torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
        "pixel_values": processor.pixels(squares).to(dtype),
    }
    boxes = [[processor.regions(question.turns), *([()] * len(question.further))] for question in questions]
    regions = region_boxes([some for of_images in boxes for some in of_images])
    if regions is not None:
        tensors["region_boxes"] = regions
    tensors |= processor.beside(tensors["input_ids"])
    return {name: tensor.to(device) for name, tensor in tensors.items()}
