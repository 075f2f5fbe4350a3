"""The drawn set as a folder: it reads back as a source, is reproducible, and no trivial shortcut solves it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.geometry import from_mask, hull, iou
from gastrovl.core.types import Box
from gastrovl.data.images import list_images
from gastrovl.data.source import load_source, read_annotations
from gastrovl.data.synthetic import LESIONS, SITES, write_drawn_set
from gastrovl.data.synthetic.drawn_set import draw_frame

IMAGES = 240


@pytest.fixture(scope="module")
def frames():
    return [draw_frame(7, index) for index in range(IMAGES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_drawn_set(tmp_path_factory.mktemp("drawn"), images=14, seed=7)


def labels_of(frame) -> frozenset[str]:
    return frozenset((frame.site, *(term for term, _ in frame.lesions)))


def test_about_a_third_of_the_frames_has_no_lesion(frames):
    assert 0.25 < np.mean([not frame.lesions for frame in frames]) < 0.45


def test_no_lesion_is_rare(frames):
    terms = [term for frame in frames for term, _ in frame.lesions]
    assert {term: terms.count(term) / len(terms) > 0.04 for term in LESIONS} == dict.fromkeys(LESIONS, True)


def test_lesions_fill_between_a_hundredth_and_a_third_of_the_frame(frames):
    areas = [box.area for frame in frames for _, box in frame.lesions]
    assert min(areas) > 0.01
    assert max(areas) < 0.33
    assert np.percentile(areas, 90) > 2.5 * np.percentile(areas, 10)


def test_lesions_lie_all_over_the_frame(frames):
    centres = np.array([((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) for frame in frames for _, box in frame.lesions])
    assert np.histogram2d(*centres.T, bins=3, range=[(0, 1), (0, 1)])[0].min() > 0.02 * len(centres)


def test_the_nearest_thumbnail_rarely_has_the_same_labels(frames):
    thumbnails = np.array(
        [
            np.asarray(Image.fromarray(frame.pixels).resize((4, 4), Image.Resampling.BOX), float).ravel()
            for frame in frames
        ]
    )
    known = 200
    hits = [
        labels_of(frames[index])
        == labels_of(frames[int(np.argmin(((thumbnails[:known] - thumbnails[index]) ** 2).sum(axis=1)))])
        for index in range(known, IMAGES)
    ]
    assert np.mean(hits) < 0.45


def test_the_commonest_labels_fit_few_frames(frames):
    labels = [labels_of(frame) for frame in frames]
    assert max(labels.count(each) for each in set(labels)) < 0.2 * IMAGES


def test_the_mean_box_hits_few_lesions(frames):
    boxes = [box for frame in frames for _, box in frame.lesions]
    x0, y0, x1, y1 = np.mean([box.xyxy for box in boxes], axis=0)
    mean_box = Box(x0=x0, y0=y0, x1=x1, y1=y1)
    assert np.mean([iou(mean_box, box) >= 0.5 for box in boxes]) < 0.1


def test_no_colour_channel_gives_a_site_away(frames):
    """The mean colour of a frame's middle tells less than half of the sites: hue and exposure vary on their own."""
    means = np.array([frame.pixels[90:170, 90:170].mean(axis=(0, 1)) for frame in frames])
    sites = np.array([index % len(SITES) for index in range(IMAGES)])
    centres = np.array([means[:120][sites[:120] == site].mean(axis=0) for site in range(len(SITES))])
    guesses = ((means[120:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (guesses == sites[120:]).mean() < 0.5


def test_the_folder_reads_back_as_the_packaged_source(folder):
    description, _ = load_source("drawn")
    images = list_images(folder, description.images, max_px=10**7)
    annotations = list(read_annotations(description, folder, images))
    for index in range(14):
        frame = draw_frame(7, index)
        mine = [annotation for annotation in annotations if annotation.image.stem == f"drawn-{index:05d}"]
        assert {annotation.label for annotation in mine} == labels_of(frame)
        assert [(annotation.label, annotation.box) for annotation in mine if annotation.box] == [
            (term, box) for term, box in frame.lesions
        ]
        assert {annotation.group for annotation in mine if annotation.group} == {f"video-{index // 6:04d}"}
    assert images.broken == []


def test_every_drawable_label_is_mapped_by_the_source():
    description, _ = load_source("drawn")
    assert set(description.labels) == {*LESIONS, *SITES, "normal_esophagus", "lower_esophagus"} - {"esophagus"}
    assert all(rule.term in Taxonomy.load() for rule in description.labels.values())


def test_every_lesion_label_has_a_box_and_every_image_a_row(folder):
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    boxes = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    boxed = {(f"{stem}.jpg", entry["label"]) for stem, content in boxes.items() for entry in content["bbox"]}
    assert {(row["file"], row["label"]) for row in rows if row["label"] in LESIONS} == boxed
    assert {row["file"] for row in rows} == {path.name for path in (folder / "images").iterdir()}


def test_every_kind_of_lesion_of_a_frame_has_a_mask_that_fills_its_boxes(folder):
    expected = set()
    for index in range(14):
        frame = draw_frame(7, index)
        for term in {term for term, _ in frame.lesions}:
            name = f"drawn-{index:05d}_{term}.png"
            expected.add(name)
            with Image.open(folder / "masks" / name) as picture:
                mask = np.asarray(picture)
            assert set(np.unique(mask)) == {0, 255}
            boxes = tuple(box for other, box in frame.lesions if other == term)
            assert from_mask(mask > 0) == hull(boxes)
    assert {path.name for path in (folder / "masks").iterdir()} == expected


def test_the_same_seed_writes_the_same_bytes(folder, tmp_path):
    again = write_drawn_set(tmp_path / "again", images=14, seed=7)
    for path in sorted(folder.rglob("*.*")):
        assert path.read_bytes() == (again / path.relative_to(folder)).read_bytes()


def test_a_larger_set_begins_like_a_smaller_one(folder, tmp_path):
    smaller = write_drawn_set(tmp_path / "smaller", images=3, seed=7)
    for path in (smaller / "images").iterdir():
        assert path.read_bytes() == (folder / "images" / path.name).read_bytes()


def test_another_seed_draws_another_set(folder, tmp_path):
    other = write_drawn_set(tmp_path / "other", images=3, seed=8)
    assert (other / "images/drawn-00000.jpg").read_bytes() != (folder / "images/drawn-00000.jpg").read_bytes()


def test_progress_counts_every_frame(tmp_path):
    seen = []
    write_drawn_set(tmp_path / "set", images=3, seed=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
