"""calibration.json of a checkpoint folder, and a reply to what one may believe of it.

The file belongs to the weights it was fitted on and to one way of answering (perception head or words); a checkpoint
that was trained on refuses it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from gastrovl.clinical.answers import LabelAnswer, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.config import Config
from gastrovl.core.errors import CheckpointError
from gastrovl.core.files import sha256_file, write_text
from gastrovl.core.types import Task
from gastrovl.inference.belief.abstention import Abstention, Fallback, wider_term
from gastrovl.inference.belief.checks import term_asked
from gastrovl.inference.belief.conformal import LabelSets
from gastrovl.inference.belief.scaling import FittedScaling, FittedTemperature
from gastrovl.inference.belief.scope import FILE as SCOPE_FILE
from gastrovl.inference.belief.scope import ScopeLimits
from gastrovl.inference.belief.verdicts import Belief, Check
from gastrovl.inference.question import Question, Reply

FILE = "calibration.json"
SCHEMA = "gastrovl/calibration/1"


class Confidence(Config):
    """The raw confidence of an answer to the probability that it is right, and from which one on it is given."""

    scaling: FittedScaling
    abstention: Abstention


class Ways(Config):
    """Of answers without and with checks; `checked` is None where none were made."""

    plain: Confidence
    checked: Confidence | None = None

    def way(self, *, has_checks: bool) -> Confidence:
        """What applies to an answer that was checked, or was not."""
        return self.checked if has_checks and self.checked is not None else self.plain


class TaskCalibration(Config):
    """All that was fitted for one task.

    Attributes:
        rest: Of the answers whose subject is none of `of_subject`.
        of_subject: By the term that REC asks for or REG answers, where it had conformal.OWN_GROUPS groups of its own:
            many easy answers of one kind say nothing of the others.
        presence_of_labels: Of each label of CLS on its own.
        names: Of the names of REG, which sum to 1.
        sets: Label sets of CLS and REG, made of the calibrated probabilities.
        box_iou: The IoU that the perception head expects of a box, to the mean IoU of such boxes.
        presence: Of what REC asks for.
        presence_least: Raw presence from which "present" is said, so that answers are right most often in the mean over
            questions about present and about absent things; None where there were too few to say. It is stated, not
            applied: a reply is never rewritten.
        of_source: The same for questions that say which of these sources they are from, where there were several and
            this one had conformal.SOURCE_GROUPS groups. What applies to others is then strict enough for each of them.
    """

    rest: Ways
    of_subject: dict[str, Ways] = Field(default_factory=dict)
    presence_of_labels: FittedScaling | None = None
    names: FittedTemperature | None = None
    sets: LabelSets | None = None
    box_iou: FittedScaling | None = None
    presence: FittedScaling | None = None
    presence_least: float | None = None
    of_source: dict[str, TaskCalibration] = Field(default_factory=dict)

    def of(self, source: str | None) -> TaskCalibration:
        """What applies to questions from `source`."""
        return self if source is None else self.of_source.get(source, self)

    def ways(self, subject: str | None) -> Ways:
        """What applies to an answer about `subject`, a term id."""
        return self.rest if subject is None else self.of_subject.get(subject, self.rest)


class Calibration(Config):
    """What stands in calibration.json.

    Attributes:
        model: Name of the checkpoint.
        weights: Hash of its weight files.
        answered_as: Fingerprint of the predictor whose predictions were used: weights, card and way of answering.
        conversations, predictions: SHA-256 of the files it was fitted on; of folds, of these hashes in their order.
        answered_by: Of folds, the fingerprints of the models that answered; empty where this one did.
        level: Of label sets and of the scope's borders.
        risk: Of the answers that are given.
        scope: None where no training frames were given.
        version: Of the program that fitted it.
    """

    model: str
    weights: str
    answered_as: str
    conversations: str
    predictions: str
    answered_by: tuple[str, ...] = ()
    level: float = Field(gt=0, lt=1)
    risk: float = Field(gt=0, lt=1)
    tasks: dict[Task, TaskCalibration]
    scope: ScopeLimits | None = None
    version: str

    @property
    def fingerprint(self) -> str:
        """A hash of everything fitted; it is part of what predictions are of."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def believed(
    calibration: Calibration, question: Question, reply: Reply, taxonomy: Taxonomy, checks: Sequence[Check] = ()
) -> Reply:
    """The reply to a question, calibrated, with its `belief`; unchanged where nothing was fitted for its task.

    Args:
        question: What was asked; its image is not looked at.
        reply: As the predictor gave it. One that is calibrated already must not be calibrated again.
        checks: Of `checks.check_replies`; with none, what was fitted without them is used.
    """
    task = question.task
    known = calibration.tasks.get(task) if task is not None else None
    if known is None or task is None:
        return replace(reply, belief=Belief(checks=tuple(checks)))
    known = known.of(question.source)
    way = known.ways(subject_of(task, question.turns[-1][1], reply.text, taxonomy)).way(has_checks=bool(checks))
    confidence = way.scaling(reply.confidence, [one.name for one in checks if not one.passed])
    probabilities = _calibrated(known, reply.probabilities)
    expected = reply.expected_iou
    calibrated = replace(
        reply,
        confidence=confidence,
        probabilities=probabilities,
        presence=known.presence(reply.presence) if known.presence and reply.presence is not None else reply.presence,
        expected_iou=tuple(known.box_iou(one) for one in expected) if known.box_iou and expected else expected,
    )
    is_withheld = way.abstention.withholds(confidence)
    sets = known.sets if probabilities else None
    belief = Belief(
        is_calibrated=True,
        label_set=sets(probabilities) if sets and probabilities else None,
        level=sets.level if sets else None,
        is_withheld=is_withheld,
        fallback=_fallback(task, calibrated, 1 - calibration.risk, taxonomy) if is_withheld else (),
        risk=way.abstention.risk,
        is_assured=way.abstention.is_assured,
        checks=tuple(checks),
    )
    return replace(calibrated, belief=belief)


def subject_of(task: Task, asked: str, said: str, taxonomy: Taxonomy) -> str | None:
    """The id of the term that an answer is about: what REC asks for and what REG answers; None if there is none."""
    if task is Task.REC:
        return term_asked(asked, taxonomy)
    answer = parse_answer(task, said, taxonomy)
    return answer.terms[0] if task is Task.REG and isinstance(answer, LabelAnswer) else None


def weights_hash(folder: Path) -> str:
    """A hash of the weight files of a checkpoint folder; about a second a gigabyte.

    Raises:
        CheckpointError: There are none.
    """
    paths = sorted(path for path in Path(folder).glob("*.safetensors") if path.name != SCOPE_FILE)
    if not paths:
        raise CheckpointError(f"{folder}: holds no *.safetensors; expected a checkpoint folder of `gastrovl train`")
    told = "\n".join(f"{path.name} {sha256_file(path)}" for path in paths)
    return hashlib.sha256(told.encode()).hexdigest()


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write calibration.json; the same calibration gives the same bytes.

    Raises:
        OutputError: The folder cannot be written to.
    """
    path = Path(folder) / FILE
    content = {"schema": SCHEMA, **calibration.model_dump(mode="json", exclude_none=True)}
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def read_calibration(folder: Path) -> Calibration | None:
    """The calibration of a checkpoint folder, or None when it has none.

    Raises:
        CheckpointError: The file is broken, of another version, or was fitted on other weights.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
        found = content.pop("schema", None)
        if found != SCHEMA:
            raise ValueError(f"found schema {found!r}, expected {SCHEMA!r}")
        calibration = Calibration.model_validate(content)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); run `gastrovl calibrate` again, or delete the file"
        ) from error
    if calibration.weights != weights_hash(folder):
        raise CheckpointError(
            f"{path}: was fitted on other weights than those beside it (trained on, merged or quantised since?); run "
            "`gastrovl calibrate` again, delete the file, or ask for raw confidences (--raw)"
        )
    return calibration


def _calibrated(known: TaskCalibration, probabilities: Mapping[str, float] | None) -> dict[str, float] | None:
    if probabilities is None:
        return None
    if known.names is not None:
        return known.names(dict(probabilities))
    if known.presence_of_labels is not None:
        return {name: known.presence_of_labels(value) for name, value in probabilities.items()}
    return dict(probabilities)


def _fallback(task: Task, reply: Reply, least: float, taxonomy: Taxonomy) -> tuple[Fallback, ...]:
    """For each label of a withheld answer the narrowest of it and its wider terms that is likely enough."""
    answer = parse_answer(task, reply.text, taxonomy)
    if reply.probabilities is None or not isinstance(answer, LabelAnswer):
        return ()
    found: dict[str, Fallback] = {}
    for term in answer.terms:
        one = wider_term(reply.probabilities, term, least, taxonomy, is_one=task is Task.REG)
        if one is not None:
            found[one.term] = one
    wider = {above for term in found for above in taxonomy.ancestors(term)}
    return tuple(one for term, one in found.items() if term not in wider)
