"""calibration.json, and what it makes of replies: by hand, and through a whole checkpoint of a tiny model."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import CheckpointError, ConfigError
from gastrovl.core.types import Task
from gastrovl.inference.belief.abstention import Abstention
from gastrovl.inference.belief.believing import load_believer
from gastrovl.inference.belief.calibration import (
    FILE,
    Calibration,
    Confidence,
    TaskCalibration,
    Ways,
    believed,
    read_calibration,
    subject_of,
    weights_hash,
    write_calibration,
)
from gastrovl.inference.belief.conformal import LabelSets
from gastrovl.inference.belief.fitting import Case, fit_task, presence_cut
from gastrovl.inference.belief.scaling import FittedScaling, FittedTemperature, Scaling
from gastrovl.inference.belief.verdicts import Belief, Check
from gastrovl.inference.question import Question, Reply

TAXONOMY = Taxonomy.load()
PICTURE = Image.new("RGB", (8, 8))


def scaling(slope=1.0, shift=0.0, **drops):
    return FittedScaling(kind="platt", scaling=Scaling(slope=slope, shift=shift), drops=drops, nll={}, n=1, groups=1)


def ways(threshold, *, slope=1.0, shift=0.0, **drops):
    abstention = Abstention(threshold=threshold, risk=0.1, is_assured=True, kept_groups=30)
    checked = Confidence(scaling=scaling(slope, shift, **drops), abstention=abstention) if drops else None
    return Ways(plain=Confidence(scaling=scaling(slope, shift), abstention=abstention), checked=checked)


def calibration(tasks, **changes):
    told = {"model": "m", "weights": "w", "answered_as": "a", "conversations": "c", "predictions": "p"}
    return Calibration(**{**told, "level": 0.9, "risk": 0.1, "tasks": tasks, "version": "1", **changes})


def question(text, task):
    return Question(PICTURE, (("user", text),), task)


REGION = question("What lies in [000,000,500,500]?", Task.REG)
REG = TaskCalibration(
    rest=ways(0.7, slope=2.0, named=math.log(4)),
    of_subject={"polyp_unspecified": ways(0.1)},
    names=FittedTemperature(temperature=2.0, nll={}, n=1, groups=1),
    sets=LabelSets(kind="one", level=0.9, least=0.3, groups=9, is_informative=True),
)


def test_a_withheld_name_falls_back_to_a_wider_one():
    reply = Reply("esophagitis", 0.6, 1.0, "end", {"esophagitis": 0.64, "esophageal_varices": 0.36})

    found = believed(calibration({Task.REG: REG}), REGION, reply, TAXONOMY)

    odds = 1.5**2
    assert found.confidence == pytest.approx(odds / (1 + odds))  # 0.692, below 0.7
    assert found.probabilities == pytest.approx({"esophagitis": 8 / 14, "esophageal_varices": 6 / 14})
    assert found.belief.label_set == ("esophagitis", "esophageal_varices")
    assert found.belief.is_withheld
    assert [one.term for one in found.belief.fallback] == ["esophageal_diseases"]
    assert found.text == "esophagitis"


def test_a_failed_check_divides_the_odds_and_another_subject_has_its_own_threshold():
    checks = (Check("named", passed=False, detail=""), Check("in_frame", passed=True, detail=""))
    reply = Reply("esophagitis", 0.8, 1.0, "end")

    found = believed(calibration({Task.REG: REG}), REGION, reply, TAXONOMY, checks)

    assert found.confidence == pytest.approx(0.8)  # odds 4, squared, and divided by 4
    assert found.belief.checks == checks
    assert not found.belief.is_withheld
    polyp = believed(calibration({Task.REG: REG}), REGION, Reply("polyp", 0.6, 1.0, "end"), TAXONOMY)
    assert (polyp.confidence, polyp.belief.is_withheld) == (pytest.approx(0.6), False)


def test_boxes_carry_calibrated_overlap_and_presence():
    known = TaskCalibration(rest=ways(0.2), box_iou=scaling(shift=-math.log(4)), presence=scaling(shift=math.log(4)))
    reply = Reply("[000,000,500,500]", 0.4, 1.0, "end", presence=0.5, expected_iou=(0.8,))

    found = believed(calibration({Task.REC: known}), question("Where is the polyp?", Task.REC), reply, TAXONOMY)

    assert found.expected_iou == (pytest.approx(0.5),)
    assert found.presence == pytest.approx(0.8)
    assert found.belief.label_set is None


def test_what_was_not_fitted_is_left_as_it_is():
    reply = Reply("A polyp.", 0.6, 1.0, "end")

    found = believed(calibration({Task.REG: REG}), question("Describe it.", Task.CAP), reply, TAXONOMY)

    assert found == replace(reply, belief=Belief())


def test_an_answer_is_about_what_was_asked_for_or_named():
    assert subject_of(Task.REC, "Where is the polyp?", "absent", TAXONOMY) == "polyp_unspecified"
    assert subject_of(Task.REG, "What is it?", "polyp", TAXONOMY) == "polyp_unspecified"
    assert subject_of(Task.REG, "What is it?", "who knows", TAXONOMY) is None
    assert subject_of(Task.CLS, "What is it?", "polyp", TAXONOMY) is None


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return tmp_path


def test_a_calibration_is_read_back_and_the_same_bytes_are_written(folder):
    known = calibration({Task.REG: REG}, weights=weights_hash(folder))
    first = write_calibration(folder, known).read_bytes()

    assert read_calibration(folder) == known
    assert write_calibration(folder, read_calibration(folder)).read_bytes() == first
    assert read_calibration(folder).fingerprint == known.fingerprint
    assert read_calibration(folder / "elsewhere") is None


def test_a_calibration_of_other_weights_is_refused(folder):
    write_calibration(folder, calibration({Task.REG: REG}, weights=weights_hash(folder)))
    (folder / "scope.safetensors").write_bytes(b"beside the weights, and none of them")
    assert read_calibration(folder) is not None
    (folder / "model.safetensors").write_bytes(b"trained on")

    with pytest.raises(CheckpointError, match="fitted on other weights"):
        read_calibration(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": "gastrovl/calibration/0"}'])
def test_a_broken_calibration_is_refused(folder, content):
    (folder / FILE).write_text(content, encoding="utf-8")

    with pytest.raises(CheckpointError, match="run `gastrovl calibrate` again"):
        read_calibration(folder)


def test_a_folder_without_weights_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="holds no"):
        weights_hash(tmp_path)


def test_a_calibration_applies_to_the_way_of_answering_it_was_fitted_on(folder):
    write_calibration(folder, calibration({Task.CLS: TaskCalibration(rest=ways(0.5))}, weights=weights_hash(folder)))

    believer = load_believer(folder, "a")
    assert believer is not None
    assert believer.fingerprint("a") != "a"
    assert load_believer(folder, "words") is None
    with pytest.raises(ConfigError, match="no calibration with checks"):
        load_believer(folder, "a", makes_checks=True)


def easy_and_hard():
    easy = [
        Case(f"e{number}", 0.95, True, frozenset({"polyp_unspecified"}), {"polyp_unspecified": 0.95, "z_line": 0.05},
             subject="polyp_unspecified")
        for number in range(40)
    ]  # fmt: skip
    hard = [
        Case(f"h{number}", 0.95, number % 2 == 0, frozenset({"z_line"}), {"polyp_unspecified": 0.05, "z_line": 0.95},
             subject="z_line")
        for number in range(12)
    ]  # fmt: skip
    return [*easy, *hard]


def test_easy_answers_do_not_vouch_for_hard_ones():
    known = fit_task(Task.REG, easy_and_hard(), level=0.9, risk=0.1)

    easy, hard = known.ways("polyp_unspecified").plain, known.ways("z_line").plain
    assert set(known.of_subject) == {"polyp_unspecified"}
    assert hard.scaling(0.95) < 0.8 < 0.95 < easy.scaling(0.95)
    assert easy.abstention.is_assured
    assert not easy.abstention.withholds(easy.scaling(0.95))
    assert not hard.abstention.is_assured
    assert hard.abstention.withholds(hard.scaling(0.95))


def test_a_cut_of_presence_needs_enough_of_both_kinds():
    cases = [
        Case(str(number), 0.5, True, is_present=number % 2 == 0, presence=0.9 if number % 2 == 0 else 0.6)
        for number in range(20)
    ]

    assert presence_cut(cases) == 0.61
    assert presence_cut(cases, least=11) is None


def test_boxes_are_calibrated_by_the_overlap_they_had():
    cases = [
        Case(str(number), 0.8, False, is_present=True, presence=0.9, expected_iou=(0.8,), ious=(0.4,))
        for number in range(100)
    ]

    known = fit_task(Task.REC, cases, level=0.9, risk=0.1)

    assert known.box_iou(0.8) == pytest.approx(0.4, abs=0.03)
    assert known.presence(0.9) > 0.9
    assert known.presence_least is None


def test_a_copied_checkpoint_keeps_its_calibration(folder, tmp_path):
    write_calibration(folder, calibration({Task.REG: REG}, weights=weights_hash(folder)))
    shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))

    assert read_calibration(tmp_path / "copy") == read_calibration(folder)
    assert json.loads((folder / FILE).read_text(encoding="utf-8"))["schema"] == "gastrovl/calibration/1"


def of_two_sources():
    """Names that are always right in one source, and half of the time in the other; both say 0.7."""
    told = {"esophagitis": 0.7, "esophageal_varices": 0.3}
    easy = [Case(f"e{number}", 0.7, True, frozenset({"esophagitis"}), told, source="easy") for number in range(60)]
    hard = [
        Case(f"h{number}", 0.7, bool(number % 2), frozenset({list(told)[1 - number % 2]}), told, source="hard")
        for number in range(30)
    ]
    return easy + hard


def test_each_source_has_its_own_and_what_is_unknown_the_strictest():
    known = fit_task(Task.REG, of_two_sources(), level=0.9, risk=0.1)

    assert set(known.of_source) == {"easy", "hard"}
    easy, hard = known.of("easy"), known.of("hard")
    assert easy.rest.plain.scaling(0.7) > 0.85 > 0.6 > hard.rest.plain.scaling(0.7)
    assert not easy.rest.plain.abstention.withholds(easy.rest.plain.scaling(0.7))
    for unsure in (hard, known, known.of("elsewhere"), known.of(None)):
        assert unsure.rest.plain.abstention.withholds(unsure.rest.plain.scaling(0.7))
    told = {"esophagitis": 0.7, "esophageal_varices": 0.3}
    assert easy.sets(easy.names(told)) == ("esophagitis",)
    assert set(hard.sets(hard.names(told))) == set(known.sets(known.names(told))) == set(told)
    assert fit_task(Task.REG, of_two_sources()[:60], level=0.9, risk=0.1).of_source == {}


def test_a_question_that_says_its_source_is_judged_by_it():
    known = calibration({Task.REG: fit_task(Task.REG, of_two_sources(), level=0.9, risk=0.1)})
    reply = Reply("esophagitis", 0.7, 1.0, "end", {"esophagitis": 0.7, "esophageal_varices": 0.3})

    found = {name: believed(known, replace(REGION, source=name), reply, TAXONOMY) for name in ("easy", "hard", None)}

    assert [found[name].belief.is_withheld for name in found] == [False, True, True]
    assert found["easy"].confidence > found[None].confidence > found["hard"].confidence
