"""Grounding targets: what each cell of a 4 x 4 grid shows, worked by hand, and what stays unknown."""

from __future__ import annotations

import numpy as np
import pytest

from gastrovl.core.errors import RecordError
from gastrovl.core.types import Box, Conversation, ImageRef, Split, Target, Task, Turn
from gastrovl.model.checkpoint import build_model
from gastrovl.model.grounding import UNKNOWN
from gastrovl.training.rows.grounding import TermIndex, cut_mix

IMAGE = ImageRef(path="a.png", width_px=64, height_px=64, sha256="0" * 64)
POLYP = Box(x0=0.25, y0=0.25, x1=0.75, y1=0.5)  # centres 0.375 and 0.625 of row 1: cells 5 and 6
ULCER = Box(x0=0.52, y0=0.3, x1=0.6, y1=0.33)  # holds no centre; its own centre (0.56, 0.315) lies in cell 6


def about(task, terms, answer, boxes=()):
    return Conversation(
        id=f"a#{task}-{terms}",
        sample_id="a",
        task=task,
        image=IMAGE,
        source="tiny",
        group="g",
        split=Split.TRAIN,
        turns=(Turn(role="user", text="?"), Turn(role="assistant", text=answer)),
        target=Target(terms=terms, boxes=boxes),
    )


CLS = about(Task.CLS, ("gastric_polyp", "gastric_ulcer"), "gastric polyp; gastric ulcer")
OTHER = about(Task.CLS, ("normal_stomach",), "normal stomach")
REC_POLYP = about(Task.REC, ("gastric_polyp",), "[...]", (POLYP,))
REC_ULCER = about(Task.REC, ("gastric_ulcer",), "[...]", (ULCER,))


def unmoved(box):
    return box


@pytest.fixture
def index():
    return TermIndex([OTHER, CLS, REC_POLYP])


def test_terms_are_read_with_their_names_from_labels(index):
    assert index.terms == ("gastric_polyp", "gastric_ulcer", "normal_stomach")
    assert index.names == ("gastric polyp", "gastric ulcer", "normal stomach")


def test_cells_of_a_box_show_its_term_and_hold_the_box(index):
    told = index.targets([CLS, REC_POLYP], unmoved, grid_side=4)

    assert told.image_terms.tolist() == [1, 1, 0]
    assert np.flatnonzero(told.cell_terms[:, 0] == 1).tolist() == [5, 6]
    assert (told.cell_terms[:, 0] == 0).sum() == 14
    assert np.all(told.cell_terms[:, 2] == 0)  # the label names everything, so a normal stomach is nowhere
    assert told.cell_boxes[5].tolist() == told.cell_boxes[6].tolist() == [0.25, 0.25, 0.75, 0.5]
    assert np.isnan(told.cell_boxes[[0, 4, 7, 9, 15]]).all()


def test_a_present_term_without_boxes_is_somewhere_unknown(index):
    told = index.targets([CLS, REC_POLYP], unmoved, grid_side=4)

    assert np.all(told.cell_terms[:, 1] == UNKNOWN)


def test_the_smaller_of_two_boxes_wins_a_cell_and_a_tiny_one_keeps_its_own(index):
    for order in ([REC_POLYP, REC_ULCER], [REC_ULCER, REC_POLYP]):
        told = index.targets([CLS, *order], unmoved, grid_side=4)

        assert np.flatnonzero(told.cell_terms[:, 1] == 1).tolist() == [6]
        assert told.cell_boxes[6].tolist() == pytest.approx(ULCER.xyxy)
        assert told.cell_boxes[5].tolist() == pytest.approx(POLYP.xyxy)


def test_an_absent_thing_is_in_no_cell(index):
    absent = about(Task.REC, ("gastric_ulcer",), "absent")

    told = index.targets([absent], unmoved, grid_side=4)

    assert np.all(told.cell_terms[:, 1] == 0)
    assert np.all(told.image_terms == UNKNOWN)
    assert np.isnan(told.cell_boxes).all()


def test_boxes_are_moved_into_the_view(index):
    def mirrored(box):
        return Box(x0=1 - box.x1, y0=1 - box.y1, x1=1 - box.x0, y1=1 - box.y0)

    told = index.targets([CLS, REC_POLYP], mirrored, grid_side=4)

    assert np.flatnonzero(told.cell_terms[:, 0] == 1).tolist() == [9, 10]
    assert told.cell_boxes[9].tolist() == [0.25, 0.5, 0.75, 0.75]


def test_a_box_that_left_the_view_is_in_no_cell(index):
    told = index.targets([CLS, REC_POLYP], lambda _: None, grid_side=4)

    assert not (told.cell_terms[:, 0] == 1).any()
    assert np.isnan(told.cell_boxes).all()


def test_without_labels_there_are_no_names_to_read():
    with pytest.raises(RecordError, match="grounding_weight and perception_weight need CLS or REG"):
        TermIndex([REC_POLYP])


def test_a_batch_pads_names_and_stacks_rows(index, tiny_model):
    processor = build_model(tiny_model("mlp"), seed=1)[1]
    rows = [index.targets([CLS, REC_POLYP], unmoved, 4), index.targets([OTHER], unmoved, 4)]

    batch = index.batch(rows, processor)

    lengths = [len(processor.tokenizer.encode(f" {name}", add_special_tokens=False)) for name in index.names]
    assert batch.term_mask.sum(dim=1).tolist() == lengths
    assert batch.term_ids.shape == (3, max(lengths))
    assert batch.image_terms.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert batch.cell_terms.shape == (2, 16, 3)
    assert batch.cell_boxes.shape == (2, 16, 4)


def test_targets_go_to_a_device_as_one(index, tiny_model):
    processor = build_model(tiny_model("mlp"), seed=1)[1]
    batch = index.batch([index.targets([CLS], unmoved, 4)], processor)

    moved = batch.to("meta")

    assert {value.device.type for value in vars(moved).values()} == {"meta"}
    assert {value.device.type for value in vars(batch).values()} == {"cpu"}


def halves(rng_seed):
    """A polyp across the middle of a black image, and nothing but a normal stomach on a white one, mixed."""
    index = TermIndex([OTHER, CLS, REC_POLYP])
    with_polyp = index.targets([about(Task.CLS, ("gastric_polyp",), "gastric polyp"), REC_POLYP], unmoved, 4)
    normal = index.targets([OTHER], unmoved, 4)
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    return cut_mix((black, with_polyp), (white, normal), np.random.default_rng(rng_seed))


def test_a_mixed_image_keeps_what_each_of_its_cells_shows():
    seen = set()
    for seed in range(40):
        pixels, told = halves(seed)
        is_white = pixels[8::16, 8::16, 0].reshape(-1) == 255  # at the centres of the 4 x 4 cells
        whole = pixels.reshape(4, 16, 4, 16, 3)
        assert (whole.min(axis=(1, 3, 4)) == whole.max(axis=(1, 3, 4))).all()  # cut between cells only
        assert np.all(told.cell_terms[is_white, 0] == 0)
        assert np.flatnonzero(told.cell_terms[:, 0] == 1).tolist() == [c for c in (5, 6) if not is_white[c]]
        polyp_cells = [cell for cell in (5, 6) if not is_white[cell]]
        known = ~np.isnan(told.cell_boxes).any(axis=1)
        is_divided = bool(is_white[5]) != bool(is_white[6])
        assert np.flatnonzero(known).tolist() == ([] if is_divided else polyp_cells)
        # polyp: in a cell, or perhaps cut away; ulcer: in neither image; normal stomach: of one image, of no cell
        assert told.image_terms.tolist() == [1 if polyp_cells else UNKNOWN, 0, UNKNOWN]
        seen.add((len(polyp_cells), is_divided))
    assert seen == {(2, False), (1, True), (0, False)}


def test_mixing_follows_its_generator():
    assert np.array_equal(halves(3)[0], halves(3)[0])
    assert len({halves(seed)[0].tobytes() for seed in range(20)}) > 3
