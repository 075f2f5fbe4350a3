"""Questions of many clients to replies: one worker thread, micro-batches, a bounded queue, and abandonment.

A batch forms while the last one is computed: nothing waits for company. The oldest question is always next; those that
can be answered together with it (same task, same limit of tokens) join it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from gastrovl.inference.question import Question, Reply
from gastrovl.serving.refusals import RefusedError, client_gone, closing, queue_full, timed_out

Say = Callable[[str], bool]  # takes a piece of a reply; False: nobody listens any more


class Model(Protocol):
    """What an engine runs; only its one worker thread calls `answer` and `stream`.

    Attributes:
        name: By which requests choose it.
    """

    name: str

    def answer(self, questions: Sequence[Question], max_new_tokens: int) -> Sequence[Reply]:
        """Replies in the order of the questions."""
        ...

    def stream(self, question: Question, max_new_tokens: int, say: Say) -> Reply | None:
        """The reply, after `say` was given its pieces; None, and soon, once `say` has returned False."""
        ...

    def prompt_length(self, question: Question) -> int:
        """Tokens of the question with its image; called by any thread.

        Raises:
            GastroVLError: The question cannot be put to this model.
        """
        ...

    def reply_length(self, reply: Reply, limit: int) -> int:
        """Tokens of a reply that might have `limit`; called by any thread."""
        ...

    def why_no_tokens(self, question: Question) -> str | None:
        """Why a reply's tokens cannot be told with their log-probabilities; None where they can. Of any thread."""
        ...

    def room(self, prompt_length: int) -> int:
        """Tokens that a reply to such a prompt may have; below 1: the prompt is too long."""
        ...


@dataclass(frozen=True)
class Answered:
    """A reply, how long its question waited, and how many were answered together with it."""

    reply: Reply
    waited_s: float
    batch: int


class Watch(Protocol):
    """Is told what an engine does, from its worker thread."""

    def worked(self, model: str, batch: int, seconds: float, is_stream: bool) -> None: ...

    def failed(self, model: str, error: BaseException) -> None: ...


@dataclass(eq=False)
class _Job:
    question: Question
    limit: int
    since: float
    say: Say | None = None
    future: Future[Answered] = field(default_factory=Future)
    is_abandoned: bool = False

    @property
    def pixels(self) -> int:
        return sum(image.width * image.height for image in self.question.images)

    def goes_with(self, other: _Job) -> bool:
        alike = (self.question.task, self.limit) == (other.question.task, other.limit)
        return alike and self.say is None and other.say is None


class Engine:
    """Answers questions of any number of threads and coroutines, one batch after another.

    Args:
        max_queue: Questions that may wait; one more is refused.
        max_batch: Questions answered together.
        max_queued_pixels: Of all waiting images together; what bounds memory where images are large.
    """

    def __init__(
        self,
        model: Model,
        *,
        max_queue: int = 64,
        max_batch: int = 8,
        max_queued_pixels: int = 200_000_000,
        watch: Watch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self.max_queue, self.max_batch = model, max_queue, max_batch
        self.max_queued_pixels, self.watch, self._clock = max_queued_pixels, watch, clock
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=f"engine {model.name}", daemon=True)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def waiting(self) -> int:
        """Questions in the queue; those being answered do not count."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def is_ready(self) -> bool:
        """Started, alive, and taking questions."""
        return self._thread.is_alive() and not self._is_closing

    def start(self) -> None:
        """Begin to answer; a second call does nothing."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self, grace_s: float = 0.0) -> None:
        """Take no more questions, answer for so long what waits already, and refuse what is left then."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(grace_s)
        with self._changed:
            left, self._waiting = self._waiting, []
        for job in left:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(closing())

    def check_room(self) -> None:
        """Raises:
        RefusedError: A question would be refused now; asked before an image is decoded in vain.
        """
        if self._is_closing:
            raise closing()
        if len(self._waiting) >= self.max_queue:
            raise queue_full()

    def submit(self, question: Question, max_new_tokens: int) -> Future[Answered]:
        """Queue a question; cancelling the future before its turn takes it out of the queue.

        Raises:
            RefusedError: The queue is full, or the engine is closing.
        """
        job = self._put(question, max_new_tokens, None)
        job.future.add_done_callback(lambda future: self._abandon(job) if future.cancelled() else None)
        return job.future

    async def ask(self, question: Question, max_new_tokens: int, timeout_s: float) -> Answered:
        """The reply to a question; when the caller is cancelled, the question gives up its place.

        Raises:
            RefusedError: The queue is full, the time is over, or the engine is closing.
        """
        job = self._put(question, max_new_tokens, None)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(job.future), timeout_s)
        except TimeoutError:
            raise timed_out(timeout_s) from None
        finally:
            self._abandon(job)

    async def stream(self, question: Question, max_new_tokens: int, timeout_s: float) -> AsyncIterator[str | Answered]:
        """The pieces of a reply as they come, then the reply as a whole; closing the iterator ends the work on it.

        Raises:
            RefusedError: As `ask`, at the first step or later.
        """
        loop, pieces = asyncio.get_running_loop(), asyncio.Queue[str | None]()
        until = loop.time() + timeout_s
        job: _Job | None = None

        def hand_over(piece: str | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        def say(piece: str) -> bool:
            if job is not None and job.is_abandoned:
                return False
            hand_over(piece)
            return True

        job = self._put(question, max_new_tokens, say)
        job.future.add_done_callback(lambda _: hand_over(None))
        try:
            while (piece := await asyncio.wait_for(pieces.get(), until - loop.time())) is not None:
                yield piece
            yield job.future.result()
        except TimeoutError:
            raise timed_out(timeout_s) from None
        finally:
            self._abandon(job)

    def _put(self, question: Question, limit: int, say: Say | None) -> _Job:
        job = _Job(question, limit, self._clock(), say)
        with self._changed:
            self.check_room()
            if self._waiting and sum(one.pixels for one in self._waiting) + job.pixels > self.max_queued_pixels:
                raise queue_full()
            self._waiting.append(job)
            self._changed.notify_all()
        return job

    def _abandon(self, job: _Job) -> None:
        """Free the place of a question that nobody waits for; one that is being answered is told to stop."""
        job.is_abandoned = True
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
        job.future.cancel()

    def _run(self) -> None:
        while jobs := self._next():
            begin = self._clock()
            try:
                self._work(jobs, begin)
            finally:
                self._running = []
            if self.watch:
                self.watch.worked(self.name, len(jobs), self._clock() - begin, jobs[0].say is not None)

    def _next(self) -> list[_Job]:
        """The oldest question and what goes with it; nothing when the engine closes and all is answered."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting:
                    return []
                first = self._waiting[0]
                together = [job for job in self._waiting if job is first or job.goes_with(first)][: self.max_batch]
                self._waiting = [job for job in self._waiting if job not in together]
                self._running = [job for job in together if job.future.set_running_or_notify_cancel()]
                if self._running:
                    return list(self._running)

    def _work(self, jobs: Sequence[_Job], begin: float) -> None:
        first = jobs[0]
        try:
            if first.say is not None:
                reply = self.model.stream(first.question, first.limit, first.say)
                replies: Sequence[Reply] = [] if reply is None else [reply]
            else:
                replies = self.model.answer([job.question for job in jobs], first.limit)
            if first.is_abandoned and not replies:
                raise client_gone()
            for job, reply in zip(jobs, replies, strict=True):
                job.future.set_result(Answered(reply, begin - job.since, len(jobs)))
        except BaseException as error:  # whatever it is, the thread must live on and nobody may wait for ever
            if len(jobs) > 1 and not any(job.future.done() for job in jobs):
                for job in jobs:  # one bad question must not take the others along
                    self._work([job], begin)
                return
            if self.watch and not isinstance(error, RefusedError):
                self.watch.failed(self.name, error)
            for job in jobs:
                if not job.future.done():
                    job.future.set_exception(error)
