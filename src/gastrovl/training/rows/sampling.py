"""How often an epoch shows each image, and which of its dialogues, so that rare tasks, classes and sources are met."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gastrovl.core.types import Conversation
from gastrovl.training.config import SamplingConfig

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """Of each image its share of an epoch, (images,), summing to 1, and the weights of its dialogues."""

    images: Floats
    dialogues: tuple[Floats, ...]


def shares_of(
    groups: Sequence[Sequence[Conversation]], config: SamplingConfig, dialogues_per_image: int | None
) -> Shares:
    """The shares that make a stratum of n dialogues come up in proportion to n^(1 / temperature).

    That is T5's temperature-scaled mixing (Raffel et al. 2020, section 3.5.2): 1 leaves the data as they are, much more
    makes all strata alike. A stratum is a task, class and source, or those of the three that `by` names; a dialogue
    about k terms belongs to the stratum of each by one k-th, and one about none to a stratum of its own. Every dialogue
    gets its stratum's share divided by the stratum's size. An image shows all its dialogues at once, or a few that are
    drawn by these weights: its own share is their sum divided by how many it shows.

    Args:
        groups: Of each image its dialogues.
    """
    strata = [[_strata(dialogue, config) for dialogue in group] for group in groups]
    sizes: dict[Hashable, float] = defaultdict(float)
    for group in strata:
        for names in group:
            for name in names:
                sizes[name] += 1 / len(names)
    scaled = {name: size ** (1 / config.temperature) for name, size in sizes.items()}
    total = sum(scaled.values())
    each = {name: scaled[name] / total / sizes[name] for name in sizes}
    dialogues = tuple(np.array([sum(each[n] for n in names) / len(names) for names in group]) for group in strata)
    images = np.array([weights.sum() / min(dialogues_per_image or len(weights), len(weights)) for weights in dialogues])
    return Shares(images / images.sum(), dialogues)


def epoch_order(images: Floats, seed: int, epoch: int) -> list[int]:
    """Which images an epoch shows and in which order: as many as there are, each its share of them rounded up or down.

    Systematic sampling (Madow 1949) spares an epoch the chance of showing an image of average share twice or never. The
    same seed and epoch give the same order in every process.

    Args:
        images: Shares, summing to 1.

    Returns:
        Indices of images; the n-th time that image i comes, counted from 0, is i + n * images.
    """
    count = len(images)
    rng = np.random.default_rng((seed, epoch, 0, 1))  # four numbers: no row draws from such a generator
    shuffled = rng.permutation(count)
    ends = np.round(np.cumsum(images[shuffled]) * count, 9)
    reached = np.ceil(ends - rng.random()).astype(int)
    reached[-1] = count
    times = np.diff(reached, prepend=0)
    order = rng.permutation(np.repeat(shuffled, times))
    seen: dict[int, int] = defaultdict(int)
    found = []
    for image in order.tolist():
        found.append(image + seen[image] * count)
        seen[image] += 1
    return found


def _strata(dialogue: Conversation, config: SamplingConfig) -> list[Hashable]:
    terms = dict.fromkeys(dialogue.target.terms or ("",)) if "class" in config.by else [""]
    task = dialogue.task if "task" in config.by else ""
    source = dialogue.source if "source" in config.by else ""
    return [(task, term, source) for term in terms]
