"""Rows of another evaluation harness, a question and a reply each, to the scores that `gastrovl evaluate` gives."""

from __future__ import annotations

from collections.abc import Sequence

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import records
from gastrovl.core.errors import RecordError
from gastrovl.core.replyform import ReplyForm
from gastrovl.core.types import Conversation, Prediction
from gastrovl.evaluation.items import pair
from gastrovl.evaluation.measures.measure import value
from gastrovl.evaluation.questions import questions_of
from gastrovl.evaluation.tasks import measures_of, unparsed

UNPARSED = "unparsed"


def harness_scores(
    conversations: Sequence[str],
    replies: Sequence[str],
    form: ReplyForm | None = None,
    sizes_wh: Sequence[tuple[int, int]] | None = None,
) -> dict[str, float | None]:
    """Every metric of one task, None where it is undefined, and `unparsed`: the share of replies that cannot be read.

    Args:
        conversations: Lines of a file of conversations (JSON with schema), all of one task.
        replies: The model's raw reply to each.
        form: How the replies are written; None for our own answer texts.
        sizes_wh: Size in pixels of each image as the model was shown it, where the form has pixels.

    Raises:
        RecordError: A line is broken, an id comes twice, or tasks are mixed.
        MissingExtraError: There are free texts, and the libraries that score them are not installed.
    """
    asked = [
        records.from_line(line, Conversation, f"conversation {number}")
        for number, line in enumerate(conversations, start=1)
    ]
    tasks, ids = {one.task for one in asked}, {one.id for one in asked}
    if len(tasks) != 1 or len(ids) != len(asked):
        raise RecordError(f"{len(asked)} rows with {len(ids)} ids of {len(tasks)} tasks; expected one task, ids unique")
    given = {
        one.id: Prediction(
            conversation_id=one.id,
            text=reply,
            model="harness",
            seconds=0.0,
            stop_reason="external",
            form=form,
            image_wh=sizes_wh[number] if sizes_wh else None,
        )
        for number, (one, reply) in enumerate(zip(asked, replies, strict=True))
    }
    items = pair(list(questions_of(asked)), given, Taxonomy.load())
    questions, answers = [item.question for item in items], [item.answer for item in items]
    found: dict[str, float | None] = {one.metric: value(one) for one in measures_of(asked[0].task, questions, answers)}
    return {**found, UNPARSED: float(unparsed(answers).mean())}
