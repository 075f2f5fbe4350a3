"""Prompts about images to several sampled replies each: the image and the prompt are read once for all of them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LlavaForConditionalGeneration

from gastrovl.model.fusion import cross_attention

# What `generate` and a language model call their cache; the name changed within transformers 5.
_TAKEN = inspect.signature(LlavaForConditionalGeneration.forward).parameters
_CACHE = "cache" if "cache" in _TAKEN else "past_key_values"


@torch.no_grad()
def sample_replies(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    features: Tensor,
    region_boxes: Tensor | None = None,
    *,
    count: int,
    temperature: float,
    max_new_tokens: int,
    pad_id: int,
    end_ids: Sequence[int],
) -> list[list[int]]:
    """`count` replies to each prompt, drawn token by token from the whole vocabulary by torch's global generator.

    Args:
        model: A GastroVLForConditionalGeneration in evaluation mode.
        input_ids, attention_mask: (prompts, length), padded on the left.
        features: What the tower says of each prompt's image, (prompts, cells, tower width).
        region_boxes: The boxes in each prompt, as in `forward`.

    Returns:
        Token ids of each reply up to the first of `end_ids`, which it includes, or without one where `max_new_tokens`
        came first; all replies to the first prompt, then to the second.
    """
    images = model.model.project(features)
    embedded = model.embedded(input_ids, images, region_boxes)
    positions = (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config.get_text_config())
    model.model.language_model(  # all but the last token, which `generate` reads itself
        inputs_embeds=embedded[:, :-1],
        attention_mask=attention_mask[:, :-1],
        position_ids=positions[:, :-1],
        use_cache=True,
        **{_CACHE: cache},
        **model.model.gating(images),
    )
    cache.batch_repeat_interleave(count)
    told = {_CACHE: cache}
    if len(model.model.gated_blocks):
        told["image_keys"] = cross_attention.image_keys(model.model.gated_blocks, images).repeat_interleave(count, 0)
    generated = model.generate(
        input_ids=input_ids.repeat_interleave(count, 0),
        attention_mask=attention_mask.repeat_interleave(count, 0),
        generation_config=GenerationConfig(
            do_sample=True,
            temperature=temperature,
            top_k=0,
            top_p=1.0,
            num_beams=1,
            max_new_tokens=max_new_tokens,
            pad_token_id=pad_id,
            eos_token_id=list(end_ids),
        ),
        **told,
    )
    ends = set(end_ids)
    replies = []
    for row in generated[:, input_ids.shape[1] :].tolist():
        length = next((place for place, token in enumerate(row, start=1) if token in ends), len(row))
        replies.append(row[:length])
    return replies
