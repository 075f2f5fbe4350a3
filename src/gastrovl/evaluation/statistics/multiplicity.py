"""P values of several comparisons to p values that hold for all of them together."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (Holm 1979, A simple sequentially rejective multiple test procedure).

    Rejecting where the adjusted value is at most alpha keeps the chance of even one false rejection among all of them
    at or below alpha, whatever the dependence between the tests.

    Args:
        p_values: Each in [0, 1]; None where nothing could be tested, which stays None and is not counted.

    Returns:
        Adjusted values, in the order given.

    Raises:
        ValueError: A value is not in [0, 1].
    """
    tested = [(p, place) for place, p in enumerate(p_values) if p is not None]
    for p, place in tested:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p value {p} at place {place}; expected a number in [0, 1]")
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(sorted(tested)):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = highest
    return adjusted
