"""Laid out rows attend to what whole rows under a block mask attend to."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, LlamaConfig, PhiConfig, Qwen2Config, Qwen3Config

from gastrovl.model.packed import shared_prefix
from gastrovl.model.packed.rows import block_mask
from gastrovl.model.packed.shared_prefix import Backend, answering_states

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 20}
# Two dialogues, the longer one second; three; one, and padding; nothing but an image and one token.
ROWS = ("000112222", "00012233", "0001111", "0001")
LANGUAGE_MODELS = [
    LlamaConfig(**SHAPE),
    Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=8),
    PhiConfig(**SHAPE),
]


def rows_of(texts):
    length = max(len(text) for text in texts)
    return torch.tensor([[int(mark) for mark in text] + [-1] * (length - len(text)) for text in texts])


def positions_of(segments):
    """Each dialogue goes on from its row's image."""
    positions = torch.zeros_like(segments)
    for row, marks in enumerate(segments.tolist()):
        for place, mark in enumerate(marks):
            before = [other for other in marks[:place] if other in (0, mark)]
            positions[row, place] = len(before)
    return positions


@pytest.fixture(params=LANGUAGE_MODELS, ids=lambda config: config.model_type)
def language_model(request):
    torch.manual_seed(0)
    return AutoModel.from_config(request.param).eval()


def states_and_gradient(language_model, segments, embedded):
    is_read = (segments > 0) & (torch.arange(segments.shape[1]) % 2 == 1)
    embedded = embedded.clone().requires_grad_()
    states = answering_states(language_model, embedded, positions_of(segments), segments, is_read, Backend.GROUPS)
    (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
    return states.detach(), embedded.grad


def test_states_and_gradients_are_those_of_whole_rows(language_model, monkeypatch):
    segments = rows_of(ROWS)
    embedded = torch.randn(*segments.shape, 32)
    calls = []
    attend = shared_prefix._causal
    monkeypatch.setattr(shared_prefix, "_causal", lambda *inputs: calls.append(1) or attend(*inputs))

    states, gradient = states_and_gradient(language_model, segments, embedded)
    n_products = len(calls)
    monkeypatch.setattr(shared_prefix, "supports", lambda _: False)
    expected, expected_gradient = states_and_gradient(language_model, segments, embedded)

    assert n_products == len(calls) == 2 * 4  # two layers; images, then first, second and third dialogues
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_the_models_own_attention_is_back_afterwards(language_model):
    before = language_model.config._attn_implementation
    segments = rows_of(ROWS)
    states_and_gradient(language_model, segments, torch.randn(*segments.shape, 32))
    assert language_model.config._attn_implementation == before


@pytest.mark.parametrize("texts", [("0011", "0001"), ("0011", "0000")])
def test_rows_without_a_common_shape_are_attended_whole(texts):
    assert shared_prefix.shared_prefix(rows_of(texts)) is None


def test_a_model_with_a_window_is_attended_whole():
    windowed = AutoModel.from_config(Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=4))
    assert not shared_prefix.supports(windowed)
    assert shared_prefix.supports(AutoModel.from_config(LlamaConfig(**SHAPE)))


def test_a_dialogue_sees_the_image_and_itself_only():
    segments = torch.tensor([[0, 0, 1, 1, 2, -1]])  # two image tokens, a dialogue of two, one of one, padding

    allowed = block_mask(segments)[0, 0].int().tolist()

    assert allowed == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_asked_for_whole_rows_nothing_is_laid_out(language_model, monkeypatch):
    monkeypatch.setattr(shared_prefix, "shared_prefix", lambda _: pytest.fail("it was laid out"))
    segments = rows_of(ROWS)
    embedded = torch.randn(*segments.shape, 32)
    answering_states(language_model, embedded, positions_of(segments), segments, segments > 0, Backend.MASK)


@pytest.mark.parametrize(("others", "is_laid_out"), [(90, False), (30, True)])
def test_on_a_cpu_rows_are_laid_out_where_padding_would_cost_more(language_model, monkeypatch, others, is_laid_out):
    rows = [f"{'0' * 10}{'1' * 90}"] * 8 + [f"{'0' * 10}{'1' * others}"] * 8
    segments = rows_of(rows)  # 1,600 positions when padded
    calls = []
    attend = shared_prefix._causal
    monkeypatch.setattr(shared_prefix, "_causal", lambda *inputs: calls.append(1) or attend(*inputs))

    embedded = torch.randn(*segments.shape, 32)
    answering_states(language_model, embedded, positions_of(segments), segments, segments > 0)

    assert bool(calls) == is_laid_out
