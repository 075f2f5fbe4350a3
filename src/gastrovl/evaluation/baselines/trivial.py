"""Training conversations to the answers of someone who never looks, or looks at a 4x4 thumbnail only.

A score means something when it stands above these. Each baseline answers the same questions as the model, with what the
training split knows, and is scored by the same code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gastrovl.clinical.answers import BoxAnswer, LabelAnswer, TextAnswer
from gastrovl.core.types import Box, Kind, Task
from gastrovl.evaluation.baselines.fixedbox import best_fixed_box, hull_of, largest_of
from gastrovl.evaluation.baselines.thumbnails import Thumbnails, nearest
from gastrovl.evaluation.items import Answer
from gastrovl.evaluation.questions import Question

NEIGHBOUR = "nearest neighbour"
ALWAYS_ABSENT = "always absent"
_TYPICAL_OF = 1000  # captions among which the most typical one is sought
_WHOLE = Box(x0=0.0, y0=0.0, x1=1.0, y1=1.0)  # stands for the region of a foreign REG question that gives none
H = TypeVar("H", bound=Hashable)


@dataclass(frozen=True)
class Baseline:
    """A name and its answer to every question asked, in order."""

    name: str
    answers: tuple[Answer, ...]


def baselines(
    task: Task,
    asked: Sequence[Question],
    train: Sequence[Question],
    thumbnails: Thumbnails | None,
    *,
    seed: int,
) -> list[Baseline]:
    """All baselines of a task; none when `train` holds no conversation of it.

    Args:
        asked: The questions, all of `task`.
        train: The training split; other tasks in it are ignored.
        thumbnails: Of all images on both sides, or None to leave the nearest neighbour out.
        seed: For the draw of captions among which the most typical one is sought.
    """
    known = [one for one in train if one.task is task]
    if not known or not asked:
        return []
    if task in (Task.CLS, Task.REG):
        found = _majority_labels(asked, known)
    elif task is Task.REC:
        found = [*_mean_boxes(asked, known), _always_absent(asked)]
    elif task is Task.VQA:
        found = _majority_answers(asked, known)
    else:
        found = _stock_captions(asked, known, np.random.default_rng(seed))
    if thumbnails is not None:
        found.append(Baseline(NEIGHBOUR, tuple(_NEIGHBOURS.get(task, _neighbour_text)(asked, known, thumbnails))))
    return found


def _majority_labels(asked: Sequence[Question], known: Sequence[Question]) -> list[Baseline]:
    overall = _most_frequent(_labels(one) for one in known)
    by_source = _by(known, lambda one: one.source)
    of_source = {source: _most_frequent(_labels(one) for one in some) for source, some in by_source.items()}
    return [
        Baseline("majority label", tuple(LabelAnswer(overall) for _ in asked)),
        Baseline(
            "majority label of the dataset", tuple(LabelAnswer(of_source.get(one.source, overall)) for one in asked)
        ),
    ]


def _mean_boxes(asked: Sequence[Question], known: Sequence[Question]) -> list[Baseline]:
    """One box a question, never "absent"; a label that has no box in training gets what suits all boxes."""
    present = [one for one in known if one.boxes]
    if not present:
        return []
    overall = BoxAnswer((_mean_box(present),))
    of_label = {key: BoxAnswer((_mean_box(some),)) for key, some in _by(present, _labels).items()}
    of_source = {
        key: BoxAnswer((_mean_box(some),)) for key, some in _by(present, lambda one: (one.source, _labels(one))).items()
    }
    plain = [of_label.get(_labels(one), overall) for one in asked]
    closer = [of_source.get((one.source, _labels(one)), answer) for one, answer in zip(asked, plain, strict=True)]
    return [
        Baseline("mean box", tuple(plain)),
        Baseline("mean box of the dataset", tuple(closer)),
        Baseline("best fixed box of the dataset", _fixed_boxes(asked, present, largest_of)),
        Baseline("best fixed hull of the dataset", _fixed_boxes(asked, present, hull_of)),
    ]


def _fixed_boxes(
    asked: Sequence[Question], present: Sequence[Question], box_of: Callable[[Sequence[Box]], Box]
) -> tuple[Answer, ...]:
    """Per dataset and label the one box that suits most, under a protocol that sees several boxes as `box_of` them."""

    def best(some: Sequence[Question]) -> BoxAnswer:
        return BoxAnswer((best_fixed_box([box_of(one.boxes) for one in some]),))

    overall = best(present)
    of_label = {key: best(some) for key, some in _by(present, _labels).items()}
    of_source = {key: best(some) for key, some in _by(present, lambda one: (one.source, _labels(one))).items()}
    return tuple(of_source.get((one.source, _labels(one)), of_label.get(_labels(one), overall)) for one in asked)


def _always_absent(asked: Sequence[Question]) -> Baseline:
    return Baseline(ALWAYS_ABSENT, tuple(BoxAnswer(()) for _ in asked))


def _majority_answers(asked: Sequence[Question], known: Sequence[Question]) -> list[Baseline]:
    """The commonest answer to questions of the same kind, and to the same question where training asks it."""
    overall = _most_frequent(one.answer for one in known)
    of_kind = {kind: _most_frequent(one.answer for one in some) for kind, some in _by(known, _kind).items()}
    of_question = {key: _most_frequent(one.answer for one in some) for key, some in _by(known, _question).items()}
    plain = [of_kind.get(_kind(one), overall) for one in asked]
    closer = [of_question.get(_question(one), answer) for one, answer in zip(asked, plain, strict=True)]
    return [
        Baseline("majority answer of the kind", tuple(TextAnswer(text) for text in plain)),
        Baseline("majority answer of the question", tuple(TextAnswer(text) for text in closer)),
    ]


def _stock_captions(
    asked: Sequence[Question], known: Sequence[Question], generator: np.random.Generator
) -> list[Baseline]:
    """The most frequent caption, where one comes twice at all, and the one most similar to the others on average."""
    counts = Counter(one.answer for one in known)
    texts = {"most typical caption": _most_typical(sorted(counts), generator)}
    if max(counts.values()) > 1:
        texts["most frequent caption"] = _most_frequent(one.answer for one in known)
    return [Baseline(name, tuple(TextAnswer(text) for _ in asked)) for name, text in texts.items()]


def _neighbour_labels(asked: Sequence[Question], known: Sequence[Question], thumbnails: Thumbnails) -> list[Answer]:
    found = nearest(_images(asked, thumbnails), _images(known, thumbnails))
    return [LabelAnswer(_labels(known[index])) for index in found]


def _neighbour_boxes(asked: Sequence[Question], known: Sequence[Question], thumbnails: Thumbnails) -> list[Answer]:
    """The boxes of the asked label in the nearest image that has any REC question; "absent" if it has none there."""
    first_of = {one.image.sha256: one for one in reversed(known)}
    images = list(first_of.values())
    boxes_of = {(one.image.sha256, _labels(one)): one.boxes for one in known}
    found = nearest(_images(asked, thumbnails), _images(images, thumbnails))
    return [
        BoxAnswer(boxes_of.get((images[index].image.sha256, _labels(one)), ()))
        for one, index in zip(asked, found, strict=True)
    ]


def _neighbour_regions(asked: Sequence[Question], known: Sequence[Question], thumbnails: Thumbnails) -> list[Answer]:
    found = nearest(_regions(asked, thumbnails), _regions(known, thumbnails))
    return [LabelAnswer(_labels(known[index])) for index in found]


def _neighbour_text(asked: Sequence[Question], known: Sequence[Question], thumbnails: Thumbnails) -> list[Answer]:
    found = nearest(_images(asked, thumbnails), _images(known, thumbnails))
    return [TextAnswer(known[index].answer) for index in found]


def _neighbour_answers(asked: Sequence[Question], known: Sequence[Question], thumbnails: Thumbnails) -> list[Answer]:
    """The answer to the same question about the nearest image; one of the same kind, or any, where there is none."""
    by_question, by_kind = _by(known, _question), _by(known, _kind)
    answers: dict[int, Answer] = {}
    for question, places in _places(asked, _question).items():
        pool = by_question.get(question) or by_kind.get(question[0]) or known
        found = nearest(_images([asked[place] for place in places], thumbnails), _images(pool, thumbnails))
        answers |= {place: TextAnswer(pool[index].answer) for place, index in zip(places, found, strict=True)}
    return [answers[place] for place in range(len(asked))]


_NEIGHBOURS: dict[Task, Callable[[Sequence[Question], Sequence[Question], Thumbnails], list[Answer]]] = {
    Task.CLS: _neighbour_labels,
    Task.REC: _neighbour_boxes,
    Task.REG: _neighbour_regions,
    Task.VQA: _neighbour_answers,
}


def _images(conversations: Sequence[Question], thumbnails: Thumbnails) -> NDArray[np.float32]:
    return np.stack([thumbnails[one.image.sha256] for one in conversations])


def _regions(conversations: Sequence[Question], thumbnails: Thumbnails) -> NDArray[np.float32]:
    """Thumbnail and box side by side, each scaled so that its part of the squared distance is a mean, not a sum."""
    images = _images(conversations, thumbnails)
    boxes = np.array([(one.boxes or (_WHOLE,))[0].xyxy for one in conversations], dtype=np.float32)
    return np.concatenate([images / np.sqrt(images.shape[1]), boxes / np.sqrt(4)], axis=1, dtype=np.float32)


def _most_typical(captions: Sequence[str], generator: np.random.Generator) -> str:
    """The caption with the highest mean word-set F1 to the others, among at most `_TYPICAL_OF` drawn ones."""
    if len(captions) > _TYPICAL_OF:
        drawn = generator.choice(len(captions), size=_TYPICAL_OF, replace=False)
        captions = [captions[index] for index in sorted(drawn)]
    words = [frozenset(caption.lower().replace(".", " ").replace(",", " ").split()) for caption in captions]
    column_of = {word: column for column, word in enumerate(sorted(frozenset[str]().union(*words)))}
    has_word = np.zeros((len(captions), len(column_of)), dtype=np.float32)
    for row, some in enumerate(words):
        has_word[row, [column_of[word] for word in some]] = 1.0
    sizes = has_word.sum(axis=1)
    similarity = 2 * (has_word @ has_word.T) / np.maximum(sizes[:, None] + sizes[None, :], 1.0)
    return captions[int(np.argmax(similarity.mean(axis=1)))]


def _mean_box(conversations: Sequence[Question]) -> Box:
    corners = np.array([box.xyxy for one in conversations for box in one.boxes]).mean(axis=0)
    x0, y0, x1, y1 = (float(value) for value in corners)
    return Box(x0=x0, y0=y0, x1=x1, y1=y1)


def _labels(question: Question) -> tuple[str, ...]:
    return tuple(sorted(question.terms))


def _kind(question: Question) -> str:
    """The kind of a question; of a source's own, its words."""
    return question.kind.value if question.kind else question.words


def _question(question: Question) -> tuple[str, tuple[str, ...]]:
    """Kind and terms asked about; the terms of a question for a site are its answer, and stay out."""
    is_about_terms = question.kind in (Kind.PRESENCE, Kind.COUNT)
    return _kind(question), _labels(question) if is_about_terms else ()


def _most_frequent(values: Iterable[H]) -> H:
    """The commonest value; among equals the first in sorted order, so that file order does not matter."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], str(value)))


def _places(conversations: Sequence[Question], key: Callable[[Question], H]) -> dict[H, list[int]]:
    found: dict[H, list[int]] = defaultdict(list)
    for place, one in enumerate(conversations):
        found[key(one)].append(place)
    return found


def _by(conversations: Sequence[Question], key: Callable[[Question], H]) -> dict[H, list[Question]]:
    found: dict[H, list[Question]] = defaultdict(list)
    for one in conversations:
        found[key(one)].append(one)
    return found
