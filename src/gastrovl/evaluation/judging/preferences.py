"""Comparisons of two replies in both orders to wins, ties, and how much the place decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gastrovl.core.types import Judgement
from gastrovl.evaluation.judging.judged import Preference
from gastrovl.evaluation.measures.measure import mean_measure, value
from gastrovl.evaluation.statistics.intervals import intervals
from gastrovl.evaluation.statistics.proportions import exact_interval

Pair = tuple[str, str]  # better as it is, better swapped: "first", "second" or "tie", as shown


@dataclass
class _Tally:
    """Verdicts of one judge on two models: +1, 0, -1 by question, and the pairs they came from."""

    verdicts: dict[str, list[int]] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)


def preferences(
    judgements: Iterable[Judgement], group_of: Mapping[str, str], *, resamples: int, seed: int
) -> list[Preference]:
    """What each judge prefers; a question counts where both orders got a usable reply."""
    asked: dict[tuple[str, str, int, str, str], dict[bool, str]] = {}
    for one in judgements:
        if one.better is not None:
            key = (one.judge, one.conversation_id, one.repeat, one.models[0], one.models[1])
            asked.setdefault(key, {})[one.is_swapped] = one.better
    tallies: dict[tuple[str, str, str], _Tally] = {}
    for (judge, conversation, _, first, second), both in asked.items():
        if len(both) == 2:
            tally = tallies.setdefault((judge, first, second), _Tally())
            tally.pairs.append((both[False], both[True]))
            tally.verdicts.setdefault(conversation, []).append(verdict((both[False], both[True])))
    return [_preference(*key, tally, group_of, resamples, seed) for key, tally in sorted(tallies.items())]


def verdict(pair: Pair) -> int:
    """+1 where the first model won in both orders, -1 where the second did, 0 for anything else."""
    if pair == ("first", "second"):
        return 1
    return -1 if pair == ("second", "first") else 0


def _preference(
    judge: str, first: str, second: str, tally: _Tally, group_of: Mapping[str, str], resamples: int, seed: int
) -> Preference:
    net = np.array([np.mean(some) for some in tally.verdicts.values()])
    measure = mean_measure("net", net, np.ones(len(net), dtype=np.bool_), "nothing was compared")
    groups = [group_of[one] for one in tally.verdicts]
    found = intervals([measure], groups, resamples=resamples, seed=seed)[0]
    first_place, second_place = tally.pairs.count(("first", "first")), tally.pairs.count(("second", "second"))
    low, high = exact_interval(first_place + second_place, len(tally.pairs))
    return Preference(
        judge=judge,
        first=first,
        second=second,
        n=len(net),
        first_wins=int((net > 0).sum()),
        second_wins=int((net < 0).sum()),
        ties=int((net == 0).sum()),
        net=value(measure),
        low=found.low,
        high=found.high,
        pairs=len(tally.pairs),
        inconsistent=_inconsistent(tally.pairs),
        first_place=first_place,
        second_place=second_place,
        bias_low=low,
        bias_high=high,
        reason=found.reason,
    )


def _inconsistent(pairs: Sequence[Pair]) -> int:
    """Pairs whose two orders name different winners, or a winner and a tie."""
    return sum(verdict(pair) == 0 and pair != ("tie", "tie") for pair in pairs)
