"""Rows of training: drawn anew each epoch from one seed, boxes that move with the pixels, captions that stay true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gastrovl.core import geometry
from gastrovl.core.boxtext import BOX_PATTERN, decode_box, encode_box
from gastrovl.core.errors import ImageError, RecordError
from gastrovl.core.records import read_records
from gastrovl.core.types import Box, Conversation, Target, Task, Turn
from gastrovl.model.checkpoint import build_model
from gastrovl.training.config import AugmentConfig, StageConfig
from gastrovl.training.rows.dataset import Collator, RowDataset, cached_side, load_conversations
from gastrovl.training.rows.grounding import TermIndex
from gastrovl.training.rows.images import ImageStore

ALL = (Task.CLS, Task.REC, Task.REG, Task.CAP)
MOVED = AugmentConfig(flip=True, smallest_crop=0.4, colour=0.0)
TURNED = MOVED.model_copy(update={"operations": {"turn": 0.5, "letterbox": 0.5, "highlights": 0.5}})


@pytest.fixture(scope="module")
def processor(tiny_model):
    return build_model(tiny_model("mlp", image_size_px=64), seed=1)[1]


@pytest.fixture
def make(tiny_data, processor):
    """`make(conversations=None, augment=None, is_training=True, **stage)`: a dataset of two drawn images."""
    file = tiny_data(images=2)

    def build(conversations=None, augment=None, is_training=True, seed=7, max_length=512, **stage):
        stage = StageConfig(
            **{"name": "s", "tasks": ALL, "trains": ["projector"], "learning_rate": 1, "steps": 1} | stage
        )
        store = ImageStore(file.parent, cached_side(processor, augment), processor)
        return RowDataset(
            conversations or load_conversations(file),
            store,
            processor,
            stage,
            seed=seed,
            max_length=max_length,
            augment=augment,
            is_training=is_training,
        )

    build.file = file
    return build


def texts_of(row, processor):
    """What each packed dialogue of a row says, without the image."""
    ids, segments = np.array(row.packed.ids), np.array(row.packed.segments)
    return [processor.decode(ids[segments == number].tolist()) for number in range(1, segments.max() + 1)]


def is_same(one, other):
    return one.packed == other.packed and np.array_equal(one.square, other.square)


def test_a_row_holds_all_dialogues_of_one_image(make, processor):
    dataset = make()

    row = dataset[1]

    assert len(dataset) == 2
    assert row.tasks == ALL
    assert row.square.shape == (64, 64, 3)
    assert texts_of(row, processor)[0].endswith("gastric ulcer")


@pytest.mark.parametrize("augment", [MOVED, TURNED], ids=["moved", "turned"])
def test_boxes_in_questions_and_answers_move_with_the_pixels(make, processor, augment):
    dataset = make(augment=augment)
    places = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        row = dataset[0]  # red polyp on grey
        seen = geometry.from_mask((row.square[..., 0].astype(int) - row.square[..., 1]) > 90)
        for task, text in zip(row.tasks, texts_of(row, processor), strict=True):
            said = [decode_box(found.group(0)) for found in BOX_PATTERN.finditer(text)]
            assert len(said) == (1 if task in (Task.REC, Task.REG) else 0)
            for box in said:
                assert box.xyxy == pytest.approx(seen.xyxy, abs=0.03)  # two pixels of 64
                places.add(box.xyxy)
    assert len(places) >= 10


def test_every_epoch_draws_wording_and_view_anew_and_repeats_by_seed(make, processor):
    dataset, twin, other = make(augment=MOVED), make(augment=MOVED), make(augment=MOVED, seed=8)
    rows = []
    for epoch in range(8):
        dataset.set_epoch(epoch)
        twin.set_epoch(epoch)
        rows.append(dataset[0])
        assert is_same(rows[-1], twin[0])
        assert is_same(rows[-1], dataset[0])
    other.set_epoch(0)

    # the first dialogue is about no box; its question has two wordings
    assert {texts_of(row, processor)[0].partition("polyp")[0] for row in rows} == {
        "What does the image show?",
        "Name every finding.",
    }
    assert len({row.square.tobytes() for row in rows}) == 8
    assert not is_same(other[0], rows[0])


def test_validation_rows_never_change(make, processor):
    dataset = make(is_training=False, dialogues_per_image=1)
    first = dataset[0]
    dataset.set_epoch(5)

    assert is_same(dataset[0], first)
    assert first.tasks == ALL
    assert texts_of(first, processor)[0].startswith("What does the image show?")


def with_caption(conversations, text, alternatives=()):
    """The conversations with another caption."""
    return [
        one.model_copy(update={"turns": (one.turns[0], Turn(role="assistant", text=text, alternatives=alternatives))})
        if one.task == Task.CAP
        else one
        for one in conversations
    ]


def test_a_caption_with_a_position_is_left_out_of_a_moved_view(make):
    conversations = with_caption(load_conversations(make.file), "A polyp at the left.")
    dataset = make(conversations, augment=MOVED)

    assert dataset[0].tasks == (Task.CLS, Task.REC, Task.REG)
    assert make(conversations)[0].tasks == ALL


def test_a_caption_whose_other_wording_has_a_position_is_left_out_too(make):
    conversations = with_caption(load_conversations(make.file), "A polyp.", ("A polyp at the left.",))
    dataset = make(conversations, augment=MOVED)

    for epoch in range(6):
        dataset.set_epoch(epoch)
        assert dataset[0].tasks == (Task.CLS, Task.REC, Task.REG)


def test_an_image_with_such_a_caption_alone_is_shown_as_it_is(make):
    conversations = with_caption(load_conversations(make.file), "A polyp at the left.")
    dataset = make(conversations, augment=MOVED, tasks=(Task.CAP,))
    plain = make(conversations, tasks=(Task.CAP,))

    assert dataset[0].tasks == (Task.CAP,)
    assert np.abs(dataset[0].square.astype(int) - plain[0].square).mean() < 6  # cached at another size, no more


def test_a_box_in_the_words_alone_stays_in_the_window(make, processor):
    place = Box(x0=0.02, y0=0.9, x1=0.1, y1=0.98)  # far from the polyp, and in no target
    conversations = [
        one.model_copy(
            update={
                "turns": (
                    Turn(role="user", text=f"And in {encode_box(place)}?"),
                    Turn(role="assistant", text="nothing"),
                    *one.turns,
                )
            }
        )
        for one in load_conversations(make.file)
        if one.task == Task.CLS
    ]
    dataset = make(conversations, augment=AugmentConfig(flip=False, smallest_crop=0.3, colour=0.0))

    for epoch in range(10):
        dataset.set_epoch(epoch)
        box = decode_box(BOX_PATTERN.search(texts_of(dataset[0], processor)[0]).group(0))
        assert box.area >= place.area * 0.9  # whole, and as large as before or larger


def test_some_dialogues_are_drawn_anew_when_a_stage_asks_for_few(make):
    dataset = make(dialogues_per_image=2)
    drawn = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        drawn.add(dataset[0].tasks)

    assert all(len(tasks) == 2 for tasks in drawn)
    assert {task for tasks in drawn for task in tasks} == set(ALL)


def test_task_weights_reach_the_labels(make):
    row = make(task_weights={Task.REC: 3.0})[0]
    segments, weights = np.array(row.packed.segments), np.array(row.packed.weights)

    assert set(weights[segments == 2]) == {0.0, 3.0}  # the second dialogue is REC
    assert set(weights[segments == 1]) == {0.0, 1.0}


def test_each_dialogue_weighs_alike_when_a_stage_says_so(make):
    row = make(length_weighting="dialogue", task_weights={Task.REC: 3.0})[0]
    segments, weights = np.array(row.packed.segments), np.array(row.packed.weights)

    assert [weights[segments == number].sum() for number in (1, 2, 3, 4)] == pytest.approx([1, 3, 1, 1])


def test_rare_dialogues_are_drawn_rather_when_a_stage_samples(make):
    conversations = load_conversations(make.file)
    # of eight dialogues one is about a cancer; by class it gets half of all draws
    terms = {one.id: ("cancer",) if number == 0 else ("polyp",) for number, one in enumerate(conversations)}
    conversations = [one.model_copy(update={"target": Target(terms=terms[one.id])}) for one in conversations]
    sampling = {"temperature": 1e9, "by": ["class"]}
    dataset = make(conversations, dialogues_per_image=1, sampling=sampling)
    rare = 0
    for epoch in range(200):
        dataset.set_epoch(epoch)
        order = dataset.epoch_order(epoch)
        assert len(order) == 2
        rare += sum(dataset[index].tasks == (Task.CLS,) and index % 2 == 0 for index in order)

    # 400 rows, half of them expected; the standard error is at most sqrt(400) / 2 = 10
    assert rare == pytest.approx(200, abs=40)


def test_an_image_that_comes_again_in_an_epoch_is_seen_in_another_view(make):
    dataset = make(augment=MOVED, sampling={"temperature": 2})

    assert not np.array_equal(dataset[0].square, dataset[0 + len(dataset)].square)
    assert dataset[0].tasks == dataset[0 + len(dataset)].tasks


def test_a_loop_over_the_rows_sees_every_image_once(make):
    dataset = make(sampling={"temperature": 2})

    assert [row.packed for row in dataset] == [dataset[0].packed, dataset[1].packed]


def test_validation_does_not_sample(make):
    assert make(sampling={"temperature": 5}, is_training=False).shares is None


def test_digits_of_boxes_weigh_what_the_stage_says(make, processor):
    row = make(digit_weights=(4.0, 2.0, 0.5))[0]
    answer = [
        (processor.tokenizer.decode([label]), weight)
        for label, weight, segment in zip(row.packed.labels, row.packed.weights, row.packed.segments, strict=True)
        if segment == 2 and label >= 0
    ]
    digits = [weight for text, weight in answer if text.isdigit()]

    assert digits == [4.0, 2.0, 0.5] * 4
    assert {weight for text, weight in answer if not text.isdigit()} == {1.0}


def test_only_the_tasks_of_the_stage_are_used(make):
    assert make(tasks=(Task.REC, Task.CAP))[0].tasks == (Task.REC, Task.CAP)
    with pytest.raises(RecordError, match="stage 's': no conversation of VQA in the data it was given"):
        make(tasks=(Task.VQA,))


def test_a_contrastive_stage_carries_the_caption(make, processor):
    dataset = make(contrastive_weight=0.5)

    assert processor.decode(dataset[0].caption) == "The image shows polyp."
    batch = Collator(processor, None)([dataset[0], dataset[1]])
    assert batch["caption_ids"].shape == batch["caption_mask"].shape
    assert batch["caption_mask"].sum(dim=1).tolist() == [len(dataset[0].caption), len(dataset[1].caption)]


def test_rows_without_a_caption_leave_the_others_theirs(make, processor):
    dataset = make(contrastive_weight=0.5)
    silent = replace(dataset[0], caption=[])

    some = Collator(processor, None, has_captions=True)([silent, dataset[1]])
    none = Collator(processor, None, has_captions=True)([silent])

    assert some["caption_rows"].tolist() == [1]
    assert some["caption_ids"].tolist() == [dataset[1].caption]
    assert none["caption_rows"].tolist() == []
    assert none["caption_ids"].shape == none["caption_mask"].shape == (1, 1)  # one that nobody reads
    assert "caption_ids" not in Collator(processor, None)([silent])


def test_a_batch_holds_tensors_of_its_rows(make, processor):
    dataset = make()
    batch = Collator(processor, None)([dataset[0], dataset[1]])
    rows, length = batch["input_ids"].shape

    assert rows == 2
    assert batch["segments"].shape == batch["labels"].shape == (2, length)
    assert batch["pixel_values"].shape == (2, 3, 64, 64)
    assert (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist() == [processor.image_tokens] * 2


def test_grounding_targets_follow_the_view(make):
    dataset = make(augment=AugmentConfig(flip=True, smallest_crop=0.4, colour=0.0))
    dataset.terms, dataset.grid_side = TermIndex(load_conversations(make.file)), 8
    place = dataset.terms.terms.index("polyp")
    for epoch in range(6):
        dataset.set_epoch(epoch)
        row = dataset[0]
        red = (row.square[..., 0].astype(int) - row.square[..., 1]) > 90
        cells = red.reshape(8, 8, 8, 8).mean(axis=(1, 3)).reshape(-1)  # share of red in each of 8 x 8 cells
        told = row.grounding.cell_terms[:, place]
        assert np.all(told[cells > 0.9] == 1.0)
        assert np.all(told[cells < 0.1] == 0.0)


def test_a_stage_with_cutmix_shows_parts_of_two_images_and_validation_does_not(make, processor):
    file = make.file
    stage = StageConfig(
        name="s",
        tasks=ALL,
        trains=["vision"],
        learning_rate=1,
        steps=1,
        answer_weight=0,
        grounding_weight=1,
        cutmix=1.0,
    )
    conversations = load_conversations(file)
    paths = sorted({one.image.path for one in conversations})

    class Kept:
        def get(self, *_):
            return torch.zeros(16, 32)

    store = ImageStore(file.parent, processor.image_size_px, processor)
    rows = {}
    for is_training in (True, False):
        dataset = RowDataset(
            conversations,
            store,
            processor,
            stage,
            seed=7,
            max_length=512,
            augment=None,
            is_training=is_training,
            terms=TermIndex(conversations),
            grid_side=4,
            features=Kept(),
        )
        rows[is_training] = []
        for epoch in range(6):
            dataset.set_epoch(epoch)
            rows[is_training].append(dataset[0])
    mine, other = store.square(paths[0]), store.square(paths[1])

    assert all(np.array_equal(row.square, mine) and row.features is not None for row in rows[False])
    assert all(row.features is None for row in rows[True])  # what the tower said of the whole image is not true of it
    assert all(np.all((row.square == mine) | (row.square == other)) for row in rows[True])
    assert any(not np.array_equal(row.square, mine) for row in rows[True])


def test_images_with_several_boxes_are_repeated_in_training_only(make):
    conversations = load_conversations(make.file)
    two = (Box(x0=0, y0=0, x1=0.2, y1=0.2), Box(x0=0.5, y0=0.5, x1=0.9, y1=0.9))
    path = conversations[-1].image.path
    more = [
        one.model_copy(update={"target": one.target.model_copy(update={"boxes": two})})
        if one.task == Task.REC and one.image.path == path
        else one
        for one in conversations
    ]

    plain, repeated, held_out = (
        make(more, repeat_several=count, is_training=is_training)
        for count, is_training in ((1, True), (3, True), (3, False))
    )

    assert (len(plain), len(repeated), len(held_out)) == (2, 4, 2)
    assert [group[0].image.path for group in repeated.groups].count(path) == 3
    assert len(make(conversations, repeat_several=3)) == 2


def test_a_missing_or_truncated_image_is_named(make):
    folder = make.file.parent
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "1.png").unlink()
    dataset = make()

    with pytest.raises(ImageError, match=r"0\.png: cannot be decoded"):
        dataset[0]
    with pytest.raises(ImageError, match=r"1\.png: no such image"):
        dataset[1]


def test_an_empty_file_of_conversations_is_refused(tmp_path):
    (tmp_path / "train.jsonl").write_text("", encoding="utf-8")

    with pytest.raises(RecordError, match=r"train\.jsonl: holds no conversation"):
        load_conversations(tmp_path / "train.jsonl")


def test_the_drawn_conversations_are_what_they_seem(make):
    """The fixtures' own check: targets hold the boxes that texts say."""
    for one in read_records(make.file, Conversation):
        if one.task == Task.REC:
            assert decode_box(one.answer).xyxy == pytest.approx(one.target.boxes[0].xyxy, abs=0.001)
            assert one.target == Target(terms=one.target.terms, boxes=one.target.boxes)
