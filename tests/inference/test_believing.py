"""What a calibrated checkpoint makes of its own replies and of pictures: by hand, and through a tiny model."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import CheckpointError, ConfigError
from gastrovl.core.images import open_image
from gastrovl.core.types import Box, Task
from gastrovl.inference import asking
from gastrovl.inference.abstention import Abstention, Fallback
from gastrovl.inference.believing import Trust
from gastrovl.inference.calibration import Calibration, Confidence, TaskCalibration, Ways, weights_hash
from gastrovl.inference.calibration import write_calibration as write
from gastrovl.inference.conformal import LabelSets
from gastrovl.inference.loading import load_predictor
from gastrovl.inference.looking import Manner
from gastrovl.inference.predictor import Predictor
from gastrovl.inference.question import Question, Reply
from gastrovl.inference.scaling import FittedScaling, Scaling
from gastrovl.inference.scope import Scope, ScopeLimits, save_scope
from gastrovl.inference.verdicts import Belief, Check, ScopeAnswer

BOX = Box(x0=0.125, y0=0.25, x1=0.5, y1=0.75)


def confidence(threshold, **drops):
    fitted = FittedScaling(kind="platt", scaling=Scaling(slope=1, shift=1), drops=drops, nll={}, n=1, groups=1)
    given = Abstention(threshold=threshold, risk=0.1, is_assured=False, kept_groups=3)
    return Confidence(scaling=fitted, abstention=given)


def fitted(threshold, sets=None):
    return TaskCalibration(rest=Ways(plain=confidence(threshold), checked=confidence(threshold, single=1)), sets=sets)


def limits(distance=1.0):
    return ScopeLimits(level=0.9, distance=distance, train_frames=9, border_frames=9, border_groups=9, is_assured=True)


@pytest.fixture(scope="module")
def folder(learnt, tmp_path_factory):
    """A checkpoint whose labels of an image are withheld, and to which every picture is strange."""
    folder = tmp_path_factory.mktemp("believing") / "model"
    shutil.copytree(learnt[0], folder)
    predictor = Predictor.load(folder, "cpu")
    size = len(Predictor._summaries(predictor, [open_image(learnt[1].parent / "0.png")])[0])
    save_scope(folder, Scope(limits(), np.zeros(size), np.ones(size), 1e6 * np.eye(size)))
    several = LabelSets(kind="several", level=0.9, least=0.0, groups=9, is_informative=False)
    calibration = Calibration(
        model="m",
        weights=weights_hash(folder),
        answered_as=predictor.fingerprint,
        conversations="c",
        predictions="p",
        level=0.9,
        risk=0.1,
        tasks={Task.CLS: fitted(2.0, several), Task.REC: fitted(0.0), Task.REG: fitted(0.0)},
        scope=limits(),
        version="1",
    )
    write(folder, calibration)
    return folder


@pytest.fixture(scope="module")
def image(learnt):
    return open_image(learnt[1].parent / "0.png")


def test_typed_answers_carry_what_to_believe_of_them(folder, image):
    raw, believing = Predictor.load(folder, "cpu"), Predictor.load(folder, "cpu", believes=True)

    labels, plain = believing.classify(image), raw.classify(image)

    odds = plain.confidence / (1 - plain.confidence) * np.e  # a shift of 1 on the logit
    assert labels.confidence == pytest.approx(odds / (1 + odds), abs=1e-4)
    assert (labels.calibrated, plain.calibrated, plain.belief) == (True, False, None)
    assert labels.text == plain.text
    assert labels.belief.is_withheld
    assert set(labels.belief.label_set) == set(labels.probabilities)
    assert (labels.belief.level, labels.belief.risk, labels.belief.is_assured) == (0.9, 0.1, False)
    place, region = believing.locate(image, "polyp"), believing.name_region(image, BOX)
    assert (place.calibrated, place.belief.is_withheld) == (True, False)
    assert (region.calibrated, region.belief.is_withheld) == (True, False)


def test_free_text_is_not_calibrated_but_its_picture_is_judged(folder, image):
    believing = load_predictor(folder, "cpu")

    text = believing.describe(image)
    pieces = believing.stream(Question(image, (("user", "What does the image show?"),)))
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            streamed = end.value
            break

    assert not text.calibrated
    assert text.belief.scope.verdict == streamed.belief.scope.verdict == believing.judge(image).verdict != "in_scope"


def test_checks_are_made_when_asked_for_and_raw_answers_carry_nothing(folder, image):
    checked = load_predictor(folder, "cpu", Manner(makes_checks=True)).locate(image, "polyp")
    raw = load_predictor(folder, "cpu", Manner(is_raw=True)).locate(image, "polyp")

    assert checked.belief.checks
    assert raw.belief is None
    with pytest.raises(ConfigError, match="give one of the two"):
        Manner(is_raw=True, makes_checks=True)


def test_checks_without_a_calibration_and_a_calibration_of_other_weights_are_refused(learnt, folder, tmp_path):
    with pytest.raises(ConfigError, match="no calibration with checks"):
        Predictor.load(learnt[0], "cpu", makes_checks=True)
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "more.safetensors").write_bytes((tmp_path / "model" / "scope.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="fitted on other weights"):
        load_predictor(tmp_path / "model", "cpu")
    assert load_predictor(tmp_path / "model", "cpu", Manner(is_raw=True)).trust is None


def speckled():
    return Image.fromarray(np.random.default_rng(7).integers(60, 200, (300, 400, 3), dtype=np.uint8))


def test_a_picture_is_judged_once_for_all_questions_about_it():
    first, second = speckled(), speckled()
    seen = []

    def summarises(images):
        seen.append(len(images))
        return np.array([[0.5], [3.0]], dtype=np.float32)

    trust = Trust(scope=Scope(limits(), np.zeros(1), np.ones(1), np.eye(1)))
    asked = [Question(one, (("user", "What is it?"),)) for one in (first, second, first)]
    reply = Reply("A polyp.", 0.5, 0.0, "end")

    found = trust(lambda *_: [], summarises, asked, [reply] * 3)

    assert seen == [2]
    assert [one.belief.scope.verdict for one in found] == ["in_scope", "unlike", "in_scope"]
    assert found[1].belief.scope.strangeness == pytest.approx(3.0)
    assert replace(found[0], belief=None) == reply


def test_without_anything_fitted_only_an_unreadable_picture_is_told():
    reply = Reply("A polyp.", 0.5, 0.0, "end")
    pictures = [speckled(), Image.new("RGB", (64, 64))]
    asked = [Question(one, (("user", "What is it?"),)) for one in pictures]

    fine, black = Trust()(lambda *_: [], lambda _: np.zeros((2, 1), dtype=np.float32), asked, [reply, reply])

    assert fine == reply
    assert black.belief == Belief(scope=ScopeAnswer("unreadable", "empty: nearly all of it is black"))


def test_a_reply_that_carries_a_belief_gives_answers_that_do():
    belief = Belief(
        is_calibrated=True,
        label_set=("esophagitis", "z_line"),
        level=0.9,
        is_withheld=True,
        fallback=(Fallback(term="esophageal_diseases", probability=0.95),),
        checks=(Check("caption", passed=False, detail="the caption names no finding"),),
    )
    reply = Reply("esophagitis", 0.5, 0.0, "end", {"esophagitis": 0.5}, belief=belief)

    labels, text = asking.label_answer(reply, Taxonomy.load()), asking.text_answer(reply)
    boxes = asking.box_answer(replace(reply, text="absent"), Taxonomy.load())

    assert labels.belief == boxes.belief == text.belief == belief
    assert labels.calibrated
    assert boxes.calibrated
