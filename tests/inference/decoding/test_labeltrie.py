"""Label probabilities: one pass over all names gives what the slow way gives, token by token and list by list."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Box, Task
from gastrovl.inference import asking
from gastrovl.inference.decoding.labelnames import LabelNames
from gastrovl.inference.decoding.labeltrie import LabelTrie, flat_trie
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question
from gastrovl.model.checkpoint import build_model

NAMES = ("polyp", "polyp of the stomach", "z line")


def picture(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 30, 3), dtype=np.uint8))


def untrained(tiny_model, *how, **more):
    model, processor = build_model(tiny_model(*how, **more), seed=5)
    return Predictor(model.eval(), processor, card=None)


def slow_log(predictor, question, said):
    """Log-probability of tokens behind a question, from one plain forward pass of the whole model."""
    inputs = predictor._inputs([question])
    prompt = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([said])], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        logits = predictor.model(**inputs).logits[0].double()
    logs = logits[prompt - 1 : -1].log_softmax(dim=-1)
    return float(logs.gather(1, torch.tensor(said).unsqueeze(1)).sum())


def trie_of(predictor, names):
    labels = LabelNames(predictor.processor, names)
    return labels, LabelTrie(predictor.words.shared, labels)


@pytest.mark.parametrize(
    "how", [("mlp", "siglip", "gastrovl"), ("pool", "resnet", "vicuna"), ("query", "siglip", "chatml")]
)
def test_every_name_of_the_taxonomy_is_as_likely_as_the_product_of_its_tokens(tiny_model, how):
    predictor = untrained(tiny_model, *how[:2], chat_template=how[2])
    names = [term.name for term in Taxonomy.load().terms]
    labels, trie = trie_of(predictor, names)
    questions = [asking.classify(picture(0)), asking.name_region(picture(1), Box(x0=0.1, y0=0.2, x1=0.5, y1=0.9))]

    with torch.no_grad():
        logs = trie.logs(predictor.words.prompts(questions), trie.first)

    for row, question in enumerate(questions):
        for place, name in list(enumerate(trie.first.names))[:: 1 if row == 0 else 9]:
            wanted = slow_log(predictor, question, [*labels.ids(name, 0), labels.end])
            assert logs.whole[row, place].item() == pytest.approx(wanted, abs=1e-5)
    assert sorted(trie.first.names) == sorted(names)


def test_the_names_of_a_region_sum_to_one_and_keep_their_proportions(tiny_model):
    predictor = untrained(tiny_model)
    question = Question(picture(0), (("user", "What is it?"),), Task.REG)
    labels, trie = trie_of(predictor, NAMES)

    with torch.no_grad():
        (chances,) = trie.whole(predictor.words.prompts([question]))

    raw = [math.exp(slow_log(predictor, question, [*labels.ids(name, 0), labels.end])) for name in NAMES]
    assert [chances[name] for name in NAMES] == pytest.approx([one / sum(raw) for one in raw], rel=1e-5)
    assert math.fsum(chances.values()) == pytest.approx(1.0)


def test_a_label_counts_in_every_list_that_begins_with_it_or_goes_on_from_the_reply(tiny_model):
    """All lists of up to two labels written out: what begins with a name, and what follows the reply's first label."""
    predictor = untrained(tiny_model)
    question = Question(picture(0), (("user", "What is it?"),), Task.CLS)
    labels, trie = trie_of(predictor, NAMES)
    separators = list(labels.later.following)

    def log(ids):
        return math.exp(slow_log(predictor, question, ids))

    first = {name: labels.ids(name, 0) for name in NAMES}
    goes_on = {name: sum(log([*ids, token]) for token in separators) for name, ids in first.items()}
    begun = {name: log([*ids, labels.end]) + goes_on[name] for name, ids in first.items()}
    total = sum(begun.values())
    second = {
        (one, two): sum(log([*first[one], *labels.ids(two, 1), token]) for token in (labels.end, *separators))
        for one, two in product(NAMES, NAMES)
    }
    reply = "z line"
    after = sum(second[reply, two] for two in NAMES)
    wanted = {name: begun[name] / total for name in NAMES}
    for name in NAMES:
        if name != reply:
            wanted[name] += goes_on[reply] / total * second[reply, name] / after

    with torch.no_grad():
        (given,) = trie.given(predictor.words.prompts([question]), [[reply, "polyp"]])
        (alone,) = trie.given(predictor.words.prompts([question]), [[reply]])

    assert given == pytest.approx(wanted, rel=1e-4)
    assert alone == pytest.approx({name: begun[name] / total for name in NAMES}, rel=1e-4)


def test_a_tree_has_each_shared_beginning_once(tiny_model):
    labels = LabelNames(untrained(tiny_model).processor, NAMES)

    trie = flat_trie(labels.first)

    long = labels.ids("polyp of the stomach", 0)
    assert len(trie.tokens) == len(long) + len(labels.ids("z line", 0))  # "polyp" is the beginning of the longer name
    end = int(trie.ends[trie.names.index("polyp of the stomach")])
    assert trie.tokens[trie.sees[end]].tolist() == long
    assert trie.depths[trie.sees[end]].tolist() == list(range(len(long)))


def test_many_prompts_at_once_get_what_each_gets_alone(tiny_model):
    predictor = untrained(tiny_model)
    _, trie = trie_of(predictor, NAMES)
    prompts = predictor.words.prompts(
        [Question(picture(seed), (("user", "What is it? " * (1 + seed % 3)),)) for seed in range(10)]
    )

    with torch.no_grad():
        together = trie.whole(prompts)
        alone = [trie.whole([prompt])[0] for prompt in prompts]

    assert [list(one.values()) for one in together] == [pytest.approx(list(one.values()), rel=1e-4) for one in alone]


def test_an_answer_carries_them_where_they_are_asked_for(learnt):
    predictor = Predictor.load(learnt[0], "cpu")
    image = Image.open(learnt[1].parent / "1.png").convert("RGB")
    turns = (("user", "What does the image show?"),)

    without, beside = predictor.answer(
        [Question(image, turns, Task.CLS), Question(image, turns, Task.CLS, wants_probabilities=True)]
    )
    region = predictor.name_region(image, Box(x0=0.5, y0=0.5, x1=0.875, y1=0.875))
    prior = predictor.prior(Task.REG)

    assert without.probabilities is None
    assert beside.text == without.text == "gastric ulcer"
    assert max(beside.probabilities, key=beside.probabilities.get) == "gastric_ulcer"
    assert beside.probabilities["gastric_ulcer"] > 0.9
    assert list(beside.probabilities) == [term.id for term in Taxonomy.load().terms]
    assert region.terms == ("gastric_ulcer",)
    assert math.fsum(region.probabilities.values()) == pytest.approx(1.0)
    assert math.fsum(prior.values()) == pytest.approx(1.0)


def test_a_model_that_looks_at_the_image_from_its_layers_gives_the_same(open_fusion):
    model, processor = open_fusion("gated")
    predictor = Predictor(model, processor, card=None)
    question = Question(picture(0), (("user", "What is it?"),), Task.REG)
    labels, trie = trie_of(predictor, NAMES)

    with torch.no_grad():
        logs = trie.logs(predictor.words.prompts([question]), trie.first)

    wanted = [slow_log(predictor, question, [*labels.ids(name, 0), labels.end]) for name in trie.first.names]
    assert logs.whole[0].tolist() == pytest.approx(wanted, abs=1e-5)
