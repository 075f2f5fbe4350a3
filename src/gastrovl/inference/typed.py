"""What a reply says, as one type for each kind of question: labels, boxes or text, each with how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gastrovl.core.types import Box
from gastrovl.inference.verdicts import Belief


@dataclass(frozen=True)
class LabelAnswer:
    """Labels of an image (CLS) or of a region (REG).

    Attributes:
        text: As in datasets: names joined by the separator.
        terms: Ids of the terms given, likeliest first; empty where the reply names none.
        probabilities: Of every known term, by id, each in [0, 1].
        confidence: In [0, 1].
        calibrated: Whether `confidence` and `probabilities` were fitted on held-out data.
        belief: Label set, whether it is withheld, what is said instead, checks, scope; None where nobody asked.
    """

    text: str
    terms: tuple[str, ...]
    probabilities: Mapping[str, float]
    confidence: float
    calibrated: bool = False
    belief: Belief | None = None


@dataclass(frozen=True)
class BoxAnswer:
    """Where something is (REC).

    Attributes:
        text: As in datasets.
        boxes: In the order of the text; empty where it is absent.
        expected_iou: Of each box, in [0, 1]; None where the language model wrote them.
        presence: Probability that it is there at all; None where the language model wrote the boxes.
        confidence: In [0, 1].
        calibrated: Whether `confidence` was fitted on held-out data.
        belief: Whether it is withheld, checks, scope; None where nobody asked.
    """

    text: str
    boxes: tuple[Box, ...]
    expected_iou: tuple[float, ...] | None
    presence: float | None
    confidence: float
    calibrated: bool = False
    belief: Belief | None = None


@dataclass(frozen=True)
class TextAnswer:
    """Free text: a caption, a turn of a chat, the answer to a free question.

    Attributes:
        confidence: In [0, 1].
        stop_reason: `end` when the model finished, `length` when it was cut at the token limit.
        calibrated: Whether `confidence` was fitted on held-out data; of free text nothing is.
        belief: The scope of the picture; None where nobody asked.
    """

    text: str
    confidence: float
    stop_reason: str
    calibrated: bool = False
    belief: Belief | None = None
