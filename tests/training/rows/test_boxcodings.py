"""From a box through a view and a coding to text, and all the way back: half a step at most, whatever the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.core import geometry
from gastrovl.core.boxcoding import BoxCoding, BoxCodingConfig, exact_boxes
from gastrovl.core.boxtext import BOX_PATTERN, decode_box, encode_box, map_boxes
from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Box
from gastrovl.model.checkpoint import build_model
from gastrovl.training.config import AugmentConfig, StageConfig
from gastrovl.training.rows.augment import draw_view
from gastrovl.training.rows.dataset import Collator, RowDataset, cached_side, load_conversations
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.operations import Highlights, Letterbox, QuarterTurn
from gastrovl.training.rows.packing import collate

ALL_CHANGES = AugmentConfig(smallest_crop=0.3, operations={"turn": 0.5, "letterbox": 0.5, "highlights": 0.5})
CODINGS = {
    name: BoxCoding(BoxCodingConfig.model_validate(config))
    for name, config in {
        "digits": {"order": "yxyx"},
        "pixels": {"kind": "pixels"},
        "pixels-yxyx": {"kind": "pixels", "order": "yxyx"},
        "tokens-64": {"kind": "tokens", "bins": 64},
        "tokens-1000": {"kind": "tokens", "bins": 1000, "order": "yxyx"},
    }.items()
}
SIZES = st.tuples(st.integers(1, 4096), st.integers(1, 4096))


@st.composite
def boxes(draw):
    """Any box of an image, down to a thousandth of a side."""
    x0, y0 = draw(st.floats(0, 0.999)), draw(st.floats(0, 0.999))
    return Box(x0=x0, y0=y0, x1=draw(st.floats(min(x0 + 1e-3, 1), 1)), y1=draw(st.floats(min(y0 + 1e-3, 1), 1)))


def written_and_read(coding, box, move, size_wh):
    """What a model is taught of a box in a dataset's text, read again."""
    words = f"What lies in {encode_box(box)}?"
    exact = exact_boxes([box], move)
    said, _ = coding.encode_text(map_boxes(words, move), size_wh, exact)
    (read,) = coding.read_boxes(said.removeprefix("What lies in ").removesuffix("?"), size_wh)
    return read


def assert_near(read, true, steps):
    """Half a step an edge; a whole one where edges nearer than a step were parted."""
    for axis in (0, 1):
        step = 1 / steps[axis]
        is_thin = true.xyxy[axis + 2] - true.xyxy[axis] < step
        for edge in (axis, axis + 2):
            assert abs(read.xyxy[edge] - true.xyxy[edge]) <= (step if is_thin else step / 2) + 1e-9


def back_of(view, box):
    """A box of a view in the whole image."""
    for operation in reversed(view.operations):
        match operation:
            case QuarterTurn(times):
                box = QuarterTurn(4 - times).move(box)
            case Letterbox(window):
                box = geometry.into_window(box, window)
            case Highlights():
                pass
    if view.is_mirrored_y:
        box = geometry.flip_vertical(box)
    if view.is_mirrored_x:
        box = geometry.flip_horizontal(box)
    return geometry.out_of_window(box, view.window)


def widest_step(view, steps):
    """The wider of a view's two steps, as a share of the whole image."""
    framed = [one.window for one in view.operations if isinstance(one, Letterbox)]
    shrunk = min([side for box in framed for side in (box.x1 - box.x0, box.y1 - box.y0)], default=1.0)
    return max(view.window.x1 - view.window.x0, view.window.y1 - view.window.y0) / min(steps) / shrunk


@pytest.mark.parametrize("name", CODINGS)
@given(box=boxes(), size_wh=SIZES, seed=st.integers(0, 10**6))
def test_a_box_in_any_view_comes_back_to_half_a_step(name, box, size_wh, seed):
    coding = CODINGS[name]
    view = draw_view(np.random.default_rng(seed), [box], ALL_CHANGES)

    read, seen, steps = written_and_read(coding, box, view.move, size_wh), view.move(box), coding.steps(size_wh)

    assert_near(read, seen, steps)
    is_thin = seen.x1 - seen.x0 < 1 / steps[0] or seen.y1 - seen.y0 < 1 / steps[1]
    if not is_thin:
        assert back_of(view, read).xyxy == pytest.approx(box.xyxy, abs=widest_step(view, steps) / 2 + 1e-9)


@pytest.mark.parametrize("name", CODINGS)
@given(box=boxes(), size_wh=SIZES, pad=st.tuples(*[st.integers(0, 200)] * 4))
def test_a_box_in_a_padded_image_comes_back_to_half_a_step(name, box, size_wh, pad):
    coding, (left, top, right, bottom) = CODINGS[name], pad
    canvas = (size_wh[0] + left + right, size_wh[1] + top + bottom)

    def move(one):
        return geometry.into_padded(one, size_wh, canvas, (left, top))

    read, seen = written_and_read(coding, box, move, canvas), move(box)

    assert_near(read, seen, coding.steps(canvas))


@pytest.mark.parametrize("name", CODINGS)
@given(box=boxes(), size_wh=SIZES, tiles=st.integers(2, 4))
def test_what_a_tile_shows_of_a_box_comes_back_to_half_a_step(name, box, size_wh, tiles):
    coding = CODINGS[name]
    for number in range(tiles):
        tile = Box(x0=number / tiles, y0=0.0, x1=(number + 1) / tiles, y1=1.0)
        inside = geometry.into_window(box, tile)
        rounded = map_boxes(encode_box(box), lambda one, tile=tile: geometry.into_window(one, tile))
        if inside is None or rounded is None:
            continue

        read = written_and_read(coding, box, lambda one, tile=tile: geometry.into_window(one, tile), size_wh)

        assert_near(read, inside, coding.steps(size_wh))
        if inside.x1 - inside.x0 >= 1 / coding.steps(size_wh)[0]:
            back, true = geometry.out_of_window(read, tile), geometry.out_of_window(inside, tile)
            step = 1 / coding.steps(size_wh)[0] / tiles
            assert (back.x0, back.x1) == pytest.approx((true.x0, true.x1), abs=step / 2 + 1e-9)


@pytest.fixture
def rows_of(tiny_data, tiny_model):
    """`rows_of(coding)`: rows of two drawn images in moving views, the same for each coding, and their processor."""
    file = tiny_data(images=2)

    def make(coding):
        processor = build_model(tiny_model("pool", "resnet", image_size_px=64, box_coding=coding), seed=1)[1]
        stage = {"name": "s", "tasks": ["CLS", "REC", "REG"], "trains": ["projector"], "learning_rate": 1, "steps": 1}
        dataset = RowDataset(
            load_conversations(file),
            ImageStore(file.parent, cached_side(processor, ALL_CHANGES), processor),
            processor,
            StageConfig.model_validate(stage),
            seed=7,
            max_length=512,
            augment=ALL_CHANGES,
            is_training=True,
        )
        return [dataset[index] for index in range(8)], processor

    return make


def said_by(row, processor):
    """All dialogues of a row as text, without the image tokens."""
    ids = [token for token in row.packed.ids if token != processor.image_token_id]
    return processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", CODINGS)
def test_questions_and_answers_of_training_say_the_same_boxes_in_any_coding(rows_of, name):
    coding = CODINGS[name]
    plain, before = rows_of(None)
    coded, processor = rows_of(coding.config)

    for row, other in zip(coded, plain, strict=True):
        words, as_before = said_by(row, processor), said_by(other, before)
        boxes = coding.read_boxes(" ".join(match.group() for match in coding.pattern.finditer(words)), (64, 64))
        expected = [decode_box(match.group()) for match in BOX_PATTERN.finditer(as_before)]
        assert len(boxes) == len(expected) == 2  # one in a question, one in an answer
        for box, true in zip(boxes, expected, strict=True):
            assert box.xyxy == pytest.approx(true.xyxy, abs=0.5 / 63 + 1.5 / 999)
        assert coding.pattern.sub("", words) == BOX_PATTERN.sub("", as_before)
        assert row.packed.regions == other.packed.regions
        assert np.array_equal(row.square, other.square)


def test_each_location_token_that_is_learnt_has_its_place_in_the_batch(rows_of):
    rows, processor = rows_of(CODINGS["tokens-64"].config)

    batch = Collator(processor, None)(rows)

    labels, places = batch["labels"], batch["label_places"]
    is_location = processor.locations.holds(labels)
    assert is_location.sum(dim=1).tolist() == [4] * len(rows)
    assert torch.equal(is_location, ~places.isnan())
    bins = (labels[is_location] - processor.locations.first).float()
    assert (bins - places[is_location]).abs().max() <= 0.5
    assert (bins - places[is_location]).abs().max() > 0.05


def test_other_codings_have_no_places(rows_of):
    rows, processor = rows_of(CODINGS["pixels"].config)

    assert "label_places" not in Collator(processor, None)(rows)


def test_location_tokens_that_stand_for_no_box_are_refused(rows_of):
    rows, processor = rows_of(CODINGS["tokens-64"].config)
    row = replace(rows[0].packed, places=())

    with pytest.raises(ModelInputError, match="not made from its boxes"):
        collate([row, rows[1].packed], 0, processor.locations)


def test_the_loss_of_a_batch_is_that_of_bells(rows_of, tiny_model):
    rows, processor = rows_of(CODINGS["tokens-64"].config)
    model = build_model(tiny_model("pool", "resnet", image_size_px=64, box_coding=processor.coding.config), seed=1)[0]
    batch = Collator(processor, None)(rows)
    places = batch.pop("label_places")

    hard, soft = model(**batch).loss, model(**batch, label_places=places).loss
    model.locations = replace(model.locations, sigma=0.0)

    assert hard.item() == model(**batch, label_places=places).loss.item()
    assert soft.item() != pytest.approx(hard.item(), abs=1e-5)
