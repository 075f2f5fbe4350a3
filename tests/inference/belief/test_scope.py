"""Pictures in and out of scope: pixels by hand, features drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gastrovl.core.errors import CheckpointError, ModelInputError
from gastrovl.inference.belief.scope import FILE, fit_scope, load_scope, save_scope, tower_summary, unreadable


def picture(pixels):
    return Image.fromarray(np.asarray(pixels, dtype=np.uint8))


def speckled(low, high, shape=(300, 400, 3)):
    return np.random.default_rng(7).integers(low, high, shape)


def test_what_cannot_be_seen_is_said_why():
    assert unreadable(picture(speckled(60, 200))) is None
    assert unreadable(picture(np.zeros((300, 400, 3)))).startswith("empty")
    assert unreadable(picture(speckled(20, 32))) == "dark"  # about 26 of 255, below 0.12
    assert unreadable(picture(np.full((300, 400, 3), 255))) == "overexposed"
    assert unreadable(picture(np.full((300, 400, 3), 128))) == "blurred"


def test_black_borders_do_not_make_a_frame_dark():
    framed = np.zeros((300, 400, 3))
    framed[100:200, 100:300] = speckled(60, 200, (100, 200, 3))

    assert unreadable(picture(framed)) is None


@pytest.fixture
def clouds():
    """Training frames, validation frames and examples of what is outside, in eight features."""
    draws = np.random.default_rng(7)
    shift = np.array([4.0] + [0.0] * 7)
    return (
        draws.normal(0, 1, (400, 8)).astype(np.float32),
        draws.normal(0, 1, (60, 8)).astype(np.float32),
        (draws.normal(0, 1, (200, 8)) + shift).astype(np.float32),
    )


def groups(count):
    return [str(number) for number in range(count)]


def test_strange_frames_lie_far_and_familiar_ones_do_not(clouds):
    train, border, _ = clouds
    scope = fit_scope(train, border, groups(60), level=0.9)

    fresh = np.random.default_rng(8).normal(0, 1, (500, 8)).astype(np.float32)
    strange = np.full((1, 8), 6.0, dtype=np.float32)

    assert (scope.distances(fresh) <= scope.limits.distance).mean() == pytest.approx(0.9, abs=0.06)
    assert scope.judge(picture(speckled(60, 200)), strange[0]).verdict == "unlike"
    assert scope.limits.is_assured
    assert scope.discriminants(fresh) is None


def test_examples_of_what_is_outside_tell_frames_like_them(clouds):
    train, border, outside = clouds
    scope = fit_scope(train, border, groups(60), outside, level=0.9)
    fresh = np.random.default_rng(8).normal(0, 1, (200, 8)).astype(np.float32)
    alike = fresh + np.array([4.0] + [0.0] * 7, dtype=np.float32)

    assert (scope.discriminants(alike) > scope.limits.discriminant).mean() > 0.9
    assert (scope.discriminants(fresh) > scope.limits.discriminant).mean() < 0.2
    answer = scope.judge(picture(speckled(60, 200)), np.array([4.0] + [0.0] * 7, dtype=np.float32))
    assert (answer.verdict, answer.outsideness > 0) == ("outside", True)
    assert scope.judge(picture(speckled(60, 200)), np.zeros(8, dtype=np.float32)).verdict == "in_scope"
    assert scope.judge(picture(np.zeros((300, 400, 3))), np.zeros(8, dtype=np.float32)).verdict == "unreadable"


def test_few_groups_are_said_to_be_few(clouds):
    train, border, _ = clouds
    scope = fit_scope(train, border[:4], groups(4), level=0.9)

    assert not scope.limits.is_assured
    assert scope.limits.distance == pytest.approx(float(scope.distances(border[:4]).max()))


def test_what_is_written_is_read_back(clouds, tmp_path):
    train, border, outside = clouds
    scope = fit_scope(train, border, groups(60), outside)
    save_scope(tmp_path, scope)

    again = load_scope(tmp_path, scope.limits)

    assert np.array_equal(again.distances(border), scope.distances(border))
    assert np.array_equal(again.discriminants(border), scope.discriminants(border))
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="run `gastrovl calibrate` again"):
        load_scope(tmp_path, scope.limits)


def test_too_few_frames_and_models_of_others_are_refused(clouds):
    with pytest.raises(ModelInputError, match="at least 8"):
        fit_scope(clouds[0][:5], clouds[1], groups(60))
    with pytest.raises(ModelInputError, match="no vision tower of ours"):
        tower_summary(object(), None, [])
