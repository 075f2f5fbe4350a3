"""Work on many items by a few threads, results in the order of the items."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 4  # Pillow and numpy let go of the interpreter for about half of the work on an image


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map`, with a few results computed ahead by threads; memory holds those few only.

    Raises:
        Whatever `function` raises, at its item's turn; what was begun behind it is finished and dropped.
    """
    workers = min(os.cpu_count() or 1, MOST_THREADS)
    begun: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > 2 * workers:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
