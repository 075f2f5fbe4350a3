"""Texts, true and predicted, to counts of the facts that agree: a row a conversation, worked out by several processes.

Reading a text takes a tenth of a millisecond and is plain Python, so that threads do not help.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from numpy.typing import NDArray

from gastrovl.clinical.statements import KINDS, Fact, facts_of
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Status
from gastrovl.evaluation.measures.factpairs import STATED_WITH_STATUS, Agreement, agree

References = tuple[str, ...]
Row = tuple[References, tuple[str, ...]]  # of one conversation: its references, and one reply of each answerer
Counts = NDArray[np.int32]  # (conversations, COLUMNS)
# A row of counts: matched, replied and stated facts of each kind in turn, then what follows.
REPLY_NEAR, REFERENCE_NEAR, AGREED, NAMED, OPPOSED, ASKED = range(3 * len(KINDS), 3 * len(KINDS) + 6)
COLUMNS = ASKED + 1
_FIRST_OF = {kind: 3 * place for place, kind in enumerate(KINDS)}
FEWEST_ROWS = 4000  # below that, a process takes longer to start than to help
_AT_ONCE = 1000  # rows of one task of a process


def processes(workers: int) -> ProcessPoolExecutor | None:
    """Processes that help this one to count, so that `workers` do in all; None where it is alone.

    They start when there is work, anew and not forked: threads of libraries in this one would be torn.
    """
    if workers < 2:
        return None
    return ProcessPoolExecutor(workers - 1, mp_context=multiprocessing.get_context("spawn"), initializer=gc.disable)


def begin_counts(
    references: Sequence[References],
    replies: Sequence[Sequence[str | None]],
    taxonomy: Taxonomy,
    helpers: Executor | None = None,
) -> Callable[[], list[Counts]]:
    """Begin to count the facts of several answerers' replies to the same questions; the result waits for the end.

    Args:
        references: Of each conversation.
        replies: Of each answerer, in the order of the references; None states nothing.
        helpers: As `processes` makes them. They are used where there are thousands of different texts and the taxonomy
            is the one that ships; what they have not begun when the result is asked for is counted here.

    Returns:
        A function that gives the counts of each answerer.
    """
    rows: dict[Row, int] = {}
    of_each = [[reply or "" for reply in some] for some in replies]
    places = [
        rows.setdefault((wanted, tuple(given)), len(rows)) for wanted, *given in zip(references, *of_each, strict=True)
    ]
    different = list(rows)
    parts = [different[start : start + _AT_ONCE] for start in range(0, len(different), _AT_ONCE)]
    is_shared = len(different) >= FEWEST_ROWS and taxonomy is Taxonomy.load()
    begun = _submitted(helpers, parts) if helpers and is_shared else [None] * len(parts)

    def finish() -> list[Counts]:
        tables = [np.zeros((0, len(replies), COLUMNS), dtype=np.int32)] * len(parts)
        left = []
        for place in reversed(range(len(parts))):  # the helpers begin at the other end
            future = begun[place]
            if future is None or future.cancel():
                tables[place] = _table(parts[place], taxonomy)
            else:
                left.append((place, future))
        for place, future in left:
            tables[place] = _result(future, parts[place], taxonomy)
        table = np.concatenate(tables)[places] if tables else np.zeros((0, len(replies), COLUMNS), dtype=np.int32)
        return [np.ascontiguousarray(table[:, answerer]) for answerer in range(len(replies))]

    return finish


def best_of(references: References, reply: str, taxonomy: Taxonomy) -> tuple[int, Agreement]:
    """Place of the best reference that states something, and how the reply agrees with it.

    The best has the highest F1, then the most matches, then comes first; (0, nothing) where none states anything.
    """
    replied = facts_of(reply, taxonomy)
    stated = [facts_of(text, taxonomy) for text in references]
    if len(stated) == 1:
        return 0, agree(stated[0], replied if stated[0] else (), taxonomy)
    # Wordings of one record state the same: they are compared with the reply once.
    different = {tuple(sorted(map(_key, facts))): place for place, facts in reversed(list(enumerate(stated))) if facts}
    found = [(place, agree(stated[place], replied, taxonomy)) for place in sorted(different.values())]

    def merit(one: tuple[int, Agreement]) -> tuple[float, int]:
        matched = len(one[1].matched)
        return 2 * matched / (len(stated[one[0]]) + len(replied)), matched

    return max(found, key=merit) if found else (0, agree((), (), taxonomy))


def counts_of(found: Agreement) -> list[int]:
    """The row of one reply and its reference."""
    counts = [0] * COLUMNS
    agreed = 0
    for one, _ in found.matched:
        agreed += one.kind in STATED_WITH_STATUS
        first = _FIRST_OF[one.kind]
        counts[first] += 1
        counts[first + 1] += 1
        counts[first + 2] += 1
    for one in found.invented:
        counts[_FIRST_OF[one.kind] + 1] += 1
    for one in found.missed:
        counts[_FIRST_OF[one.kind] + 2] += 1
    turned = [one for one, other in (*found.contradicted, *found.hedged) if one.value == other.value]
    ignored = [one for one in found.missed if _is_denied(one) and one not in turned]
    counts[REPLY_NEAR] = len({id(other) for _, other in found.near})
    counts[REFERENCE_NEAR] = len({id(one) for one, _ in found.near})
    counts[AGREED], counts[NAMED] = agreed, agreed + len(turned) + len(ignored)
    counts[OPPOSED], counts[ASKED] = len(found.contradicted), bool(found.matched or found.missed)
    return counts


def _key(fact: Fact) -> tuple[str, ...]:
    return fact.kind, fact.value, fact.status, fact.of or ""


def _is_denied(fact: Fact) -> bool:
    return fact.status is Status.ABSENT and fact.kind in STATED_WITH_STATUS


def _submitted(helpers: Executor, parts: Sequence[list[Row]]) -> list[Future[NDArray[np.int32]] | None]:
    try:
        return [helpers.submit(_table, part) for part in parts]
    except BrokenProcessPool:
        return [None] * len(parts)


def _result(future: Future[NDArray[np.int32]], part: list[Row], taxonomy: Taxonomy) -> NDArray[np.int32]:
    """What a helper found; where it died, or could not start, the same is counted here."""
    try:
        return future.result()
    except BrokenProcessPool:
        return _table(part, taxonomy)


def _table(part: Sequence[Row], taxonomy: Taxonomy | None = None) -> NDArray[np.int32]:
    """Counts of each row and answerer, (rows, answerers, COLUMNS); None takes the taxonomy that ships."""
    known = taxonomy or Taxonomy.load()
    counts = [[counts_of(best_of(wanted, reply, known)[1]) for reply in given] for wanted, given in part]
    return np.array(counts, dtype=np.int32)
