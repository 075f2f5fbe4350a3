"""What a record states to dialogues of several turns about one image, each question following from the last answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gastrovl.clinical.implication import is_view
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.geometry import iou
from gastrovl.core.types import Conversation, Sample, Task
from gastrovl.data.exchanges import (
    Exchange,
    boxes_by_term,
    caption_exchange,
    drawn,
    label_exchange,
    largest_first,
    place_exchange,
    present_terms,
    region_exchange,
    terms_by_box,
)
from gastrovl.data.wordings import Writer

MOST_OVERLAP = 0.5  # IoU with the answer from which a box said before would give the answer away


def training_dialogue(
    writer: Writer,
    taxonomy: Taxonomy,
    tasks: Sequence[Task],
    number: int,
    captions: int,
    caption: str | None = None,
) -> Conversation | None:
    """Dialogue `number`: CLS, REC once or twice, REG, CAP, as far as the record and `tasks` allow, ended anywhere.

    Earlier turns hold the truth. What they say may help with later ones; all answers are learned.

    Args:
        captions: Wordings of CAP.
        caption: A checked caption by a model, as the first of them.
    """
    sample, rng = writer.sample, writer.generator(f"dialogue-{number}")
    steps: list[Exchange] = []
    if Task.CLS in tasks and (labels := label_exchange(sample, taxonomy)):
        steps.append(labels)
    located = _locate(sample, taxonomy, rng, is_after_labels=bool(steps)) if Task.REC in tasks else []
    steps += located
    if Task.REG in tasks and (region := _region(sample, taxonomy, rng, located)):
        steps.append(_follow(region, steps, "then_inside"))
    if Task.CAP in tasks and (said := caption_exchange(sample, taxonomy, rng, captions, caption)):
        steps.append(_follow(said, steps, "then_summarise"))
    if len(steps) < 2:
        return None
    steps = steps[: int(rng.integers(2, len(steps) + 1))]
    return writer.write(f"{steps[-1].task.value}-dialogue-{number}", steps)


def question_with_history(
    writer: Writer, taxonomy: Taxonomy, tasks: Sequence[Task], number: int
) -> Conversation | None:
    """Dialogue `number` for evaluation: CLS, perhaps a place or a region of something else, then REC.

    Only places are asked for last: the image's labels give no place away, but would give away a label or a caption.
    A turn between is left out where one of its boxes overlaps an asked one, because then a copy would be right.
    """
    sample, rng = writer.sample, writer.generator(f"dialogue-{number}")
    labels, boxes_of = label_exchange(sample, taxonomy), boxes_by_term(sample)
    if labels is None or not boxes_of:
        return None
    asked, *others = drawn(rng, sorted(boxes_of, key=taxonomy.order), len(boxes_of))
    between: list[Exchange] = []
    for other in others:
        between += [replace(place_exchange(other, sample, taxonomy), phrasing="then_locate")]
        if Task.REG in tasks:
            box = largest_first(boxes_of[other])[0]
            between += [replace(region_exchange(box, terms_by_box(sample)[box], taxonomy), phrasing="then_inside")]
    fair = [
        exchange
        for exchange in between
        if all(iou(said, box) < MOST_OVERLAP for said in exchange.target.boxes for box in boxes_of[asked])
    ]
    history = [labels]
    if fair and rng.random() < 0.5:
        history.append(fair[int(rng.integers(len(fair)))])
    question = place_exchange(asked, sample, taxonomy)
    question = replace(question, phrasing=_wording(asked, history[1:], sample, taxonomy, is_after_labels=True))
    return writer.write(f"{Task.REC.value}-dialogue-{number}", [*history, question])


def _locate(sample: Sample, taxonomy: Taxonomy, rng: np.random.Generator, *, is_after_labels: bool) -> list[Exchange]:
    """One or two boxed terms."""
    boxes_of = boxes_by_term(sample)
    chosen = drawn(rng, sorted(boxes_of, key=taxonomy.order), int(rng.integers(1, 3)))
    found: list[Exchange] = []
    for term in chosen:
        exchange = place_exchange(term, sample, taxonomy)
        if found or is_after_labels:
            wording = _wording(term, found, sample, taxonomy, is_after_labels=is_after_labels)
            exchange = replace(exchange, phrasing=wording)
        found.append(exchange)
    return found


def _wording(term: str, said: Sequence[Exchange], sample: Sample, taxonomy: Taxonomy, *, is_after_labels: bool) -> str:
    """How to ask for a place after what was `said`: "it" and "the other one" only where a single thing can be meant."""
    things = {other for other in present_terms(sample) if not is_view(other, taxonomy)}
    if is_after_labels and not said and things == {term}:
        return "then_where"
    if is_after_labels and len(said) == 1 and said[0].task is Task.REC and things == {term, *said[0].target.terms}:
        return "then_other"
    return "then_locate"


def _region(
    sample: Sample, taxonomy: Taxonomy, rng: np.random.Generator, located: Sequence[Exchange]
) -> Exchange | None:
    """A box to be named, one that was not said yet where there is any."""
    terms_of = terms_by_box(sample)
    if not terms_of:
        return None
    said = {box for exchange in located for box in exchange.target.boxes}
    new = [box for box in largest_first(terms_of) if box not in said]
    boxes = new or largest_first(terms_of)
    box = boxes[int(rng.integers(len(boxes)))]
    return region_exchange(box, terms_of[box], taxonomy)


def _follow(exchange: Exchange, steps: Sequence[Exchange], phrasing: str) -> Exchange:
    """The exchange in words that follow others, unless it is the first."""
    return replace(exchange, phrasing=phrasing) if steps else exchange
