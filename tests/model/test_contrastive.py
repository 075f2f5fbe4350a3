"""Contrastive losses: worked by hand, equal captions are no negatives, two processes make one batch."""

from __future__ import annotations

import math
import socket
import subprocess
import sys

import pytest
import torch

from gastrovl.core.errors import ModelInputError
from gastrovl.model.checkpoint import build_model
from gastrovl.model.contrastive import ContrastiveHead, gathered_rows, sigmoid_rows, softmax_rows

S = 1 / math.sqrt(2)
IMAGES = torch.tensor([[2.0, 0.0], [0.0, 5.0]])  # lengths do not matter
TEXTS = torch.tensor([[1.0, 0.0], [3.0, 3.0]])  # cosines: [[1, s], [0, s]]
CAPTIONS = torch.tensor([[5, 6], [7, 0]])


def head_of(kind, scale, bias=0.0):
    head = ContrastiveHead()
    head.start(kind)
    with torch.no_grad():
        head.log_scale.fill_(math.log(scale))
        head.bias.fill_(bias)
    return head


def softplus(value):
    return math.log(1 + math.exp(value))


def test_infonce_of_two_pairs_is_as_worked_by_hand():
    by_image = (math.log(1 + math.exp(S - 1)) + math.log(1 + math.exp(-S))) / 2  # rows [1, s] and [0, s]
    by_text = (math.log(1 + math.exp(-1)) + math.log(2)) / 2  # columns [1, 0] and [s, s]

    loss = head_of("infonce", 1.0)(IMAGES, TEXTS, CAPTIONS)

    assert loss.item() == pytest.approx((by_image + by_text) / 2, abs=1e-6)


def test_the_sigmoid_loss_of_two_pairs_is_as_worked_by_hand():
    # logits 2 * cosine - 1: right pairs want them high, -log sigmoid(x) = softplus(-x), wrong ones low
    right = softplus(-(2 * 1 - 1)) + softplus(-(2 * S - 1))
    wrong = softplus(2 * S - 1) + softplus(2 * 0 - 1)

    loss = head_of("sigmoid", 2.0, -1.0)(IMAGES, TEXTS, CAPTIONS)

    assert loss.item() == pytest.approx((right + wrong) / 2, abs=1e-6)


@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
def test_pairs_with_the_same_caption_are_not_held_against_each_other(kind):
    head = head_of(kind, 1.0)
    same = torch.tensor([[5, 6], [5, 6]])

    loss = head(IMAGES, TEXTS, same)

    # nothing else to be told apart from: InfoNCE has nothing to say, the sigmoid loss has its two right pairs
    expected = 0.0 if kind == "infonce" else (softplus(-1) + softplus(-S)) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_caption_that_goes_on_is_another_caption():
    loss = head_of("infonce", 1.0)(IMAGES, TEXTS, torch.tensor([[5, 0], [5, 6]]))

    assert loss.item() > 0.1


def test_a_row_without_candidates_but_its_own_costs_nothing_by_softmax():
    logits, own = torch.tensor([[3.0, 9.0, 1.0]]), torch.tensor([0])

    twins = torch.tensor([[False, True, False]])

    assert softmax_rows(logits, own, twins).item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)
    assert sigmoid_rows(logits, own, twins).item() == pytest.approx(softplus(-3) + softplus(1), abs=1e-6)


def test_scale_and_bias_learn_and_the_scale_has_a_limit():
    head = head_of("sigmoid", 1000.0, -10.0)

    head(IMAGES, TEXTS, CAPTIONS).backward()

    assert head.log_scale.exp().item() == pytest.approx(100.0)
    assert head.log_scale.grad.item() != 0
    assert head.bias.grad.item() != 0


def test_each_loss_starts_where_its_paper_does():
    head = ContrastiveHead()

    head.start("sigmoid")
    assert (head.log_scale.exp().item(), head.bias.item()) == (pytest.approx(10.0), -10.0)
    head.start("infonce")
    assert (head.log_scale.exp().item(), head.bias.item()) == (pytest.approx(1 / 0.07), 0.0)


def test_no_pairs_cost_nothing_and_still_have_gradients():
    images, texts = (torch.randn(0, 4, requires_grad=True) for _ in range(2))

    loss = head_of("infonce", 1.0)(images, texts, torch.zeros(0, 3, dtype=torch.long))
    loss.backward()

    assert loss.item() == 0.0


def test_one_process_gathers_its_own_rows():
    assert gathered_rows(IMAGES) is IMAGES


def test_a_model_without_a_head_says_so(tiny_model):
    model, _ = build_model(tiny_model("mlp"), seed=1)
    ids = torch.ones(1, 20, dtype=torch.long)

    with pytest.raises(ModelInputError, match="no head for it"):
        model(
            input_ids=ids,
            pixel_values=torch.randn(1, 3, 32, 32),
            segments=ids,
            position_ids=ids,
            labels=ids,
            answer_weight=0.0,
            caption_ids=ids,
            caption_mask=ids,
            contrastive_weight=1.0,
        )


TWO_PROCESSES = """
import sys, torch
from torch import distributed as dist
from gastrovl.model.contrastive import ContrastiveHead

rank, port = int(sys.argv[1]), sys.argv[2]
generator = torch.Generator().manual_seed(0)
weight = torch.randn(4, 4, generator=generator)
images, texts = (torch.randn(5, 4, generator=generator) for _ in range(2))
captions = torch.tensor([[1, 2, 3], [4, 0, 0], [5, 0, 0], [4, 0, 0], [6, 7, 0]])  # two alike, in different processes


def loss_and_gradients(kind, some, width):
    layer, head = torch.nn.Parameter(weight.clone()), ContrastiveHead()
    head.start(kind)
    loss = head(images[some] @ layer, texts[some] @ layer.T, captions[some, :width])
    loss.backward()
    found = [layer.grad, head.log_scale.grad]
    return [loss.detach(), *found, *([head.bias.grad] if kind == "sigmoid" else [])]


whole = [one for kind in ("infonce", "sigmoid") for one in loss_and_gradients(kind, slice(0, 5), 3)]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
mine, width = ((slice(0, 2), 3), (slice(2, 5), 2))[rank]  # sizes and lengths differ
parts = [one for kind in ("infonce", "sigmoid") for one in loss_and_gradients(kind, mine, width)]
for part, expected in zip(parts, whole, strict=True):
    dist.all_reduce(part)  # the mean over processes, as DistributedDataParallel takes it
    torch.testing.assert_close(part / 2, expected, rtol=1e-5, atol=1e-6)
empty = torch.zeros(0, 4, requires_grad=True)
images, texts = images.clone(), texts.clone()
one = (images[:2].requires_grad_(), texts[:2].requires_grad_(), captions[:2]) if rank else (empty, empty, captions[:0])
head = ContrastiveHead()
head(*one).backward()  # a process without captions does not keep the other one waiting
dist.destroy_process_group()
"""


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_two_processes_have_the_losses_and_gradients_of_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    started = [
        subprocess.Popen([sys.executable, "-c", TWO_PROCESSES, str(rank), str(port)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]

    assert [process.returncode for process in started] == [0, 0], "\n".join(errors)
