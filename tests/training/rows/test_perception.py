"""Targets of the perception head on a grid of four fine cells, worked by hand; and which answer a pair was asked in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gastrovl.core.types import Box, Conversation, ImageRef, Split, Target, Task, Turn
from gastrovl.model.checkpoint import build_model
from gastrovl.model.grounding import UNKNOWN
from gastrovl.model.perception_loss import NOT_ASKED
from gastrovl.training.rows.augment import View
from gastrovl.training.rows.grounding import TermIndex
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.packing import pack
from gastrovl.training.rows.perception import PerceptionRows, first_answers

IMAGE = ImageRef(path="a.png", width_px=8, height_px=8, sha256="0" * 64)
LEFT = Box(x0=0.0, y0=0.0, x1=0.5, y1=1.0)
TERMS = ("gastric_polyp", "gastric_ulcer")


def about(task, term, boxes=(), mask=None):
    return Conversation(
        id=f"a#{task}-{term}",
        sample_id="a",
        task=task,
        image=IMAGE,
        source="tiny",
        group="g",
        split=Split.TRAIN,
        turns=(Turn(role="user", text="?"), Turn(role="assistant", text=term.replace("_", " "))),
        target=Target(terms=(term,), boxes=boxes, mask=mask),
    )


CLS, OTHER = about(Task.CLS, TERMS[0]), about(Task.CLS, TERMS[1])
REC, ABSENT = about(Task.REC, TERMS[0], (LEFT,)), about(Task.REC, TERMS[1])
REG = about(Task.REG, TERMS[0], (LEFT,))


@pytest.fixture
def processor(tiny_model):
    return build_model(tiny_model("pool"), seed=1)[1]


@pytest.fixture
def rows(tmp_path, processor):
    return PerceptionRows(TermIndex([CLS, OTHER]), ImageStore(tmp_path, 8, processor), side=4)


def test_boxes_are_filled_where_there_is_no_mask(rows):
    told = rows.targets([CLS, REC, ABSENT, REG], [], View(), None)

    (term, mask, boxes, name), (other, nothing, none, _) = told.pairs
    assert (term, boxes, name) == (0, (LEFT,), REC.id)
    assert mask.tolist() == [[1, 1, 0, 0]] * 4
    assert (other, none) == (1, ())
    assert not nothing.any()
    assert told.known.tolist() == [1, 0]
    assert told.regions == ((0, LEFT),)


def test_a_mask_counts_and_follows_the_view(rows, tmp_path):
    pixels = np.zeros((8, 8), dtype=np.uint8)
    pixels[0:2, 0:2] = 255  # the upper left of sixteen fine cells
    Image.fromarray(pixels).save(tmp_path / "m.png")
    masked = about(Task.REC, TERMS[0], (LEFT,), mask="m.png")

    straight = rows.targets([masked], [], View(), None).pairs[0]
    mirrored = rows.targets([masked], [], View(is_mirrored_x=True, gains=(0.1, 0.1, 0.1), contrast=0.5), None).pairs[0]

    # a fine cell is two pixels wide, and the smoothing of the resize reaches half a cell further
    assert straight[1][0, 0] > 0.5 > straight[1][0, 2] == 0
    assert mirrored[1].tolist() == straight[1][:, ::-1].tolist()
    assert mirrored[2] == (Box(x0=0.5, y0=0.0, x1=1.0, y1=1.0),)


def test_nothing_is_known_of_a_term_nobody_spoke_of(rows):
    told = rows.targets([REC], [], View(), None)

    assert told.known.tolist() == [1, UNKNOWN]


def test_what_a_row_asks_comes_before_what_it_does_not(rows):
    many = [about(Task.REC, TERMS[0], (LEFT,)), ABSENT]

    told = rows.targets(many, [ABSENT], View(), np.random.default_rng(0))

    assert told.pairs[0][3] == ABSENT.id


def test_regions_shake_in_training_and_stand_still_otherwise(rows):
    inner = Box(x0=0.2, y0=0.2, x1=0.6, y1=0.7)
    regions = [about(Task.REG, TERMS[0], (inner,))]
    [(_, still)] = rows.targets(regions, (), View(), None).regions
    shaken = [rows.targets(regions, (), View(), np.random.default_rng(seed)).regions[0][1].xyxy for seed in range(20)]

    moves = np.abs(np.array(shaken) - inner.xyxy)

    assert still == inner
    assert 0 < moves[:, [0, 2]].max() <= 0.1 * 0.4 + 1e-9
    assert 0 < moves[:, [1, 3]].max() <= 0.1 * 0.5 + 1e-9


def test_a_batch_says_in_which_answer_each_pair_was_asked(rows, processor):
    said = {one.id: [(turn.role, turn.text) for turn in one.turns] for one in (CLS, REC, ABSENT)}
    packed = [pack([processor.encode_dialogue(said[one.id]) for one in some], [1.0] * len(some), 512)
              for some in ([CLS, REC], [ABSENT])]  # fmt: skip
    told = [rows.targets([CLS, REC, ABSENT], some, View(), None) for some in ([CLS, REC], [ABSENT])]

    batch = rows.batch(told, packed, [(CLS.id, REC.id), (ABSENT.id,)], processor)

    labels = torch.tensor([label for row in packed for label in row.labels if label >= 0])
    counts = [sum(label >= 0 for label in row.labels) for row in packed]
    first_word = processor.encode_dialogue(said[REC.id])
    first_word = next(token for token, flag in zip(first_word.ids, first_word.is_answer, strict=True) if flag)
    of = {(image, term): asked for image, term, asked in zip(
        batch.images.tolist(), batch.terms.tolist(), batch.asked.tolist(), strict=True)}  # fmt: skip
    assert of[0, 1] == of[1, 0] == NOT_ASKED
    assert labels[of[0, 0]] == first_word
    assert 0 < of[0, 0] < counts[0]
    assert of[1, 1] == counts[0]


def test_of_a_dialogue_of_two_turns_the_last_answer_counts(processor):
    turns = [("user", "?"), ("assistant", "gastric polyp"), ("user", "?"), ("assistant", "gastric ulcer")]
    row = pack([processor.encode_dialogue(turns), processor.encode_dialogue(turns[:2])], [1.0, 1.0], 512)

    found, count = first_answers(row)

    once = sum(processor.encode_dialogue(turns[:2]).is_answer)
    assert found == {1: once, 2: count - once}


def test_a_batch_without_pairs_and_regions_has_tensors_all_the_same(rows, processor):
    told = rows.targets([CLS], [CLS], View(), None)
    packed = pack([processor.encode_dialogue([("user", "?"), ("assistant", "gastric polyp")])], [1.0], 512)

    batch = rows.batch([told], [packed], [(CLS.id,)], processor)

    assert batch.masks.shape == (0, 4, 4)
    assert batch.boxes.shape == (0, 1, 4)
    assert batch.region_boxes.shape == (0, 4)
    assert batch.known.tolist() == [[1, 0]]
