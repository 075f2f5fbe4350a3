"""Replies held to names: every allowed walk ends in a list of known names, and every such list can be walked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gastrovl.clinical.answers import LabelAnswer, format_labels, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Task
from gastrovl.inference.decoding.labelnames import HeldToNames, LabelNames
from gastrovl.model.checkpoint import build_model

TEMPLATES = ("gastrovl", "vicuna", "chatml", "llama3")
NAMES = ("polyp", "polyp of the stomach", "z line")


@pytest.fixture(scope="module", params=TEMPLATES)
def processor(request, tiny_model):
    return build_model(tiny_model("mlp", chat_template=request.param), seed=1)[1]


def walk(names, choose):
    """Ids of one reply without its end; `choose` picks among the allowed tokens."""
    ids = []
    while (token := choose(names.allowed(tuple(ids)), ids)) != names.end:
        ids.append(token)
    return ids


def test_every_random_walk_is_a_readable_reply(processor):
    taxonomy = Taxonomy.load()
    names = LabelNames(processor, [term.name for term in taxonomy.terms])
    rng = np.random.default_rng(0)

    for _ in range(30):
        text = names.text(walk(names, lambda allowed, _: int(rng.choice(allowed))))
        assert isinstance(parse_answer(Task.CLS, text, taxonomy), LabelAnswer), text


def test_every_list_of_labels_can_be_said_as_training_writes_it(processor):
    taxonomy = Taxonomy.load()
    names = LabelNames(processor, [term.name for term in taxonomy.terms])
    rng = np.random.default_rng(1)
    ids = [term.id for term in taxonomy.terms]

    for count in (1, 2, 3, 5):
        answer = format_labels(rng.choice(ids, count, replace=False).tolist(), taxonomy)
        dialogue = processor.encode_dialogue([("user", "Which labels fit?"), ("assistant", answer)])
        wanted = [token for token, flag in zip(dialogue.ids, dialogue.is_answer, strict=True) if flag]
        for place, token in enumerate(wanted[: wanted.index(names.end) + 1]):
            assert token in names.allowed(tuple(wanted[:place])), (answer, place)


def test_a_longer_name_with_the_same_start_stays_open(processor):
    names = LabelNames(processor, NAMES)
    short = tuple(names._answer("polyp"))

    assert names.end in names.allowed(short)
    assert names._answer("polyp of the stomach")[len(short)] in names.allowed(short)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("polyp; z line; polyp", "polyp; z line"),
        ("polyp of the stomach; polyp", "polyp of the stomach; polyp"),
        ("z line; z line; z line", "z line"),
        ("z line", "z line"),
    ],
)
def test_a_label_said_twice_is_written_once(processor, said, kept):
    names = LabelNames(processor, NAMES)
    ids = names._answer(said)

    assert names.text([*ids, names.end]) == kept
    assert names.text(ids) == kept  # cut at the limit, just before the end token


def test_a_label_that_the_limit_cut_is_left_out(processor):
    names = LabelNames(processor, NAMES)
    whole = names._answer("z line; polyp of the stomach")

    cut = [names.text(whole[:length]) for length in range(len(whole) + 1)]

    assert set(cut) == {"", "z line", "z line; polyp", "z line; polyp of the stomach"}
    assert cut[0] == ""
    assert cut[-1] == "z line; polyp of the stomach"


def test_behind_the_end_only_the_end_may_follow(processor):
    names = LabelNames(processor, NAMES)

    assert names.allowed((*names._answer("z line"), names.end)) == [names.end]
    assert names.allowed((*names._answer("z line"), names.end, names.end)) == [names.end]


def test_only_held_rows_change_and_the_likeliest_allowed_token_stays_so(processor):
    names = LabelNames(processor, NAMES)
    scores = torch.randn(2, len(processor.tokenizer))
    ids = torch.zeros(2, 5, dtype=torch.long)

    changed = HeldToNames(names, 5, [True, False])(ids, scores)

    allowed = names.allowed(())
    assert torch.equal(changed[1], scores[1])
    assert changed[0].isfinite().nonzero().flatten().tolist() == sorted(set(allowed))
    assert int(changed[0].argmax()) == max(allowed, key=lambda token: float(scores[0, token]))


def test_a_tokenizer_that_fuses_a_name_with_what_follows_is_refused(processor):
    class Fused:
        tokenizer = processor.tokenizer

        def encode_dialogue(self, turns):
            dialogue = processor.encode_dialogue(turns)
            return (
                type(dialogue)(
                    [*dialogue.ids[:-2], dialogue.ids[-2] + 1, *dialogue.ids[-1:]], [True] * len(dialogue.ids), 0
                )
                if ";" not in turns[-1][1]
                else dialogue
            )

    with pytest.raises(ModelInputError, match="writes 'polyp' differently before '; '"):
        LabelNames(Fused(), NAMES)
