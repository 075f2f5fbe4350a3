"""What is wanted of an image to the question that asks for it, and the reply to a typed answer."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from gastrovl.clinical import answers
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import encode_box
from gastrovl.core.errors import ModelInputError
from gastrovl.core.types import Box, Task
from gastrovl.inference.question import Question, Reply
from gastrovl.inference.typed import BoxAnswer, LabelAnswer, TextAnswer

# Wordings that models of ours are taught (data/phrasing); a test holds them to that.
ASKED = {
    Task.CLS: "Which labels fit this image?",
    Task.REC: "Where is the following: {label}?",
    Task.REG: "What is inside {box}?",
    Task.CAP: "Describe this image.",
}


def classify(image: Image.Image) -> Question:
    """Which labels fit the image, with their probabilities."""
    return Question(image, (("user", ASKED[Task.CLS]),), Task.CLS, wants_probabilities=True)


def locate(image: Image.Image, what: str) -> Question:
    """Where something is; `what` is a term's id, name or synonym, or any words.

    Raises:
        ModelInputError: `what` is empty.
    """
    taxonomy = Taxonomy.load()
    term = taxonomy[what] if what in taxonomy else taxonomy.find(what)
    words = term.name if term else what.strip()
    if not words:
        raise ModelInputError("nothing to locate: `what` is empty; expected the name of a finding or a structure")
    return Question(image, (("user", ASKED[Task.REC].format(label=words)),), Task.REC)


def name_region(image: Image.Image, box: Box) -> Question:
    """What lies in a box, with the probabilities of all names."""
    text = ASKED[Task.REG].format(box=encode_box(box))
    return Question(image, (("user", text),), Task.REG, wants_probabilities=True)


def describe(image: Image.Image) -> Question:
    """What the image shows, in a sentence or two."""
    return Question(image, (("user", ASKED[Task.CAP]),), Task.CAP)


def chat(
    image: Image.Image, turns: Sequence[tuple[str, str]], further: Sequence[tuple[int, Image.Image]] = ()
) -> Question:
    """The next turn of a dialogue about an image; `turns` are (role, text), from a user's to a user's.

    Args:
        further: More images, each with the place of the user turn that it opens.

    Raises:
        ModelInputError: They do not alternate so, or a further image opens no turn of the user.
    """
    roles = [role for role, _ in turns]
    if len(roles) % 2 == 0 or roles != [("user", "assistant")[place % 2] for place in range(len(roles))]:
        raise ModelInputError(f"turns are {roles}; expected user and assistant in turn, beginning and ending with user")
    return Question(image, tuple((role, text) for role, text in turns), Task.VQA, further=tuple(further))


def label_answer(reply: Reply, taxonomy: Taxonomy) -> LabelAnswer:
    """A reply to CLS or REG."""
    said = answers.parse_answer(Task.CLS, reply.text, taxonomy)
    terms = said.terms if isinstance(said, answers.LabelAnswer) else ()
    chances = reply.probabilities or {}
    ordered = sorted(terms, key=lambda term: -chances.get(term, 0.0))
    return LabelAnswer(reply.text, tuple(ordered), chances, reply.confidence, _is_calibrated(reply), reply.belief)


def box_answer(reply: Reply, taxonomy: Taxonomy) -> BoxAnswer:
    """A reply to REC."""
    said = answers.parse_answer(Task.REC, reply.text, taxonomy)
    boxes = said.boxes if isinstance(said, answers.BoxAnswer) else ()
    sure = reply.confidence, _is_calibrated(reply), reply.belief
    return BoxAnswer(reply.text, boxes, reply.expected_iou, reply.presence, *sure)


def text_answer(reply: Reply) -> TextAnswer:
    """A reply in free words."""
    return TextAnswer(reply.text, reply.confidence, reply.stop_reason, _is_calibrated(reply), reply.belief)


def _is_calibrated(reply: Reply) -> bool:
    return reply.belief is not None and reply.belief.is_calibrated
