"""A file of conversations to a file of predictions: in batches of one task, resumable at any point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gastrovl.core import records
from gastrovl.core.errors import OutputError, PredictionError, RecordError
from gastrovl.core.images import open_image
from gastrovl.core.types import Conversation, Prediction, Task
from gastrovl.inference.predictor import Predictor, Question

# Room for the longest honest answer of a task; a reply that runs on is cut and says so in `stop_reason`.
MAX_NEW_TOKENS = {Task.CLS: 64, Task.REC: 192, Task.REG: 48, Task.CAP: 192, Task.VQA: 192, Task.REPORT: 768}


def predict_file(
    predictor: Predictor,
    conversations: Path,
    output: Path,
    *,
    batch_size: int = 32,
    is_replaced: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Answer every conversation of a JSONL file; returns how many were answered now.

    Replies are appended to `<output>.partial` batch by batch; a later call goes on behind the last whole line. The
    finished file is in the order of the conversations and takes its name at once.

    Raises:
        OutputError: `output` exists and `is_replaced` is False.
        PredictionError: The partial file answers other conversations or was made by another model.
        RecordError, ImageError: The conversations or an image are broken.
    """
    conversations, output = Path(conversations), Path(output)
    if output.exists() and not is_replaced:
        raise OutputError(f"{output} exists already; choose another -o, or pass --overwrite")
    asked = _asked(conversations)
    partial = output.with_name(output.name + ".partial")
    done = _done(partial, asked, predictor.card.name)
    left = sorted(
        (conversation for name, conversation in asked.items() if name not in done),
        key=lambda conversation: (conversation.task, conversation.image.path, conversation.id),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a", encoding="utf-8") as stream:
        for batch in batches(left, batch_size):
            for prediction in answer_batch(predictor, batch, conversations.parent):
                done[prediction.conversation_id] = prediction
                stream.write(records.to_line(prediction) + "\n")
            stream.flush()
            if progress:
                progress(len(done), len(asked))
    records.write_records(output, (done[name] for name in asked))
    partial.unlink()
    return len(left)


def _asked(path: Path) -> dict[str, Conversation]:
    """The conversations of a file by their ids."""
    asked: dict[str, Conversation] = {}
    for conversation in records.read_records(path, Conversation):
        if conversation.id in asked:
            raise RecordError(f"{path}: conversation {conversation.id!r} stands there twice; build the dataset again")
        asked[conversation.id] = conversation
    if not asked:
        raise RecordError(f"{path}: holds no conversation")
    return asked


def answer_batch(predictor: Predictor, batch: Sequence[Conversation], folder: Path) -> Iterator[Prediction]:
    """The predictions for conversations of one task, whose images are named relative to `folder`."""
    questions = [
        Question(
            open_image(folder / conversation.image.path),
            tuple((turn.role, turn.text) for turn in conversation.turns[:-1]),
            conversation.task,
        )
        for conversation in batch
    ]
    replies = predictor.answer(questions, MAX_NEW_TOKENS[batch[0].task])
    for conversation, reply in zip(batch, replies, strict=True):
        yield Prediction(
            conversation_id=conversation.id,
            text=reply.text,
            confidence=reply.confidence,
            model=predictor.card.name,
            seconds=reply.seconds,
            stop_reason=reply.stop_reason,
        )


def batches(conversations: Sequence[Conversation], size: int) -> Iterator[list[Conversation]]:
    """Batches of one task each."""
    for task in Task:
        of_task = [conversation for conversation in conversations if conversation.task == task]
        for start in range(0, len(of_task), size):
            yield of_task[start : start + size]


def _done(partial: Path, asked: dict[str, Conversation], model: str) -> dict[str, Prediction]:
    """Predictions of an interrupted run; a last line cut off in the middle is removed from the file."""
    if not partial.is_file():
        return {}
    content = partial.read_bytes()  # cut first, decoded then: the cut may lie within a letter
    whole = content[: content.rfind(b"\n") + 1]
    done: dict[str, Prediction] = {}
    for number, line in enumerate(whole.decode("utf-8").split("\n")[:-1], start=1):
        prediction = records.from_line(line, Prediction, f"{partial}:{number}")
        if prediction.conversation_id not in asked or prediction.model != model:
            raise PredictionError(
                f"{partial}:{number}: answers {prediction.conversation_id!r} by model {prediction.model!r}, which is "
                f"not what is asked now (model {model!r}); delete the file to start over"
            )
        done[prediction.conversation_id] = prediction
    if whole != content:
        partial.write_bytes(whole)
    return done
