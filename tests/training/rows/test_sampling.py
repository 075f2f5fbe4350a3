"""Sampling: shares by hand, epochs that keep them, the same order in every process."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from gastrovl.core.types import Conversation, ImageRef, Split, Target, Task, Turn
from gastrovl.training.config import SamplingConfig
from gastrovl.training.rows.sampling import epoch_order, shares_of


def dialogue(image, task=Task.CLS, terms=("polyp",), source="a"):
    return Conversation(
        id=f"{image}/{task}/{'+'.join(terms)}",
        sample_id=str(image),
        task=task,
        image=ImageRef(path=f"{image}.png", width_px=8, height_px=8, sha256="0" * 64),
        source=source,
        group=str(image),
        split=Split.TRAIN,
        turns=(Turn(role="user", text="?"), Turn(role="assistant", text="!")),
        target=Target(terms=terms),
    )


POLYPS_AND_ULCERS = [[dialogue(n)] for n in range(9)] + [[dialogue(9, terms=("ulcer",))]]


def shares(groups, temperature, by=("class",), dialogues_per_image=None):
    return shares_of(groups, SamplingConfig(temperature=temperature, by=by), dialogues_per_image)


@pytest.mark.parametrize(
    ("temperature", "ulcer"),
    [
        (1, 0.1),  # 1 of 10
        (2, 1 / 4),  # the roots of 9 and 1 are 3 and 1
        (1e9, 0.5),  # two classes, alike
    ],
)
def test_a_class_comes_up_by_the_root_of_its_size(temperature, ulcer):
    found = shares(POLYPS_AND_ULCERS, temperature)

    assert found.images[9] == pytest.approx(ulcer)
    assert found.images[:9].tolist() == pytest.approx([(1 - ulcer) / 9] * 9)


def test_a_dialogue_about_two_terms_belongs_to_both_by_half():
    groups = [[dialogue(0)], [dialogue(1, terms=("polyp", "ulcer"))]]

    # polyp 1.5 and ulcer 0.5 dialogues; alike, each class has a half: 1/2 / 1.5 * 1, and 1/2 / 1.5 * 0.5 + 1/2
    assert shares(groups, 1e9).images.tolist() == pytest.approx([1 / 3, 2 / 3])


def test_strata_are_what_by_names_and_a_term_counts_once_a_dialogue():
    groups = [
        [dialogue(0, source="a")],
        [dialogue(1, source="a", terms=("ulcer", "ulcer"))],
        [dialogue(2, source="b")],
        [dialogue(3, source="b", task=Task.REC)],
        [dialogue(4, source="b", task=Task.REC)],
    ]

    by_source, by_task = (shares(groups, 1e9, (name,)).images for name in ("source", "task"))
    by_all = shares(groups, 1e9, ("task", "class", "source")).images

    assert by_source.tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 6, 1 / 6, 1 / 6])
    assert by_task.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4])
    assert by_all.tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8])


def test_dialogues_without_a_term_are_a_stratum_of_their_own():
    groups = [[dialogue(0)], [dialogue(1)], [dialogue(2, terms=())]]

    assert shares(groups, 1e9).images.tolist() == pytest.approx([1 / 4, 1 / 4, 1 / 2])


def test_images_of_many_dialogues_come_as_often_as_their_dialogues_need():
    groups = [[dialogue(0)], [dialogue(1), dialogue(1, Task.REC), dialogue(1, Task.REG)]]

    # at temperature 1 each of four dialogues has a quarter; an image that shows all of them need come no more often
    assert shares(groups, 1).images.tolist() == pytest.approx([0.5, 0.5])
    assert shares(groups, 1, dialogues_per_image=1).images.tolist() == pytest.approx([1 / 4, 3 / 4])
    assert shares(groups, 1, dialogues_per_image=2).images.tolist() == pytest.approx([0.25 / 0.625, 0.375 / 0.625])


def test_with_equal_shares_an_epoch_shows_every_image_once_in_another_order():
    orders = [epoch_order(np.full(97, 1 / 97), seed=3, epoch=epoch) for epoch in range(20)]

    assert all(sorted(order) == list(range(97)) for order in orders)
    assert len({tuple(order) for order in orders}) == 20


def test_an_epoch_shows_each_image_its_share_rounded_up_or_down_and_over_epochs_exactly():
    images = np.array([0.5, 0.26, 0.14, 0.06, 0.04])
    counts = Counter()
    for epoch in range(2000):
        order = epoch_order(images, seed=3, epoch=epoch)
        once = Counter(index % 5 for index in order)
        assert len(order) == 5
        assert all(np.floor(5 * share) <= once[image] <= np.ceil(5 * share) for image, share in enumerate(images))
        counts += once

    # the standard error of a share is below sqrt(0.25 / 2000) / 5 = 0.0022
    assert [counts[image] / 10_000 for image in range(5)] == pytest.approx(images.tolist(), abs=0.01)


def test_an_image_that_comes_again_has_an_index_of_its_own():
    order = epoch_order(np.array([0.75, 0.25, 0.0, 0.0]), seed=1, epoch=0)

    assert sorted(order) == [0, 1, 4, 8]  # the first image three times: 0, 0 + 4, 0 + 8
    assert [index for index in order if index % 4 == 0] == [0, 4, 8]


def test_the_order_repeats_by_seed_and_epoch():
    images = np.full(50, 1 / 50)

    assert epoch_order(images, 1, 2) == epoch_order(images, 1, 2)
    assert epoch_order(images, 1, 2) != epoch_order(images, 2, 2)
