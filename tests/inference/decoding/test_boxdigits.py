"""Digits of a box are decoded as parts of a number."""

from __future__ import annotations

import pytest
import torch

from gastrovl.inference.decoding.boxdigits import BoxDigits, lowest_digit, median_digit
from gastrovl.model.tokenizer import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("gastrovl", "gastrovl")


@pytest.mark.parametrize(
    ("box", "lowest"),
    [
        ("[", 0),
        ("[04", 0),  # the first corner is free
        ("[450,120,", 4),  # 4xx can still exceed 450
        ("[450,120,4", 5),
        ("[450,120,45", 1),
        ("[450,120,5", 0),
        ("[459,120,4", 6),  # no 45x exceeds 459
        ("[450,120,600,1", 2),  # 12x against y0 = 120
    ],
)
def test_the_second_corner_stays_behind_the_first(box, lowest):
    assert lowest_digit(box) == lowest


def test_the_median_of_a_flat_tail_is_its_middle_and_of_a_peak_is_the_peak():
    assert median_digit(torch.full((10,), 0.1), 0) == 4
    assert median_digit(torch.eye(10)[7], 0) == 7
    assert median_digit(torch.full((10,), 0.1), 8) == 8


def test_only_digits_inside_an_open_bracket_are_changed(tokenizer):
    choose = BoxDigits(tokenizer)
    flat = torch.zeros(1, len(tokenizer))
    flat[:, choose.digit_ids] = 1.0
    flat[:, choose.digit_ids[0]] = 1.01  # the likeliest, by a hair
    inside = torch.tensor([tokenizer.encode("Where? [0", add_special_tokens=False)])
    outside = torch.tensor([tokenizer.encode("[045,120,300,400] grade ", add_special_tokens=False)])
    assert int(choose(inside, flat).argmax()) == int(choose.digit_ids[4])
    assert torch.equal(choose(outside, flat), flat)


def test_a_token_that_is_no_digit_stays_what_it_is(tokenizer):
    choose = BoxDigits(tokenizer)
    scores = torch.zeros(1, len(tokenizer))
    scores[0, tokenizer.convert_tokens_to_ids(",")] = 5.0
    ids = torch.tensor([tokenizer.encode("[045", add_special_tokens=False)])
    assert torch.equal(choose(ids, scores), scores)
