"""The model that comes along: small, safe to load, licensed, named by one word, and able to answer a drawn frame."""

from __future__ import annotations

import re

import pytest
import yaml
from PIL import Image

from gastrovl.core.errors import CheckpointError
from gastrovl.core.geometry import iou
from gastrovl.core.types import Box
from gastrovl.data.synthetic.drawn_set import draw_frame
from gastrovl.inference import starter
from gastrovl.inference.loading import load_predictor
from gastrovl.inference.starter import REMARK, checkpoint_folder, remark_of, starter_folder

SEED = 9  # of `gastrovl data draw`, which is not the one it was trained with


@pytest.fixture(scope="module")
def predictor():
    return load_predictor("starter", "cpu")


def test_the_word_means_the_folder_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert checkpoint_folder("starter") == starter_folder()
    assert checkpoint_folder("runs/starter").as_posix() == "runs/starter"


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "starter").mkdir()

    assert checkpoint_folder("starter").resolve() == tmp_path / "starter"
    assert remark_of("starter") is None


def test_an_installation_without_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(starter, "starter_folder", lambda: tmp_path / "nowhere")

    with pytest.raises(CheckpointError, match=r"this installation lacks the starter model .* install the package anew"):
        load_predictor("starter", "cpu")


def test_people_are_told_of_it_by_whatever_name_and_of_no_other_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert remark_of("starter") == remark_of(starter_folder()) == REMARK
    assert remark_of(tmp_path) is None
    assert remark_of(tmp_path / "not there") is None
    assert "not for upper-GI work, not for patients" in REMARK


def test_it_is_below_five_million_bytes_and_holds_nothing_but_a_model():
    files = sorted(starter_folder().iterdir())

    assert sum(file.stat().st_size for file in files) < 5_000_000
    assert {file.suffix for file in files} == {".json", ".jinja", ".md", ".safetensors"}


def test_its_card_has_licence_attribution_figures_and_limits():
    text = (starter_folder() / "README.md").read_text(encoding="utf-8")
    head, card = yaml.safe_load(text.split("---\n")[1]), " ".join(text.split())

    assert head["license"] == "cc-by-4.0"
    assert head["datasets"] == ["drawn", "hyperkvasir"]
    assert "Borgli et al." in card
    assert "not for upper-GI work" in card
    row = re.search(r"\| polyps, mean IoU \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \| (\d+) \| ([\d.]+) \(", card)
    value, low, high, count, baseline = map(float, row.groups())
    assert baseline < low <= value <= high
    assert count > 50
    assert "](training.png)" not in card
    assert not re.search(r"(?<![\w.])/(?:home|tmp|root|work)/", card)


def test_it_finds_more_of_what_is_drawn_than_a_fixed_box(predictor):
    middle, found, fixed = Box(x0=0.3, y0=0.3, x1=0.7, y1=0.7), [], []
    for index in range(36):
        drawn = draw_frame(SEED, index)
        if len(drawn.lesions) != 1:
            continue
        [(term, box)] = drawn.lesions
        boxes = predictor.locate(Image.fromarray(drawn.pixels), term).boxes
        found.append(max((iou(one, box) for one in boxes), default=0.0))
        fixed.append(iou(middle, box))

    assert len(found) >= 12
    assert sum(found) > 1.5 * sum(fixed)
    assert sum(overlap >= 0.5 for overlap in found) >= 4 > sum(overlap >= 0.5 for overlap in fixed)


@pytest.mark.real_data
def test_it_boxes_most_polyps_of_the_set_it_was_trained_on(predictor, real_data_root):
    """A test that the right weights are in the folder; figures on frames it has not seen stand in its card."""
    import json

    from gastrovl.core.images import open_image

    folder = real_data_root / "hyperkvasir"
    boxes = json.loads((folder / "bounding-boxes.json").read_text(encoding="utf-8"))
    files = sorted((folder / "images").rglob("*.jpg"))
    polyps = [file for file in files if len(boxes.get(file.stem, {}).get("bbox", ())) == 1][::40]
    right = 0
    for file in polyps:
        image, entry = open_image(file), boxes[file.stem]
        true = entry["bbox"][0]
        given = predictor.locate(image, "polyp").boxes
        size = (entry["width"], entry["height"])
        expected = Box(
            x0=true["xmin"] / size[0], y0=true["ymin"] / size[1], x1=true["xmax"] / size[0], y1=true["ymax"] / size[1]
        )
        right += any(iou(one, expected) >= 0.5 for one in given)

    assert len(polyps) >= 15
    assert right > len(polyps) / 2
