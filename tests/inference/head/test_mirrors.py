"""Mirror images and what is said of them, turned back by hand; and a head without a side."""

from __future__ import annotations

import pytest
import torch

from gastrovl.core.types import Box
from gastrovl.inference.head.mirrors import mean_located, mean_probabilities, mirrored, mirrored_regions
from gastrovl.model.perception import Located

PIXELS = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])  # one image, one channel


def test_the_views_are_the_image_and_its_mirror_images():
    found = mirrored(PIXELS, 4)[:, 0].tolist()

    assert found == [[[1, 2], [3, 4]], [[2, 1], [4, 3]], [[3, 4], [1, 2]], [[4, 3], [2, 1]]]
    assert mirrored(PIXELS, 1).tolist() == PIXELS.tolist()


def test_views_come_view_by_view_and_regions_with_them():
    two = torch.cat([PIXELS, PIXELS + 10])
    boxes = [Box(x0=0, y0=0, x1=0.25, y1=0.5), Box(x0=0.5, y0=0.5, x1=1, y1=1)]

    assert mirrored(two, 2)[:, 0, 0, 0].tolist() == [1, 11, 2, 12]
    assert [box.xyxy for box in mirrored_regions(boxes, 4)] == [
        (0, 0, 0.25, 0.5),
        (0.5, 0.5, 1, 1),
        (0.75, 0, 1, 0.5),
        (0, 0.5, 0.5, 1),
        (0, 0.5, 0.25, 1),
        (0.5, 0, 1, 0.5),
        (0.75, 0.5, 1, 1),
        (0, 0, 0.5, 0.5),
    ]


def located(place: tuple[int, int], box: tuple[float, ...], quality: float, presence: float) -> Located:
    """Of one image of 2 x 2 cells: a mask of one cell, and in every cell the same box."""
    masks, qualities = torch.full((1, 2, 2), -4.0), torch.full((1, 2, 2), 0.0)
    masks[0][place] = 4.0
    qualities[0][place] = quality
    return Located(masks, torch.tensor(box).expand(1, 2, 2, 4), qualities, torch.tensor([presence]))


def together(*said: Located) -> Located:
    return Located(
        torch.cat([one.masks for one in said]),
        torch.cat([one.boxes for one in said]),
        torch.cat([one.qualities for one in said]),
        torch.cat([one.presence for one in said]),
    )


def test_what_is_said_of_each_view_is_turned_back_before_it_is_averaged():
    views = together(  # the same thing, top left in the image
        located((0, 0), (0.0, 0.0, 0.5, 0.25), 1.0, 2.0),
        located((0, 1), (0.5, 0.0, 1.0, 0.25), 2.0, 0.0),
        located((1, 0), (0.0, 0.75, 0.5, 1.0), 3.0, 0.0),
        located((1, 1), (0.5, 0.75, 1.0, 1.0), 4.0, 2.0),
    )

    mean = mean_located(views, 4)

    assert mean.masks[0].tolist() == [[4, -4], [-4, -4]]
    assert mean.boxes[0, 0, 0].tolist() == [0.0, 0.0, 0.5, 0.25]
    assert mean.qualities[0].tolist() == [[2.5, 0], [0, 0]]
    assert mean.presence.tolist() == [1.0]


def test_views_that_disagree_meet_in_the_middle():
    views = together(located((0, 0), (0.0, 0.0, 0.5, 0.5), 0.0, 0.0), located((0, 0), (0.25, 0.0, 1.0, 1.0), 0.0, 0.0))

    mean = mean_located(views, 2)

    assert mean.masks[0].tolist() == [[0, 0], [-4, -4]]
    assert mean.boxes[0, 0, 0].tolist() == [0.0, 0.0, 0.625, 0.75]  # the second one back: 0 to 0.75, 0 to 1


def test_one_view_stays_what_it_is():
    only = located((0, 0), (0.1, 0.2, 0.5, 0.5), 1.0, 1.0)

    assert mean_located(only, 1) is only


def test_probabilities_of_two_images_in_two_views_are_averaged_image_by_image():
    said = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.4, 0.6], [1.0, 0.0]])

    assert mean_probabilities(said, 2).tolist() == [pytest.approx([0.3, 0.7]), pytest.approx([0.8, 0.2])]
