"""A file of conversations to a file of predictions: by any model, several at once, resumable at any point."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from gastrovl.core import records
from gastrovl.core.errors import EndpointError, OutputError, PredictionError, RecordError
from gastrovl.core.files import sha256_file
from gastrovl.core.images import open_image
from gastrovl.core.types import Conversation, Prediction, Task
from gastrovl.inference.others.description import ModelDescription
from gastrovl.inference.partial import Begun, PartialFile
from gastrovl.inference.question import Question
from gastrovl.inference.runrecord import read_run, summarise, write_run

if TYPE_CHECKING:
    from gastrovl.inference.belief.believing import Believer
    from gastrovl.inference.predictor import Predictor

MOST_FAILED = 20  # replies in a row; then something is wrong with the server and not with the questions
Progress = Callable[[int, int], None]


@runtime_checkable
class Answerer(Protocol):
    """Any model that answers conversations.

    Attributes:
        name: Stands in its predictions.
        fingerprint: Changes with whatever changes its replies: weights, description, labels.
        workers: Batches that may be asked for at once; above 1, `answers` is called by several threads.
        batch_size: Conversations in one call, or None to leave it to the caller.
        settings: What a record of the run says of it; no secrets.
        currency: Of the costs that its predictions state.
    """

    name: str
    fingerprint: str
    workers: int
    batch_size: int | None
    settings: dict[str, Any] | None
    currency: str | None

    def answers(self, batch: Sequence[Conversation], folder: Path) -> Iterable[Prediction]:
        """A prediction for each conversation; all are of one task, and images are named relative to `folder`.

        A question for which no usable reply comes is answered with a prediction of stop_reason "failed".

        Raises:
            EndpointError: No question can be answered now.
        """
        ...


class Ours:
    """A loaded checkpoint of this package as an `Answerer`; a description gives it another name.

    With a `believer` its predictions carry calibrated numbers.

    Attributes:
        mixes_tasks: Whether a batch may hold several tasks, which is worth it where they share what is known of images.
    """

    def __init__(
        self, predictor: Predictor, description: ModelDescription | None = None, believer: Believer | None = None
    ) -> None:
        self.predictor, self.believer = predictor, believer
        self.mixes_tasks = predictor.words is not None
        self.name = description.name if description else predictor.card.name
        self.fingerprint = believer.fingerprint(predictor.fingerprint) if believer else predictor.fingerprint
        self.workers = 1
        self.batch_size: int | None = None
        told = description.model_dump(mode="json", exclude_defaults=True) if description else {}
        told |= predictor.looking.settings | ({"calibration": believer.settings} if believer else {})
        self.settings = told or None
        self.currency: str | None = None

    def answers(self, batch: Sequence[Conversation], folder: Path) -> Iterator[Prediction]:
        """As `answer_batch`, under this name."""
        for one in answer_batch(self.predictor, batch, folder, self.believer, wants_probabilities=True):
            yield one if one.model == self.name else one.model_copy(update={"model": self.name})


def predict_file(
    predictor: Predictor | Answerer,
    conversations: Path,
    output: Path,
    *,
    batch_size: int = 32,
    is_replaced: bool = False,
    retries_failed: bool = False,
    progress: Progress | None = None,
) -> int:
    """Answer every conversation of a JSONL file; returns how many were answered now.

    Each reply is a line of `<output>.partial` as soon as it is there; a later call goes on behind the last whole line.
    The finished file is in the order of the conversations and takes its name at once; `NAME.run.json` beside it says
    who answered and what it took.

    Args:
        batch_size: Conversations answered together, where the model leaves it open.
        retries_failed: Ask again what got no usable reply, also of a finished `output`; all else is kept.

    Raises:
        OutputError: `output` exists and neither `is_replaced` nor `retries_failed`, or another run is writing it.
        PredictionError: The partial file, or the one to retry, is of another model or answers other conversations.
        EndpointError: The server is gone, or gave no usable reply many times in a row. What was answered is kept.
        RecordError, ImageError: The conversations or an image are broken.
    """
    answerer = predictor if isinstance(predictor, Answerer) else Ours(predictor)
    conversations, output = Path(conversations), Path(output)
    is_again = retries_failed and output.exists()
    if output.exists() and not (is_replaced or is_again):
        raise OutputError(
            f"{output} exists already; choose another -o, or pass --overwrite (--retry-failed asks for failures only)"
        )
    started = time.monotonic()
    asked = asked_in(conversations)
    begun = Begun(model=answerer.name, fingerprint=answerer.fingerprint, conversations=sha256_file(conversations))
    done = _finished(output, begun) if is_again else {}
    with PartialFile(output.with_name(output.name + ".partial"), begun) as partial:
        done |= partial.read(asked)
        count = answer_left(
            answerer,
            asked,
            conversations.parent,
            partial,
            done,
            batch_size=batch_size,
            retries_failed=retries_failed,
            progress=progress,
        )
        predictions = [done[name] for name in asked]
        records.write_records(output, predictions)
        partial.path.unlink()
    write_run(
        output,
        summarise(
            predictions,
            **begun.model_dump(),
            asked_now=count,
            seconds_now=time.monotonic() - started,
            description=answerer.settings,
            currency=answerer.currency,
        ),
    )
    return count


def answer_left(
    answerer: Answerer,
    asked: Mapping[str, Conversation],
    folder: Path,
    partial: PartialFile,
    done: dict[str, Prediction],
    *,
    batch_size: int,
    retries_failed: bool = False,
    progress: Progress | None = None,
) -> int:
    """Answer what is not in `done` yet, which is filled, as the partial file is; returns how many that were.

    Raises:
        EndpointError, ImageError: As `predict_file`.
    """
    if retries_failed:
        for name in [name for name, one in done.items() if one.stop_reason == "failed"]:
            del done[name]
    left = [conversation for name, conversation in asked.items() if name not in done]
    size = answerer.batch_size or batch_size
    is_mixed = isinstance(answerer, Ours) and answerer.mixes_tasks
    jobs = list(batches_by_image(left, size) if is_mixed else batches(left, size))
    _ask(answerer, jobs, folder, partial, done, len(asked), progress)
    return len(left)


def _ask(
    answerer: Answerer,
    jobs: Sequence[list[Conversation]],
    folder: Path,
    partial: PartialFile,
    done: dict[str, Prediction],
    total: int,
    progress: Progress | None,
) -> None:
    """Fill `done` and the partial file."""
    in_a_row = 0

    def work(batch: list[Conversation]) -> list[Prediction]:
        predictions = list(answerer.answers(batch, folder))
        partial.add(predictions)  # where they were made, so that nothing finished waits for another thread
        return predictions

    with closing(_worked(work, jobs, answerer.workers)) as results:
        for predictions in results:
            for one in predictions:
                done[one.conversation_id] = one
                in_a_row = in_a_row + 1 if one.stop_reason == "failed" else 0
            if in_a_row >= MOST_FAILED:
                raise EndpointError(
                    f"{in_a_row} questions in a row got no usable reply, the last one: {predictions[-1].failure}. Mend "
                    f"the model or its server; the same command with --retry-failed then goes on from {partial.path}"
                )
            if progress:
                progress(len(done), total)


def _worked(
    work: Callable[[list[Conversation]], list[Prediction]], jobs: Sequence[list[Conversation]], workers: int
) -> Generator[list[Prediction], None, None]:
    """Results as they come; after an error what is under way is finished and nothing new is begun."""
    if workers == 1:
        yield from map(work, jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            for future in as_completed([pool.submit(work, job) for job in jobs]):
                yield future.result()
        except BaseException:  # also the generator's own end, when the caller stops
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def asked_in(path: Path) -> dict[str, Conversation]:
    """The conversations of a file by their ids, in its order.

    Raises:
        RecordError: The file is missing or empty, a line is broken, or an id stands there twice.
    """
    asked: dict[str, Conversation] = {}
    for conversation in records.read_records(path, Conversation):
        if conversation.id in asked:
            raise RecordError(f"{path}: conversation {conversation.id!r} stands there twice; build the dataset again")
        asked[conversation.id] = conversation
    if not asked:
        raise RecordError(f"{path}: holds no conversation")
    return asked


def answer_batch(
    predictor: Predictor,
    batch: Sequence[Conversation],
    folder: Path,
    believer: Believer | None = None,
    *,
    wants_probabilities: bool = False,
) -> Iterator[Prediction]:
    """A checkpoint's predictions for conversations, whose images are named relative to `folder`.

    With `wants_probabilities` labels in words carry them, at the price of a pass over all names.
    """
    images = {path: open_image(folder / path) for path in dict.fromkeys(one.image.path for one in batch)}
    questions = [
        Question(
            images[conversation.image.path],
            tuple((turn.role, turn.text) for turn in conversation.turns[:-1]),
            conversation.task,
            conversation.image.size_wh,
            wants_probabilities=wants_probabilities,
            source=conversation.source,
        )
        for conversation in batch
    ]
    replies = predictor.answer(questions)
    if believer:
        replies = believer(predictor.answer, questions, replies)
    for conversation, reply in zip(batch, replies, strict=True):
        yield Prediction(
            conversation_id=conversation.id,
            text=reply.text,
            confidence=reply.confidence,
            probabilities=reply.probabilities,
            presence=reply.presence,
            expected_iou=reply.expected_iou,
            model=predictor.card.name,
            seconds=reply.seconds,
            stop_reason=reply.stop_reason,
        )


def batches(conversations: Sequence[Conversation], size: int) -> Iterator[list[Conversation]]:
    """Batches of one task each, in the order of images."""
    for task in Task:
        of_task = sorted(
            (conversation for conversation in conversations if conversation.task == task),
            key=lambda conversation: (conversation.image.path, conversation.id),
        )
        for start in range(0, len(of_task), size):
            yield of_task[start : start + size]


def batches_by_image(conversations: Sequence[Conversation], size: int) -> Iterator[list[Conversation]]:
    """Batches of any tasks, questions about one image behind each other."""
    ordered = sorted(conversations, key=lambda one: (one.image.path, one.task, one.id))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def _finished(output: Path, begun: Begun) -> dict[str, Prediction]:
    """Replies of a finished file that is to be completed.

    Raises:
        PredictionError: They are of another model, or answer another file.
    """
    run = read_run(output)
    if (run.model, run.fingerprint, run.conversations) != (begun.model, begun.fingerprint, begun.conversations):
        raise PredictionError(
            f"{output}: was answered by {run.model!r} with other weights, another description or for other "
            "conversations, so its failures cannot be asked again; choose another -o, or pass --overwrite"
        )
    return {one.conversation_id: one for one in records.read_records(output, Prediction)}
