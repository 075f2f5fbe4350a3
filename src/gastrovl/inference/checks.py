"""An answer and what the same model says when it is asked the other way round, to checks that agree or do not.

Boxes are named, names are looked for, and labels are compared with the words of a caption. A check costs the questions
that `follow_ups` asks; how much a disagreement lowers the confidence is fitted on validation, not assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, ParseFailure, parse_answer
from gastrovl.clinical.implication import is_view
from gastrovl.clinical.mentions import find_mentions
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import boxtext
from gastrovl.core.geometry import iou
from gastrovl.core.types import Box, Status, Task
from gastrovl.inference.question import Question, Reply
from gastrovl.inference.verdicts import Check

SINGLE, NAMED, IN_FRAME, FOUND_AGAIN, CAPTION = "single", "named", "in_frame", "found_again", "caption"
OVERLAP = 0.5  # IoU from which a region counts as found again
_LABELS = "Name the anatomical site and every finding in this frame."
_CAPTION = "Describe the image."
_CAPTION_TOKENS = 96
_Asks = Callable[[Sequence[Question], int], list[Reply]]


def term_asked(text: str, taxonomy: Taxonomy) -> str | None:
    """The id of the one term that a question names, or None when it names none or several."""
    named = {mention.term for mention in find_mentions(text, taxonomy)}
    return named.pop() if len(named) == 1 else None


def follow_ups(question: Question, reply: Reply, taxonomy: Taxonomy) -> list[Question]:
    """The questions whose answers `checks_of` compares with `reply`; none where nothing can be checked."""
    if question.task is None:
        return []
    answer = parse_answer(question.task, reply.text, taxonomy)

    def ask(text: str, task: Task) -> Question:
        return Question(question.image, (("user", text),), task, question.size_wh)

    if isinstance(answer, BoxAnswer):
        if term_asked(question.turns[-1][1], taxonomy) is None:
            return []
        named = [ask(f"What lies in {boxtext.encode_box(box)}?", Task.REG) for box in answer.boxes]
        return [ask(_LABELS, Task.CLS), *named]
    if not isinstance(answer, LabelAnswer):
        return []
    if question.task is Task.CLS:
        return [ask(_CAPTION, Task.CAP)]
    if len(question.regions) != 1:
        return []
    where = f"Where is the following: {taxonomy[answer.terms[0]].name}?"
    return [ask(_LABELS, Task.CLS), ask(where, Task.REC)]


def checks_of(question: Question, reply: Reply, further: Sequence[Reply], taxonomy: Taxonomy) -> tuple[Check, ...]:
    """What agrees with `reply` and what does not; `further` answers `follow_ups`, in its order, or is empty."""
    if question.task is None:
        return ()
    answer = parse_answer(question.task, reply.text, taxonomy)
    if isinstance(answer, BoxAnswer):
        return (*_single(answer.boxes), *_of_boxes(question, answer.boxes, further, taxonomy))
    if isinstance(answer, LabelAnswer) and further:
        if question.task is Task.CLS:
            return (_caption(answer.terms, further[0].text, taxonomy),)
        return (
            _in_frame(answer.terms[0], further[0], taxonomy, is_said=True),
            _found_again(question.regions[0], further[1], taxonomy),
        )
    return ()


def check_replies(
    asks: _Asks, questions: Sequence[Question], replies: Sequence[Reply], taxonomy: Taxonomy
) -> list[tuple[Check, ...]]:
    """The checks of each reply; what several replies need to know about one picture is asked once.

    Args:
        asks: Answers questions in their order, given the most new tokens of one; `Predictor.answer`.
    """
    wanted = [follow_ups(question, reply, taxonomy) for question, reply in zip(questions, replies, strict=True)]
    distinct = {_key(one): one for some in wanted for one in some}
    known: dict[tuple[object, ...], Reply] = {}
    for task in dict.fromkeys(one.task for one in distinct.values()):
        asked = {key: one for key, one in distinct.items() if one.task is task}
        known |= dict(zip(asked, asks(list(asked.values()), _CAPTION_TOKENS), strict=True))
    return [
        checks_of(question, reply, [known[_key(one)] for one in some], taxonomy)
        for question, reply, some in zip(questions, replies, wanted, strict=True)
    ]


def _key(question: Question) -> tuple[object, ...]:
    return id(question.image), question.task, question.turns


def _single(boxes: Sequence[Box]) -> tuple[Check, ...]:
    if not boxes:
        return ()
    count = len(boxes)
    said = "one place is given" if count == 1 else f"{count} places are given, and each has to be right"
    return (Check(SINGLE, count == 1, said),)


def _of_boxes(
    question: Question, boxes: Sequence[Box], further: Sequence[Reply], taxonomy: Taxonomy
) -> tuple[Check, ...]:
    term = term_asked(question.turns[-1][1], taxonomy)
    if term is None or not further:
        return ()
    frame, *named = further
    found = [_in_frame(term, frame, taxonomy, is_said=bool(boxes))]
    if named:
        same = all(_is_among(term, one, Task.REG, taxonomy) for one in named)
        found.append(Check(NAMED, same, f"named {', '.join(dict.fromkeys(repr(one.text) for one in named))}"))
    return tuple(found)


def _in_frame(term: str, frame: Reply, taxonomy: Taxonomy, *, is_said: bool) -> Check:
    is_there = _is_among(term, frame, Task.CLS, taxonomy)
    return Check(IN_FRAME, is_there == is_said, f"the whole frame is labelled {frame.text!r}")


def _found_again(region: Box, found: Reply, taxonomy: Taxonomy) -> Check:
    answer = parse_answer(Task.REC, found.text, taxonomy)
    best = max((iou(region, box) for box in answer.boxes), default=0.0) if isinstance(answer, BoxAnswer) else 0.0
    return Check(FOUND_AGAIN, best >= OVERLAP, f"located with IoU {best:.2f} to the region")


def _is_among(term: str, reply: Reply, task: Task, taxonomy: Taxonomy) -> bool:
    """Whether a reply's labels hold the term, something narrower or something wider."""
    answer = parse_answer(task, reply.text, taxonomy)
    if isinstance(answer, ParseFailure) or not isinstance(answer, LabelAnswer):
        return False
    line = {term, *taxonomy.ancestors(term)}
    return any(one in line or term in taxonomy.ancestors(one) for one in answer.terms)


def _caption(terms: Sequence[str], caption: str, taxonomy: Taxonomy) -> Check:
    """Findings only: a caption need not name the site, and a site it names is seldom the narrowest."""
    given = {term for term in terms if not is_view(term, taxonomy)}
    said = {
        one.term
        for one in find_mentions(caption, taxonomy)
        if one.status is Status.PRESENT and taxonomy[one.term].level == 3 and not is_view(one.term, taxonomy)
    }
    names = ", ".join(sorted(taxonomy[term].name for term in said)) or "no finding"
    return Check(CAPTION, given == said, f"the caption names {names}")
