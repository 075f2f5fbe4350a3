"""Location tokens: words of the tokenizer, alike where bins are near, taught as bells whose mean is the true place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gastrovl.core.boxcoding import BoxCodingConfig
from gastrovl.core.boxtext import BOX_PATTERN
from gastrovl.core.errors import TokenizerError
from gastrovl.core.types import Box
from gastrovl.model.checkpoint import CheckpointCard, build_model, checkpoint_shape, load_checkpoint, save_checkpoint
from gastrovl.model.locations import LocationTokens
from gastrovl.model.packed.answerloss import answer_loss
from gastrovl.model.presets import resolve
from gastrovl.model.tokenizer import IMAGE_TOKEN, load_tokenizer

BINS = 64
TOKENS = BoxCodingConfig(kind="tokens", bins=BINS)
PIXELS = BoxCodingConfig(kind="pixels")
TURNS = [
    ("user", "What lies in [250,500,749,999]?"),
    ("assistant", "polyp"),
    ("user", "Where is the polyp?"),
    ("assistant", "[250,500,749,999]"),
]
SIZE = (640, 480)


@pytest.fixture(scope="module")
def built(tiny_model):
    return build_model(tiny_model("pool", box_coding=TOKENS), seed=1)


def test_every_bin_is_one_token_that_a_decoded_reply_keeps(built):
    _, processor = built
    tokenizer, locations = processor.tokenizer, processor.locations

    ids = tokenizer.encode("at <loc000><loc063> <loc007>.", add_special_tokens=False)

    said = [token - locations.first for token in ids if locations.first <= token < locations.first + BINS]
    assert said == [0, 63, 7]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "at <loc000><loc063> <loc007>."


def test_neighbouring_bins_start_alike_and_far_ones_apart(tiny_model):
    model, processor = build_model(tiny_model("mlp", box_coding=BoxCodingConfig(kind="tokens", bins=500)), seed=3)
    first = processor.locations.first
    for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        drawn, others = table[first : first + 500], table[:first]

        alike = nn.functional.cosine_similarity(drawn[:-1], drawn[1:], dim=-1)
        apart = nn.functional.cosine_similarity(drawn[:250], drawn[250:], dim=-1)
        assert alike.min() > 0.98
        assert apart.mean() < 0.5
        assert drawn.std().item() == pytest.approx(others.std().item(), rel=0.05)


def test_tokens_that_a_tokenizer_brings_keep_their_weights(tiny_model, built, tmp_path):
    """As a language model would that was taught location tokens before."""
    built[1].tokenizer.save_pretrained(tmp_path)
    described = tiny_model("mlp", box_coding=TOKENS, tokenizer=str(tmp_path))

    plain, _ = build_model(described.model_copy(update={"box_coding": None}), seed=1)
    coded, _ = build_model(described, seed=1)

    assert torch.equal(plain.get_input_embeddings().weight, coded.get_input_embeddings().weight)


def test_a_model_without_location_tokens_is_the_one_it_was(tiny_model):
    plain, processor = build_model(tiny_model("mlp"), seed=1)
    said, coded = build_model(tiny_model("mlp", box_coding=BoxCodingConfig()), seed=1)
    pixels, _ = build_model(tiny_model("mlp", box_coding=PIXELS), seed=1)

    assert processor.locations is coded.locations is None
    for one, other, third in zip(plain.parameters(), said.parameters(), pixels.parameters(), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one, third)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 2.0, 8.0])
def test_the_mean_of_a_bell_is_its_place_even_at_the_border(sigma):
    places = torch.cat([torch.linspace(0, BINS - 1, 400), torch.tensor([math.nan])])

    soft = LocationTokens(first=10, count=BINS, sigma=sigma).soft_targets(places)
    rows, shares = soft.within(slice(0, 401))

    assert rows.tolist() == list(range(400))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(400))
    means = shares @ torch.arange(BINS).float()
    assert (means - places[:400]).abs().max() < (0.5 if sigma < 0.4 else 0.12)
    middle = shares[200]  # a bell of the width that was asked for
    width = (middle * (torch.arange(BINS) - means[200]) ** 2).sum().sqrt()
    if sigma >= 0.5:
        assert width.item() == pytest.approx(sigma, rel=0.1)


class Scaled(nn.Linear):
    """A head that is more than a matrix, as one with adapters is."""

    def forward(self, states):
        return 2.0 * super().forward(states)


@pytest.mark.parametrize("head_class", [nn.Linear, Scaled])
@pytest.mark.parametrize("chunk_bytes", [1, 3 * 4 * 80, 10**9])
def test_soft_answers_are_compared_with_their_bell_and_the_others_with_their_token(head_class, chunk_bytes):
    torch.manual_seed(5)
    head = head_class(6, 80)
    states = torch.randn(7, 6, requires_grad=True)
    targets, weights = torch.randint(80, (7,)), torch.rand(7) + 0.5
    places = torch.tensor([math.nan, 3.3, 60.0, math.nan, math.nan, 0.0, 31.5])
    locations = LocationTokens(first=10, count=BINS, sigma=2.0)
    soft = locations.soft_targets(places)
    shares = nn.functional.one_hot(targets, 80).float()
    shares[soft.rows] = nn.functional.pad(soft.within(slice(0, 7))[1], (10, 80 - 10 - BINS))
    losses = nn.functional.cross_entropy(head(states), shares, reduction="none")
    expected = (losses * weights).sum() / 7.0

    loss = answer_loss(states, head, targets, weights, 7.0, soft=soft, chunk_bytes=chunk_bytes)

    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-7)
    wanted = [states, *head.parameters()]
    for found, true in zip(torch.autograd.grad(loss, wanted), torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-7)


def test_without_a_width_only_the_nearest_bin_is_right():
    assert LocationTokens(first=0, count=BINS, sigma=0.0).soft_targets(torch.tensor([3.0])) is None


@pytest.mark.parametrize("coding", [TOKENS, PIXELS, BoxCodingConfig(order="yxyx")], ids=["tokens", "pixels", "yxyx"])
def test_boxes_of_questions_and_answers_are_coded_and_regions_stay(tiny_model, coding):
    plain = build_model(tiny_model("pool"), seed=1)[1]
    processor = build_model(tiny_model("pool", box_coding=coding), seed=1)[1]

    dialogue, as_before = processor.encode_dialogue(TURNS, SIZE), plain.encode_dialogue(TURNS)

    written = processor.coding.write_box(Box(x0=250 / 999, y0=500 / 999, x1=749 / 999, y1=1.0), SIZE)
    text = processor.tokenizer.decode(dialogue.ids[dialogue.prefix :])
    assert text.count(written) == 2
    assert f"What lies in {written}{IMAGE_TOKEN}?" in text
    assert not BOX_PATTERN.search(text.replace(written, ""))
    assert dialogue.regions == as_before.regions == processor.regions(TURNS)
    prompt = processor.encode_prompt(TURNS[:3], SIZE)
    assert prompt == dialogue.ids[: len(prompt)]
    answer = dialogue.ids[len(prompt) :]
    assert processor.decode(answer, SIZE).replace(" ", "").startswith("[")
    # 64 bins: half a bin is 0.8 %, so the text may differ by 8 of 999
    found = [int(number) for number in processor.decode(answer, SIZE)[1:-1].split(",")]
    assert found == pytest.approx([250, 500, 749, 999], abs=8)


def test_a_dialogue_knows_the_places_of_the_tokens_it_says(built):
    exact = Box(x0=0.2503, y0=0.5, x1=0.75, y1=1.0)

    dialogue = built[1].encode_dialogue(TURNS, exact={"[250,500,749,999]": exact})

    assert dialogue.places == pytest.approx((0.2503 * 63, 31.5, 47.25, 63.0))


@pytest.mark.parametrize("connector", ["mlp", "pool"])
def test_a_checkpoint_remembers_how_boxes_are_written(tiny_model, tmp_path, connector):
    coding = BoxCodingConfig(kind="tokens", bins=BINS, sigma=1.5, order="yxyx", several="left")
    model, processor = build_model(tiny_model(connector, box_coding=coding), seed=1)

    save_checkpoint(tmp_path, model, processor, "tiny")
    loaded, again, card = load_checkpoint(tmp_path)
    shape, third = checkpoint_shape(tmp_path)

    assert card.box_coding == again.coding.config == third.coding.config == coding
    assert loaded.locations == again.locations == shape.locations == processor.locations
    assert again.encode_dialogue(TURNS) == processor.encode_dialogue(TURNS)
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_the_card_of_a_model_that_writes_digits_says_nothing_of_it():
    card = CheckpointCard(name="tiny", image_tokens=17, image_size_px=32)

    assert "box_coding" not in card.model_dump_json()
    assert CheckpointCard.model_validate_json(card.model_dump_json()) == card
    assert '"kind":"pixels"' in card.model_copy(update={"box_coding": PIXELS}).model_dump_json()


def test_a_tokenizer_that_lacks_bins_is_refused(tiny_tokenizer):
    tokenizer = load_tokenizer(str(tiny_tokenizer), "gastrovl")

    with pytest.raises(TokenizerError, match="<loc000> to <loc063>"):
        LocationTokens.of(tokenizer, TOKENS)


def test_a_published_model_keeps_its_own_words(tiny_model):
    described = {"huggingface": "folder", "box_coding": {"kind": "pixels"}}
    with pytest.raises(ValueError, match="box_coding"):
        type(tiny_model())(**described)
    assert resolve(tiny_model("mlp", box_coding=PIXELS)).box_coding == PIXELS
