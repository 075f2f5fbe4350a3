"""Figures of counts: where slices and labels lie, worked by hand, and files that are the same each time."""

from __future__ import annotations

import itertools
import math
import sys
from xml.etree import ElementTree

import pytest
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import MissingExtraError
from gastrovl.core.types import Finding, ImageRef, Sample, Split
from gastrovl.data.figures import draw_balance, draw_tasks, save_figures
from gastrovl.data.statistics import Tally
from gastrovl.data.sunburst import draw_sunburst, leader, slices, spread_out

TAXONOMY = Taxonomy.load()
LEVEL_3 = [term.id for term in TAXONOMY.terms if term.level == 3]


def counts_of(numbers):
    """Statistics of so many training images for each term, and nothing else."""
    tally = Tally()
    for term, number in numbers.items():
        for n in range(number):
            image = ImageRef(path="x.png", width_px=1, height_px=1, sha256="0" * 64)
            name = f"{term}{n}"
            findings = (Finding(term=term),)
            tally.add(Sample(id=name, image=image, source="own", group=name, split=Split.TRAIN, findings=findings), {})
    return tally.result([], TAXONOMY)


def test_a_slice_is_the_share_of_labels_and_lies_within_its_parent():
    # 10 labels: antrum 4 and body 2 below stomach, itself 1; gastric ulcer 3.
    parts = {
        part.term: (part.level, pytest.approx(part.start), pytest.approx(part.end))
        for part in slices(counts_of({"antrum": 4, "body": 2, "stomach": 1, "gastric_ulcer": 3})["table_3"])
    }
    assert parts == {
        "anatomical_structure": (1, 0.0, 0.7),
        "stomach": (2, 0.0, 0.7),
        "body": (3, 0.1, 0.3),
        "antrum": (3, 0.3, 0.7),
        "pathological_findings": (1, 0.7, 1.0),
        "gastric_diseases": (2, 0.7, 1.0),
        "gastric_ulcer": (3, 0.7, 1.0),
    }


@pytest.mark.parametrize(
    ("wanted", "placed"),
    [
        ([], []),
        ([3.0], [3.0]),
        ([1.0, 5.0], [1.0, 5.0]),
        ([4.0, 4.0, 4.0], [3.0, 4.0, 5.0]),
        ([4.0, 4.5, 9.0], [3.75, 4.75, 9.0]),
        ([0.0, 0.0], [0.0, 1.0]),  # the lower edge holds
        ([10.0, 10.0], [9.0, 10.0]),
    ],
)
def test_labels_keep_their_distance_and_stay_near(wanted, placed):
    assert spread_out(wanted, 1.0, 0.0, 10.0) == pytest.approx(placed)


def test_labels_without_room_share_what_there_is():
    assert spread_out([5.0] * 21, 1.0, 0.0, 10.0) == pytest.approx([n / 2 for n in range(21)])


@pytest.mark.parametrize("side", [1, -1])
def test_a_line_to_a_far_label_goes_around_the_rings(side):
    # From the top of the disc (radius 1) to a label level with its middle; the straight way would cross it.
    points = leader(0.01 if side > 0 else 0.99, 1.0, (side * 1.14, 0.0))
    assert points[-1] == (side * 1.14, 0.0)
    assert all(x * side > 0 for x, _ in points)
    between = [
        (a + (c - a) * share, b + (d - b) * share)
        for (a, b), (c, d) in itertools.pairwise(points)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert min(math.hypot(*point) for point in between) > 0.999


def test_a_line_to_a_near_label_has_one_bend():
    assert len({(round(x, 9), round(y, 9)) for x, y in leader(0.25, 1.0, (1.14, 0.1))}) == 3


def test_sixty_labels_of_very_unlike_size_are_all_named_without_touching():
    numbers = {term: 1 + 3000 // (1 + place) ** 2 for place, term in enumerate(LEVEL_3[:60])}
    figure = draw_sunburst(counts_of(numbers))
    (axes,) = figure.axes
    renderer = figure.canvas.get_renderer()
    names = {TAXONOMY[term].name for term in numbers}
    beside = [text for text in axes.texts if text.get_text().split("  ")[0] in names]
    assert len(beside) == 60
    places = [text.get_window_extent(renderer) for text in beside]
    for index, place in enumerate(places):
        assert figure.bbox.x0 <= place.x0 < place.x1 <= figure.bbox.x1
        assert not any(place.overlaps(other) for other in places[index + 1 :])


def test_a_term_whose_parent_is_too_thin_for_a_name_names_it():
    figure = draw_sunburst(counts_of({"antrum": 999, "duodenal_bulb": 1}))
    assert "duodenal bulb  1  (duodenum)" in [text.get_text() for text in figure.axes[0].texts]


def test_a_label_that_a_split_lacks_is_marked():
    figure = draw_balance(counts_of({"antrum": 2, "body": 1}), TAXONOMY)
    assert [[text.get_text().strip() for text in axes.texts] for axes in figure.axes] == [
        ["1", "2"],
        ["none", "none"],
        ["none", "none"],
    ]


def test_an_axis_is_logarithmic_only_where_bars_are_very_unlike():
    scales = [
        draw_balance(counts_of({"antrum": number, "body": 1}), TAXONOMY).axes[0].get_xscale() for number in (30, 31)
    ]
    assert scales == ["linear", "log"]


def test_every_task_has_a_bar_for_each_split():
    counts = counts_of({"antrum": 1})
    counts["table_1"]["test"]["REC"] = 7
    figure = draw_tasks(counts)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0"] * 8 + ["0", "0", "7", "0"]


def test_figures_are_whole_pictures_of_the_same_bytes_each_time(tmp_path):
    counts = counts_of({"antrum": 4, "gastric_ulcer": 1})
    first = save_figures(tmp_path / "a", counts, TAXONOMY)
    second = save_figures(tmp_path / "b", counts, TAXONOMY)
    assert [path.relative_to(tmp_path / "a").as_posix() for path in first] == [
        f"figures/{name}.{kind}" for name in ("taxonomy", "class_balance", "tasks") for kind in ("png", "svg")
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        if one.suffix == ".png":
            with Image.open(one) as picture:
                assert min(picture.size) > 150
        else:
            assert ElementTree.parse(one).getroot().tag.endswith("svg")


def test_a_dataset_without_labels_has_the_figure_of_its_tasks_only(tmp_path):
    assert [path.name for path in save_figures(tmp_path, Tally().result([], TAXONOMY), TAXONOMY)] == [
        "tasks.png",
        "tasks.svg",
    ]


def test_without_matplotlib_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"gastrovl\[data\]"):
        save_figures(tmp_path, counts_of({"antrum": 1}), TAXONOMY)
    assert not list(tmp_path.iterdir())
