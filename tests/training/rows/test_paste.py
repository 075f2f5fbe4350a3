"""Lesions pasted into hand-made frames: what the pixels show, what is known of them, and when nothing is pasted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Conversation, ImageRef, Split, Target, Task, Turn
from gastrovl.model.checkpoint import build_model
from gastrovl.model.grounding import UNKNOWN
from gastrovl.training.cache.features import may_keep
from gastrovl.training.config import StageConfig
from gastrovl.training.rows.augment import View
from gastrovl.training.rows.dataset import Collator, RowDataset
from gastrovl.training.rows.grounding import RowTargets, TermIndex
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.paste import Donor, Donors, Pasted, grounded_with, perceived_with
from gastrovl.training.rows.perception import PerceptionRows, RowPerception

TERMS = ("cancer", "polyp", "ulcer")  # numbers 0, 1, 2
SIDE = 64
CENTRE = Box(x0=0.375, y0=0.375, x1=0.625, y1=0.625)  # 24 to 40 of 64 pixels
CORNER = Box(x0=0.0, y0=0.0, x1=0.25, y1=0.25)
ALL_ABSENT = np.array([True, True, True])


def about(image, task, term, boxes=(), mask=None, source="tiny"):
    return Conversation(
        id=f"{image}#{task}-{term}",
        sample_id=image,
        task=task,
        image=ImageRef(path=f"{image}.png", width_px=SIDE, height_px=SIDE, sha256="0" * 64),
        source=source,
        group=image,
        split=Split.TRAIN,
        turns=(Turn(role="user", text="?"), Turn(role="assistant", text=term)),
        target=Target(terms=(term,), boxes=boxes, mask=mask),
    )


def draw(folder, name, colour, lesion=None):
    """A frame of one colour, and the middle of it in that of the lesion."""
    pixels = np.full((SIDE, SIDE, 3), colour, dtype=np.uint8)
    if lesion:
        pixels[24:40, 24:40] = lesion
    Image.fromarray(pixels).save(folder / f"{name}.png")


@pytest.fixture(scope="module")
def processor(tiny_model):
    return build_model(tiny_model("pool", image_size_px=SIDE), seed=1)[1]


@pytest.fixture
def known(tmp_path):
    """Of each image its conversations: a cancer in the middle of a darker frame, a polyp in the corner of a lighter."""
    draw(tmp_path, "cancer", (100, 80, 80), (150, 60, 60))
    draw(tmp_path, "polyp", (120, 90, 85))
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[24:40, 24:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return [
        [
            about("cancer", Task.CLS, "cancer"),
            about("cancer", Task.REC, "cancer", (CENTRE,), "mask.png"),
            about("cancer", Task.REG, "cancer", (CENTRE,)),
        ],
        [
            about("polyp", Task.CLS, "polyp"),
            about("polyp", Task.REC, "polyp", (CORNER,)),
            about("polyp", Task.REC, "cancer"),
            about("ulcer", Task.REG, "ulcer", (CORNER,)).model_copy(update={"image": about("polyp", "CLS", "x").image}),
        ],
    ]


@pytest.fixture
def terms(known):
    return TermIndex([one for group in known for one in group])


@pytest.fixture
def store(tmp_path, processor):
    return ImageStore(tmp_path, SIDE, processor)


def paste(donors, absent=ALL_ABSENT, present=(CORNER,), colour=(120, 90, 85), seed=0, source="tiny"):
    pixels = np.full((SIDE, SIDE, 3), colour, dtype=np.uint8)
    return donors.into(pixels, View(), source, absent, present, None, np.random.default_rng(seed))


def test_the_lesion_lies_where_its_box_and_mask_say_and_nothing_else_has_changed(known, terms, store):
    donors = Donors(known, terms, store)

    for seed in range(8):
        found = paste(donors, seed=seed)

        rows, columns = np.flatnonzero(found.mask.any(axis=1)), np.flatnonzero(found.mask.any(axis=0))
        edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / SIDE
        assert found.box.xyxy == pytest.approx(edges.tolist(), abs=1.5 / SIDE)
        assert 8 <= columns[-1] + 1 - columns[0] <= 16  # half its size to all of it
        changed = (found.pixels != (120, 90, 85)).any(axis=-1)
        assert not changed[: rows[0] - 6].any()
        assert not changed[:, columns[-1] + 7 :].any()
        assert changed[found.mask].all()


def test_its_colour_is_shifted_to_the_mucosa_around_it_and_its_edge_is_soft(known, terms, store):
    found = paste(Donors(known, terms, store))

    rows, columns = np.nonzero(found.mask)
    middle = found.pixels[(rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2].astype(int)
    # the frames' mucosa differs by 20, 10 and 5 levels, and the ring holds a little of the lesion where it was scaled
    assert np.abs(middle - (170, 70, 65)).max() <= 4
    reds = found.pixels[(rows.min() + rows.max()) // 2, :, 0].astype(int)
    assert len(set(reds.tolist())) >= 4  # not two colours with a step between them


def test_nothing_lies_over_what_is_there_or_in_the_dark(known, terms, store):
    donors = Donors(known, terms, store)
    left = Box(x0=0, y0=0, x1=0.5, y1=1)
    halves = np.full((SIDE, SIDE, 3), (120, 90, 85), dtype=np.uint8)
    halves[:, 32:] = 0

    assert all(paste(donors, present=(left,), seed=seed).box.x0 >= 0.5 for seed in range(8))
    assert paste(donors, present=(Box(x0=0, y0=0, x1=1, y1=1),)) is None
    assert paste(donors, colour=(10, 10, 10)) is None
    assert paste(donors, colour=(220, 90, 85)) is None  # lit too differently
    rng = np.random.default_rng(0)
    found = [donors.into(halves, View(), "tiny", ALL_ABSENT, (CORNER,), None, rng) for _ in range(8)]
    assert all(one is None or one.box.x1 <= 0.5 for one in found)


def test_only_a_term_known_to_be_absent_is_pasted_and_only_from_the_same_source(known, terms, store):
    donors = Donors(known, terms, store)

    assert paste(donors, absent=np.array([False, True, True])) is None
    assert paste(donors, source="other") is None


def test_a_lesion_at_the_edge_of_its_frame_is_no_donor(known, terms, store, tmp_path):
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[0:16, 24:40] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")

    assert paste(Donors(known, terms, store)) is None


def test_the_rarer_a_term_the_more_often_it_is_drawn(known, terms, store):
    polyps = [[about(f"p{n}", Task.REC, "polyp", (CENTRE,), "mask.png")] for n in range(9)]
    donors, rng = Donors([known[0], *polyps], terms, store), np.random.default_rng(0)

    drawn = [donors.draw(rng, "tiny", ALL_ABSENT).term for _ in range(400)]

    assert drawn.count(1) == pytest.approx(40, abs=20)  # weights 1 and 1/9: nine in ten are the one cancer
    assert set(drawn) == {0, 1}


def test_what_a_lesion_may_show_besides_is_kept(terms, store):
    wide = Box(x0=0.5, y0=0.5, x1=1, y1=1)
    touching = [
        about("a", Task.CLS, "cancer"),
        about("a", Task.REC, "cancer", (CENTRE,), "mask.png"),
        about("a", Task.REC, "ulcer", (wide,)),
        about("a", Task.REC, "polyp", (CORNER,)),
    ]

    donor = Donors([touching], terms, store).draw(np.random.default_rng(0), "tiny", ALL_ABSENT)

    assert donor.beside == (2,)


def pasted_with(beside):
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[32:64, 32:64] = True
    box = Box(x0=0.5, y0=0.5, x1=1, y1=1)
    return Pasted(np.zeros((SIDE, SIDE, 3), np.uint8), mask, box, Donor(0, "", "", CENTRE, beside))


def test_the_perception_head_is_told_of_it_and_no_longer_that_it_is_absent():
    nothing = np.zeros((4, 4), dtype=np.float32)
    told = RowPerception(
        ((1, nothing, (CORNER,), "a"), (0, nothing, (), "b"), (2, nothing, (), "c")),
        np.array([0, 1, 0], np.float32),
        ((1, CORNER),),
    )

    found = perceived_with(told, pasted_with((2,)), 4)

    assert [(term, boxes) for term, _, boxes, _ in found.pairs] == [(0, (pasted_with(()).box,)), (1, (CORNER,))]
    assert found.pairs[0][1].round().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert found.known.tolist() == [1, 1, UNKNOWN]  # whether an ulcer came along nobody knows
    assert found.regions == ((1, CORNER), (0, pasted_with(()).box))
    assert told.known.tolist() == [0, 1, 0]


def test_the_grounding_head_is_told_of_its_cells():
    told = RowTargets(np.zeros(3, np.float32), np.zeros((4, 3), np.float32), np.full((4, 4), np.nan, np.float32))

    found = grounded_with(told, pasted_with((2,)), 2)

    assert found.image_terms.tolist() == [1, 0, UNKNOWN]
    assert found.cell_terms.tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, UNKNOWN]]
    assert found.cell_boxes[3].tolist() == [0.5, 0.5, 1, 1]
    assert np.isnan(found.cell_boxes[:3]).all()


def test_a_stage_pastes_in_training_and_not_in_validation(known, terms, store, processor, tmp_path):
    conversations = [one for group in known for one in group]
    write_records(tmp_path / "train.jsonl", conversations)
    stage = StageConfig(
        name="see",
        tasks=["CLS", "REC", "REG"],
        trains=["vision"],
        learning_rate=1,
        steps=1,
        answer_weight=0,
        perception_weight=1,
        grounding_weight=1,
        paste=1.0,
    )
    perception = PerceptionRows(terms, store, 8)
    shown = {}
    for is_training in (True, False):
        rows = RowDataset(
            conversations,
            store,
            processor,
            stage,
            seed=7,
            max_length=512,
            augment=None,
            is_training=is_training,
            terms=terms,
            grid_side=4,
            perception=perception,
        )
        shown[is_training] = rows[1]
        assert np.array_equal(rows[1].square, shown[is_training].square)
        frozen = stage.model_copy(update={"trains": ("projector",)})
        assert may_keep(frozen, rows) is not is_training  # features of the whole image are not those of a composite
    batch = Collator(processor, terms, perception=perception)([shown[True], shown[False]])

    assert shown[False].perception.known.tolist() == [0, 1, 0]
    assert shown[True].perception.known.tolist() == [1, 1, 0]
    assert shown[True].grounding.image_terms.tolist() == [1, 1, 0]
    assert (shown[True].square != store.square("polyp.png")).any()
    assert np.array_equal(shown[False].square, store.square("polyp.png"))
    assert batch["perceived"].known.tolist() == [[1, 1, 0], [0, 1, 0]]
