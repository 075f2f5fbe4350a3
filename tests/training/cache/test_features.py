"""A frozen tower looks at an image once, and nothing changes by it."""

from __future__ import annotations

import copy
import errno
import multiprocessing
import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from gastrovl.core import geometry
from gastrovl.core.boxtext import BOX_PATTERN, decode_box
from gastrovl.core.types import Task
from gastrovl.model.checkpoint import build_model
from gastrovl.training.cache.features import BATCH, FeatureFiller, may_keep, tower_meaning
from gastrovl.training.cache.store import FeatureCache
from gastrovl.training.config import AugmentConfig, StageConfig
from gastrovl.training.rows import images as images_module
from gastrovl.training.rows.augment import View
from gastrovl.training.rows.dataset import Collator, RowDataset, cached_side, load_conversations
from gastrovl.training.rows.images import ImageStore
from gastrovl.training.rows.operations import QuarterTurn

STAGE = StageConfig(name="s", tasks=tuple(Task)[:4], trains=("projector",), learning_rate=1, steps=1)
TOWERS = [("mlp", "siglip"), ("pool", "resnet")]
VIEWS = AugmentConfig(flip=True, smallest_crop=0.6, colour=0.2)


class Bench:
    """A tiny model, drawn images, and a cache; `filler` and `rows` as a stage would make them."""

    def __init__(self, folder, model, processor, file):
        self.folder, self.model, self.processor, self.file = folder, model.eval(), processor, file
        self.conversations = load_conversations(file)
        self.said = []

    def filler(self, dtype=torch.float32, cache=None, **others):
        cache = cache or FeatureCache(self.folder / "cache", 10**9)
        precision = torch.autocast("cpu", dtype=torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()
        others = {"say": self.said.append} | others
        return FeatureFiller(self.model, self.processor, cache, precision=precision, dtype=dtype, **others)

    def rows(self, augment=None, views=0, images=None, is_training=True, stage=STAGE):
        first = sorted({one.image.path for one in self.conversations})[:images]
        return RowDataset(
            [one for one in self.conversations if one.image.path in first],
            ImageStore(self.file.parent, cached_side(self.processor, augment), self.processor),
            self.processor,
            stage,
            seed=1,
            max_length=512,
            augment=augment,
            is_training=is_training,
            cached_views=views,
            view_seed=3,
        )

    def filled(self, dtype=torch.float32, **others):
        rows = self.rows(**others)
        rows.features = self.filler(dtype).fill(rows, "tower")
        return rows

    def tower(self, square, copies=BATCH):
        """What the tower says of a square, computed in as large a batch as the cache's."""
        pixels = self.processor.pixels(np.stack([square] * copies))
        with torch.no_grad():
            return self.model.model.tower_features(pixels)[0]


def same(features, others):
    """Equal but for the order of additions, which may differ with the place in a batch on other hardware."""
    return torch.allclose(features, others, rtol=1e-5, atol=1e-5)


@pytest.fixture
def bench(tmp_path, tiny_data, tiny_model):
    """`bench("mlp", "siglip", images=2)`."""

    def build(connector="mlp", tower="siglip", images=2):
        file = tiny_data(images=images)
        for number in range(4, images):  # there are four lesions only
            shade = Image.open(file.parent / f"{number}.png").point(lambda value, by=number: max(value - by, 0))
            shade.save(file.parent / f"{number}.png")
        return Bench(tmp_path, *build_model(tiny_model(connector, tower), seed=1), file)

    return build


@pytest.mark.parametrize(("connector", "tower"), TOWERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_kept_features_give_the_loss_and_gradients_of_the_pixels(bench, connector, tower, dtype, tolerance):
    made = bench(connector, tower)
    losses, gradients = [], []
    for is_kept in (False, True):
        rows = made.filled(dtype) if is_kept else made.rows()
        batch = Collator(made.processor, None)([rows[0], rows[1]])
        assert ("tower_features" in batch, "pixel_values" in batch) == (is_kept, not is_kept)
        made.model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = made.model(**batch).loss
        loss.backward()
        losses.append(loss.item())
        projector = made.model.model.multi_modal_projector
        gradients.append(torch.cat([p.grad.flatten() for p in projector.parameters() if p.grad is not None]))
    assert losses[0] == pytest.approx(losses[1], rel=tolerance)
    assert (gradients[0] - gradients[1]).norm() <= tolerance * gradients[0].norm()
    assert gradients[0].norm() > 0


@pytest.mark.parametrize(("connector", "tower"), TOWERS)
def test_an_entry_is_bit_for_bit_what_the_tower_says_in_a_batch_of_that_size(bench, connector, tower):
    made = bench(connector, tower, images=3)
    rows = made.filled(images=1)
    rows = made.filled(images=3)  # the second and third by themselves

    for row in (rows[0], rows[1], rows[2]):
        assert torch.equal(row.features, made.tower(row.square))


def test_bfloat16_entries_take_two_bytes_a_number(bench):
    made = bench()
    rows = made.filled(torch.bfloat16)

    assert rows[0].features.dtype == torch.bfloat16
    assert rows[0].features.shape == (16, 32)
    (payload,) = (made.folder / "cache").glob("*/*.bin")
    assert payload.stat().st_size == 2 * 16 * 32 * 2


CHANGES = {
    "a weight": lambda model, _: model.model.vision_tower.embeddings.patch_embedding.weight.data[0, 0, 0, 0].add_(1e-6),
    "how attention is computed": lambda model, _: model.model.vision_tower.set_attn_implementation("eager"),
    "the name of a weight": lambda model, _: model.model.vision_tower.register_buffer("more", torch.zeros(1)),
    "the layer": lambda model, _: setattr(model.config, "vision_feature_layer", -2),
    "the tower's config": lambda model, _: setattr(model.config.vision_config, "layer_norm_eps", 1e-5),
    "the size": lambda _, processor: setattr(processor.image_processor, "size", {"height": 40, "width": 40}),
    "how it is resized": lambda _, processor: setattr(processor.image_processor, "resample", 0),
    "the mean": lambda _, processor: setattr(processor.image_processor, "image_mean", [0.5, 0.5, 0.4]),
    "the deviation": lambda _, processor: setattr(processor.image_processor, "image_std", [0.5, 0.5, 0.4]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_features_of_another_tower_or_transform_are_never_used(bench, change):
    made = bench()
    before = tower_meaning(made.model, made.processor)
    assert tower_meaning(made.model, made.processor) == before
    made.filled()

    CHANGES[change](made.model, made.processor)

    assert tower_meaning(made.model, made.processor) != before
    if change != "the size":  # which the tiny tower's positions do not fit
        made.filled()
        assert made.said[-1].startswith("  tower runs once for 2 of 2 images")


def test_features_in_another_precision_are_never_used(bench):
    made = bench()
    made.filled()
    made.filled(torch.bfloat16)

    assert made.said[-1].startswith("  tower runs once for 2 of 2 images")


def test_where_a_model_lies_and_how_an_image_is_called_do_not_matter(bench):
    made = bench()
    made.filled()
    made.model.config.vision_config._name_or_path = "elsewhere"
    (made.file.parent / "0.png").rename(made.file.parent / "other.png")
    made.conversations = [
        one.model_copy(update={"image": one.image.model_copy(update={"path": "other.png"})})
        if one.image.path == "0.png"
        else one
        for one in made.conversations
    ]

    made.filled()

    assert made.said[-1].startswith("  tower does not run: what it says of 2 images is kept in")


def test_an_image_stored_otherwise_is_another_image_though_its_original_is_the_same(bench):
    """A build may scale down or mask the copy it stores; the record keeps the original's hash."""
    made = bench()
    made.filled()
    (made.file.parent / "0.png").write_bytes((made.file.parent / "1.png").read_bytes())

    rows = made.filled()

    assert made.said[-1].startswith("  tower runs once for 1 of 2 images")
    assert same(rows[0].features, made.tower(rows[0].square))


def test_images_are_not_decoded_when_their_features_are_kept(bench, monkeypatch):
    made = bench()
    before = Collator(made.processor, None)(list(made.filled()))

    def refuse(path):
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr(images_module, "open_image", refuse)
    after = Collator(made.processor, None)(list(made.filled()))

    assert torch.equal(before["tower_features"], after["tower_features"])
    assert "pixel_values" not in after


def seen_red(square):
    """The box of the red polyp in a square."""
    return geometry.from_mask((square[..., 0].astype(int) - square[..., 1]) > 60)


def test_kept_views_are_few_and_their_boxes_stand_where_the_tower_saw_them(bench):
    made = bench()
    rows = made.filled(augment=VIEWS, views=3)
    assert len(rows.sights()) == 6
    shown, starts = set(), set()
    for epoch in range(30):
        rows.set_epoch(epoch)
        row = rows[0]
        shown.add(row.square.tobytes())
        assert same(row.features, made.tower(row.square))  # the features are those of the pixels
        text = made.processor.tokenizer.decode(row.packed.ids)
        boxes = [decode_box(found.group(0)) for found in BOX_PATTERN.finditer(text)]
        assert len(boxes) == 2  # the answer of REC and the question of REG
        assert all(geometry.iou(box, seen_red(row.square)) > 0.8 for box in boxes)
        starts.add(boxes[0].xyxy)
    assert len(shown) == 3
    assert len(starts) == 3


def test_a_view_depends_on_run_image_and_number_only(bench):
    made = bench()
    first, again = made.rows(VIEWS, 2), made.rows(VIEWS, 2, stage=STAGE.model_copy(update={"tasks": (Task.REC,)}))
    other = made.rows(VIEWS, 2)
    other.view_seed = 4

    assert first.sights() == again.sights()  # another stage
    assert len(first.sights()) == 4
    assert not {view for _, view in first.sights()} & {view for _, view in other.sights()}
    assert made.rows(VIEWS, 0).sights() == []


def test_a_turned_view_is_kept_as_another_one(bench):
    made = bench()
    image, features = made.conversations[0].image, made.filled().features

    views = [View(), *(View(operations=(QuarterTurn(times),)) for times in (1, 2))]

    assert len({features.key(image, view) for view in views}) == 3


def test_more_views_or_other_boxes_leave_what_is_kept(bench):
    made = bench()
    made.filled(augment=VIEWS, views=2)
    made.filled(augment=VIEWS, views=3)

    assert made.said[-1].startswith("  tower runs once for 2 of 6 views of images")
    made.filled(augment=AugmentConfig(flip=True, smallest_crop=0.6, colour=0.1), views=2)
    assert made.said[-1].startswith("  tower runs once for 4 of 4 views of images")


def test_captions_with_positions_are_shown_the_whole_image_and_that_is_kept_too(bench):
    made = bench()
    made.conversations = [
        one.model_copy(
            update={"turns": (one.turns[0], one.turns[1].model_copy(update={"text": "A polyp in the upper left."}))}
        )
        for one in made.conversations
        if one.task == Task.CAP
    ]
    rows = made.filled(augment=VIEWS, views=4)

    assert [view for _, view in rows.sights()] == [View(), View()]
    assert all(row.features is not None for row in rows)


def test_workers_read_the_rows_of_one_process(bench):
    made = bench(images=4)
    rows = made.filled(augment=VIEWS, views=2)
    collate = Collator(made.processor, None)
    alone = list(DataLoader(rows, batch_size=2, collate_fn=collate))
    shared = list(DataLoader(rows, batch_size=2, collate_fn=collate, num_workers=2))

    assert len(alone) == 2
    for one, other in zip(alone, shared, strict=True):
        assert one.keys() == other.keys()
        assert "tower_features" in one
        assert all(torch.equal(one[name], other[name]) for name in one if isinstance(one[name], torch.Tensor))


def test_features_can_be_sent_to_a_process_that_was_not_forked(bench):
    rows = bench().filled()

    sent = copy.deepcopy(rows.features)  # by the state that is sent to a spawned process

    image = rows.groups[0][0].image
    assert torch.equal(sent.get(image, View()), rows[0].features)


def test_a_damaged_entry_is_shown_as_pixels_and_made_anew_after_the_stage(bench, capfd):
    made = bench()
    made.filled().features.space.close()
    (payload,) = (made.folder / "cache").glob("*/*.bin")
    content = bytearray(payload.read_bytes())
    content[10] ^= 1
    payload.write_bytes(content)
    filler, rows = made.filler(), made.rows()

    rows.features = filler.fill(rows, "tower")
    found = [rows[0], rows[1]]
    batch = Collator(made.processor, None)(found)

    assert made.said[-1].startswith("  tower does not run")
    assert sorted(row.features is None for row in found) == [False, True]
    assert torch.equal(batch["pixel_values"], made.processor.pixels(np.stack([row.square for row in found])))
    assert "tower_features" not in batch
    assert capfd.readouterr().err == f"feature cache: entry 0 of {payload} is damaged; it is made anew\n"
    filler.finish(rows, "tower")
    assert made.said[-1].startswith("  tower runs once for 1 of 2 images")
    rows = made.filled()
    assert made.said[-1].startswith("  tower does not run")
    assert all(same(row.features, made.tower(row.square)) for row in (rows[0], rows[1]))


def test_a_full_disk_is_said_once_and_leaves_nothing(bench, monkeypatch):
    made = bench()

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    filler, rows = made.filler(), made.rows()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        assert filler.fill(rows, "tower") is None
        assert filler.fill(rows, "tower") is None

    assert [line.split(": ")[-1] for line in made.said if "not used" in line] == [
        "No space left on device; the tower runs for every batch"
    ]
    assert [path for path in (made.folder / "cache").rglob("*") if path.is_file()] == []
    assert rows[0].features is None


def test_a_cache_without_room_is_said_with_the_setting_that_gives_more(bench):
    made = bench()
    filler, rows = made.filler(cache=FeatureCache(made.folder / "cache", 3000)), made.rows()

    assert filler.fill(rows, "tower") is None  # 2 images of 16 x 32 float32 are 4,096 bytes
    assert "4.1e-06 GB more would pass its bound of 3e-06 GB (feature_cache_gb)" in made.said[-1]


def test_a_fill_tells_its_progress_and_goes_on_where_it_was_stopped(bench):
    made = bench(images=BATCH + 4)
    told = []

    def stop(what, done, total):
        told.append((what, done, total))
        if len(told) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made.filler(progress=stop).fill(made.rows(), "tower")
    made.filler(progress=stop).fill(made.rows(), "tower")

    assert told == [("tower", BATCH, BATCH + 4), ("tower", 4, 4)]
    assert made.said[-1].startswith(f"  tower runs once for 4 of {BATCH + 4} images")


def fill_share(made, rank, path):
    """One of two processes: fill, then write down what all entries are."""
    torch.set_num_threads(1)
    rows = made.rows()
    rows.features = made.filler(rank=rank, world_size=2).fill(rows, "tower")
    np.save(path, np.stack([row.features.numpy() for row in (rows[index] for index in range(len(rows)))]))


def test_two_processes_fill_one_cache_and_both_see_every_image(bench, tmp_path):
    made = bench(images=2 * BATCH + 5)
    forked = multiprocessing.get_context("fork")
    both = [forked.Process(target=fill_share, args=(made, rank, tmp_path / f"{rank}.npy")) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)

    assert [process.exitcode for process in both] == [0, 0]
    rows = made.rows()
    expected = np.stack([made.tower(row.square).numpy() for row in (rows[index] for index in range(len(rows)))])
    assert all(np.allclose(np.load(tmp_path / f"{rank}.npy"), expected, atol=1e-5) for rank in (0, 1))


def test_an_image_is_decoded_once_for_all_its_views(bench, monkeypatch):
    made = bench(images=4)
    rows, decoded = made.rows(VIEWS, 4), []
    open_image = images_module.open_image
    monkeypatch.setattr(images_module, "open_image", lambda path: decoded.append(path.name) or open_image(path))
    rows.images = ImageStore(made.file.parent, rows.images.side, made.processor, memory_mb=0)

    made.filler().fill(rows, "tower")

    assert sorted(decoded) == ["0.png", "1.png", "2.png", "3.png"]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_of_three_processes_begins_with_its_own_share_and_makes_up_for_the_others(bench, monkeypatch, rank):
    """The others are not there at all."""
    made = bench(images=3)
    order = []
    filler = made.filler(rank=rank, world_size=3)
    rows = made.rows()
    square = rows.images.square
    monkeypatch.setattr(rows.images, "square", lambda path: order.append(path) or square(path))

    rows.features = filler.fill(rows, "tower")

    assert order[0] == f"{rank}.png"
    assert sorted(order) == ["0.png", "1.png", "2.png"]


def test_a_process_without_a_share_waits_for_nobody(bench):
    made = bench(images=2)
    rows = made.rows()
    rows.features = made.filler(rank=2, world_size=3).fill(rows, "tower")
    assert all(row.features is not None for row in (rows[0], rows[1]))


@pytest.mark.parametrize(
    ("stage", "others", "kept"),
    [
        ({}, {}, True),
        ({}, {"augment": VIEWS}, False),
        ({}, {"augment": VIEWS, "views": 2}, True),
        ({"trains": ("vision", "projector")}, {}, False),
        ({"trains": ("vision", "projector")}, {"is_training": False}, False),
        ({"cutmix": 0.1}, {}, False),
        ({"cutmix": 0.1}, {"is_training": False}, True),
    ],
)
def test_only_stages_whose_tower_is_frozen_and_whose_rows_are_whole_use_kept_features(bench, stage, others, kept):
    stage = STAGE.model_copy(update=stage)

    assert may_keep(stage, bench().rows(stage=stage, **others)) == kept
