"""Replies that are sampled and replies that are learnt come from one distribution, whatever the model is made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gastrovl.model.processor import region_boxes
from gastrovl.model.sampling import sample_replies
from gastrovl.training.rewarded.replies import pack_replies
from gastrovl.training.rows.asked import Asked

QUESTIONS = ("Where is the polyp?", "Where in the image is the cancer, if there is any?", "Locate the gastric ulcer.")
IMAGE_OF = (0, 0, 1)  # two questions about the first image, one about the second


@pytest.fixture(params=["pool", "attention-7", "gated", "two-towers-gated"])
def shown(request, open_fusion):
    """A model, its processor, pixels of two images, and three questions."""
    name = "two-towers" if request.param == "pool" else request.param
    model, processor = open_fusion(name)
    torch.manual_seed(3)
    with torch.no_grad():  # replies of many words, not the same one over and over
        model.lm_head.weight.mul_(20.0)
    squares = np.random.default_rng(1).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    return model, processor, processor.pixels(squares), [asked(processor, text) for text in QUESTIONS]


def asked(processor, text):
    prompt = processor.encode_prompt([("user", text)])
    prefix = prompt.index(processor.image_token_id) + processor.image_tokens
    return Asked(tuple(prompt), prefix, processor.regions([("user", text)]), (), (32, 32))


def prompts(processor, questions):
    """Ids and mask, padded on the left."""
    length, pad = max(len(one.prompt) for one in questions), processor.tokenizer.pad_token_id
    missing = [length - len(one.prompt) for one in questions]
    ids = [[pad] * count + list(one.prompt) for count, one in zip(missing, questions, strict=True)]
    return torch.tensor(ids), torch.tensor([[0] * count + [1] * (length - count) for count in missing])


def sampled(model, processor, pixels, questions, count, temperature=1.0, seed=5):
    torch.manual_seed(seed)
    ids, mask = prompts(processor, questions)
    features = model.model.tower_features(pixels)[list(IMAGE_OF)]
    end = processor.tokenizer.eos_token_id
    ends = (end, processor.image_token_id)
    settings = {"count": count, "temperature": temperature, "max_new_tokens": 9}
    pad = processor.tokenizer.pad_token_id
    return sample_replies(model, ids, mask, features, region_boxes([()]), **settings, pad_id=pad, end_ids=ends)


def test_at_a_temperature_near_zero_every_sample_is_the_greedy_reply(shown):
    model, processor, pixels, questions = shown
    ids, mask = prompts(processor, questions)
    end = [processor.tokenizer.eos_token_id, processor.image_token_id]

    found = sampled(model, processor, pixels, questions, count=2, temperature=1e-4)
    greedy = model.generate(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=pixels[list(IMAGE_OF)],
        max_new_tokens=9,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=processor.tokenizer.pad_token_id,
    )[:, ids.shape[1] :].tolist()

    assert found[0::2] == found[1::2] == [row[: len(reply)] for row, reply in zip(greedy, found[0::2], strict=True)]
    assert len({tuple(reply) for reply in found}) > 1


def test_samples_follow_from_the_seed(shown):
    first, again, other = (sampled(*shown, count=4, seed=seed) for seed in (5, 5, 6))

    assert first == again != other


@torch.no_grad()
def test_packed_log_probabilities_are_those_of_each_reply_alone(shown):
    model, processor, pixels, questions = shown
    replies = sampled(model, processor, pixels, questions, count=3)

    packed = pack_replies([questions[:2], questions[2:]], replies, processor)
    found = model(**packed.inputs, pixel_values=pixels, temperature=1.7).logprobs

    alone = []
    for number, reply in enumerate(replies):
        question = number // 3
        ids = torch.tensor([[*questions[question].prompt, *reply[:-1]]])
        logits = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels[[IMAGE_OF[question]]]
        ).logits[0, len(questions[question].prompt) - 1 :]
        alone.append((logits / 1.7).log_softmax(dim=-1).gather(1, torch.tensor(reply).unsqueeze(1)).squeeze(1))
    assert packed.reply_of.tolist() == [number for number, reply in enumerate(replies) for _ in reply]
    assert found.tolist() == pytest.approx(torch.cat(alone).tolist(), abs=1e-3)


def test_a_reply_that_says_the_images_placeholder_is_judged_and_no_image_is_put_there(shown):
    model, processor, pixels, questions = shown
    replies = [[processor.image_token_id], [5, processor.image_token_id], [6], [7], [8], [9]]

    packed = pack_replies([questions[:2], questions[2:]], replies, processor)
    said = model(**packed.inputs, pixel_values=pixels, temperature=1.0).logprobs

    assert packed.reply_of.tolist() == [0, 1, 1, 2, 3, 4, 5]
    assert packed.inputs["labels"][packed.inputs["labels"] >= 0].tolist() == [
        token for reply in replies for token in reply
    ]
    assert bool(said.isfinite().all())
    said.sum().backward()
