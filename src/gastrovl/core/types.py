"""The records that stages exchange, as frozen pydantic models that check their own conventions."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gastrovl.core.errors import GeometryError
from gastrovl.core.replyform import ReplyForm


class Record(BaseModel):
    """A value that is written to disk: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(StrEnum):
    """What is asked of an image. CLS..CAP follow He et al. 2025, section 3.1; VQA and REPORT are free-form."""

    CLS = "CLS"
    REC = "REC"
    REG = "REG"
    CAP = "CAP"
    VQA = "VQA"
    REPORT = "REPORT"


class Kind(StrEnum):
    """Which VQA question is asked; each has a short answer that the record decides.

    STATION: the site. PRESENCE: "yes" or "no". COUNT: an integer. Of two boxes, COMPARE_KIND: "same" or "different";
    COMPARE_SIZE, COMPARE_LEFT, COMPARE_UP: "first" or "second", whichever is larger, or lies further left or up.
    """

    STATION = "station"
    PRESENCE = "presence"
    COUNT = "count"
    COMPARE_KIND = "compare_kind"
    COMPARE_SIZE = "compare_size"
    COMPARE_LEFT = "compare_left"
    COMPARE_UP = "compare_up"


class Split(StrEnum):
    """Which part of a dataset a sample belongs to."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Status(StrEnum):
    """Whether a finding was seen. Absence is stated by somebody, never inferred from silence."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


class ImageRef(Record):
    """An image of a dataset folder.

    Attributes:
        path: POSIX path relative to the folder that holds the JSONL file naming it.
        width_px, height_px: Size of the ORIGINAL image (a stored copy may be smaller; boxes are fractions).
        sha256: Hash of the original file's bytes, lower-case hex.
    """

    path: str = Field(min_length=1)
    width_px: int = Field(gt=0)
    height_px: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.width_px, self.height_px


Fraction = Annotated[float, Field(json_schema_extra={"minimum": 0, "maximum": 1})]  # checked by Box itself


class Box(Record):
    """An axis-aligned box as fractions of the original image: origin top left, x0 < x1, y0 < y1, continuous area.

    Raises:
        GeometryError: A value is not finite, outside [0, 1], or the corners are reversed.
    """

    x0: Fraction
    y0: Fraction
    x1: Fraction
    y1: Fraction

    @model_validator(mode="after")
    def _check(self) -> Self:
        corners = (self.x0, self.y0, self.x1, self.y1)
        if not all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in corners):
            raise GeometryError(f"box {corners} leaves [0, 1]; boxes are fractions (x0, y0, x1, y1) of the image")
        if not (self.x0 < self.x1 and self.y0 < self.y1 and self.area > 0.0):
            raise GeometryError(
                f"box {corners} is reversed or empty; expected x0 < x1 and y0 < y1. "
                "If the source stores (x, y, width, height), say so in its description (`box_order: xywh`)."
            )
        return self

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return self.x0, self.y0, self.x1, self.y1

    @property
    def area(self) -> float:
        """Share of the image, in (0, 1]."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


class Finding(Record):
    """One thing said about an image.

    Attributes:
        term: Term id of the taxonomy (`gastrovl.clinical.taxonomy`), e.g. "esophagitis".
        status: Present, absent or uncertain.
        site: Term id of the anatomical site, or None when the source does not say.
        grade: Grade in the term's scale, e.g. "A" of Los Angeles, or None.
        boxes: Where it is; empty when the source gives no location.
        confidence: In [0, 1], or None for a human annotation.
        origin: The source's own label, verbatim.
        mask: POSIX path, relative to the dataset folder, of an 8-bit grey PNG (0 or 255) of the stored image's size.
            White is everything of this term in the image. None where the source has no mask of it.
    """

    term: str = Field(min_length=1)
    status: Status = Status.PRESENT
    site: str | None = None
    grade: str | None = None
    boxes: tuple[Box, ...] = ()
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    origin: str = ""
    mask: Annotated[str, Field(min_length=1)] | None = None


class Turn(Record):
    """One utterance. `alternatives` are equally good wordings of `text`; training draws among all of them.

    The image stands before the first user turn; no image marker is part of `text`.
    """

    role: Literal["user", "assistant"]
    text: str = Field(min_length=1)
    alternatives: tuple[str, ...] = ()


class Target(Record):
    """The typed truth behind the last assistant turn.

    CLS: `terms` are all true labels. REC: `terms` holds the one asked for, `boxes` all of its places (empty: absent).
    REG: `terms` holds the answer, `boxes` the one asked about. CAP: `terms` are the facts the caption states and
    `boxes` those it mentions (ours mention none); the caption itself is the turn's text. VQA: `terms` and `boxes` are
    what question and answer are about (COUNT: all places; a comparison: first and second box); the answer is the turn's
    text. REC also has the term's `mask` where there is one, as in `Finding`.
    """

    terms: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    mask: Annotated[str, Field(min_length=1)] | None = None


def _check_roles(turns: tuple[Turn, ...]) -> None:
    roles = [turn.role for turn in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2):
        raise ValueError(f"turns are {roles}; expected user and assistant in turn, ending with assistant")


class Dialogue(Record):
    """Questions about an image with their answers, in the words of the source.

    Attributes:
        task: What is asked; VQA for anything that is none of the other tasks.
        kind: Of VQA, which question of ours it is; None for any other.
        target: The typed truth behind the last answer; empty for free text.
    """

    task: Task = Task.VQA
    kind: Kind | None = None
    turns: tuple[Turn, ...] = Field(min_length=2)
    target: Target = Target()

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_roles(self.turns)
        return self


class Sample(Record):
    """One image and what its source says of it, before any wording.

    Attributes:
        id: Unique in the dataset folder, "<source>/<stem>".
        source: Name of the source, e.g. "edd2020".
        group: Patient, exam, video or near-duplicate group; a group never crosses splits.
        dialogues: Questions and answers that the source itself gives; its tasks are not asked again in other words.
    """

    id: str = Field(min_length=1)
    image: ImageRef
    source: str = Field(min_length=1)
    group: str = Field(min_length=1)
    split: Split
    findings: tuple[Finding, ...]
    text: str = ""
    licence: str = ""
    dialogues: tuple[Dialogue, ...] = ()


class Conversation(Record):
    """A dialogue about one image with its typed target; derived from a Sample and a seed.

    Attributes:
        task: What the last question asks, which `target` answers.
        kind: Of VQA, which question of ours it is; None for any other.
    """

    id: str = Field(min_length=1)
    sample_id: str = Field(min_length=1)
    task: Task
    kind: Kind | None = None
    image: ImageRef
    source: str = Field(min_length=1)
    group: str = Field(min_length=1)
    split: Split
    turns: tuple[Turn, ...] = Field(min_length=2)
    target: Target

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_roles(self.turns)
        return self

    @property
    def answer(self) -> str:
        return self.turns[-1].text


class Usage(Record):
    """What a reply took from a server.

    Attributes:
        attempts: Connections, the first included.
        prompt_tokens, completion_tokens: As the server counts them; None where it does not say.
        cost: In the currency of the model's description, or None where it states no prices.
    """

    attempts: int = Field(ge=1, default=1)
    prompt_tokens: Annotated[int, Field(ge=0)] | None = None
    completion_tokens: Annotated[int, Field(ge=0)] | None = None
    cost: Annotated[float, Field(ge=0)] | None = None


class Prediction(Record):
    """A model's raw reply to the last user turn of a conversation; never edited afterwards.

    Attributes:
        confidence: In [0, 1], or None; what it means is the model's to say (ours: mean token probability).
        probabilities: Of terms by their ids, each in [0, 1], where the model gives them; a term not named has 0.
        presence: Of REC, that what is asked for is there, where the model says it.
        expected_iou: The overlap that the model expects of each box of the text, in its order, where it says it.
        seconds: Wall-clock time spent on this reply (a batch's time divided by its size).
        stop_reason: `end` when the model finished, `length` when it was cut at the token limit, `external` when a
            program of somebody else wrote the reply, `failed` when none came that can be used; `failure` says why.
        usage: What it took from a server; None for a model that runs here.
        form: How the reply is written; None for our own answer texts.
        image_wh: Size in pixels of the image that boxes in pixels are about; needed where `form` has pixels.
    """

    conversation_id: str = Field(min_length=1)
    text: str
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    model: str
    seconds: float = Field(ge=0)
    stop_reason: Literal["end", "length", "external", "failed"]
    probabilities: dict[str, Annotated[float, Field(ge=0, le=1)]] | None = None
    presence: Annotated[float, Field(ge=0, le=1)] | None = None
    expected_iou: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = None
    usage: Usage | None = None
    failure: str | None = None
    form: ReplyForm | None = None
    image_wh: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None


class Verdict(StrEnum):
    """What became of a caption that a model wrote: kept as it is, kept in part, or thrown away."""

    ACCEPTED = "accepted"
    REPAIRED = "repaired"
    REJECTED = "rejected"


class Caption(Record):
    """A model's caption of one image, checked against the sample's record.

    Attributes:
        image_sha256: Hash of the original image, as in the sample.
        text: The caption, or None when it was rejected.
        reasons: What was wrong with the last reply, "<kind>: <what>"; empty when it was accepted.
        attempts: How often the model was asked.
        model: Name of the model.
        template, template_sha256: Name of the prompt template and hash of its file.
        request_sha256: Hash of all that decides the reply: prompt, image, model and sampling.
    """

    sample_id: str = Field(min_length=1)
    image_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    text: str | None = None
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    attempts: int = Field(ge=0)
    model: str
    template: str
    template_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    request_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _check_text(self) -> Self:
        if (self.text is None) != (self.verdict is Verdict.REJECTED) or self.text == "":
            raise ValueError(f"verdict {self.verdict} with text {self.text!r}; expected a text unless it was rejected")
        return self


class Rating(Record):
    """A person's scores of one reply, given without knowing whose it is.

    Attributes:
        model: Whose reply it was.
        rater: A pseudonym.
        rubric: "<name>/<version>" of the rubric whose anchors the rater had.
        scores: Criterion to level; a criterion that was left empty is not there.
        is_repeat: The reply was shown to this rater a second time, hidden among the others.
    """

    conversation_id: str = Field(min_length=1)
    model: str
    rater: str = Field(min_length=1)
    rubric: str
    scores: dict[str, Annotated[int, Field(ge=0)]] = Field(min_length=1)
    comment: str = ""
    is_repeat: bool = False


class Judgement(Record):
    """What a judge model said of one reply, or of two side by side; or why nothing it said can be used.

    Attributes:
        models: Whose reply was rated; or the two that were compared, in the order of the run, however they were shown.
        judge: Name of the judging model.
        rubric: "<name>/<version>".
        is_swapped: Shown the other way round: reply before reference, criteria from the last to the first; or the
            second model's reply first.
        repeat: Counted from 0.
        scores: Criterion to level, of a rating.
        better: The place, as shown, of the better reply, of a comparison.
        failure: Why the reply of the judge is unusable; then there is neither.
        request_sha256: Hash of all that decides the judge's reply.
    """

    conversation_id: str = Field(min_length=1)
    models: tuple[str, ...] = Field(min_length=1, max_length=2)
    judge: str
    rubric: str
    is_swapped: bool = False
    repeat: int = Field(default=0, ge=0)
    scores: dict[str, Annotated[int, Field(ge=0)]] | None = None
    better: Literal["first", "second", "tie"] | None = None
    comment: str = ""
    failure: str | None = None
    request_sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _check_outcome(self) -> Self:
        if [self.scores, self.better, self.failure].count(None) != 2:
            raise ValueError("expected exactly one of scores, better and failure")
        if (self.better is not None and len(self.models) != 2) or (self.scores is not None and len(self.models) != 1):
            raise ValueError(f"{len(self.models)} models; expected one with scores, and two with better")
        return self


class Score(Record):
    """One number of an evaluation beside its trivial baseline.

    Attributes:
        value: The score, or None when undefined; then `reason` says why.
        low, high: Bounds of the 95 % interval, or None when it cannot be computed.
        n: Conversations scored. n_unparsed: Replies that could not be parsed (each counted as wrong).
        baseline: The best trivial baseline on the same items, with its name.
    """

    task: Task
    metric: str
    dataset: str
    split: Split
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = Field(ge=0)
    n_unparsed: int = Field(ge=0)
    baseline: float | None = None
    baseline_name: str | None = None
    reason: str | None = None
