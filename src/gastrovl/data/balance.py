"""Images by set of labels to what each place of the taxonomy holds (Table 3 of He et al. 2025) and to class balance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Split

# (split, source, terms of one image) to the number of such images.
LabelSets = Mapping[tuple[str, str, tuple[str, ...]], int]


def taxonomy_places(label_sets: LabelSets, boxes: Mapping[str, int], taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """A row for each term that occurs, and for each term above one that does, in the taxonomy's order.

    `images` counts an image once, however many of its labels lie below the term; `labelled` counts images whose label
    is the term itself; `boxes` are those of the term itself.
    """
    images: Counter[tuple[str, str]] = Counter()
    labelled: Counter[str] = Counter()
    for (split, _, terms), number in label_sets.items():
        for place in {place for term in terms for place in (term, *taxonomy.ancestors(term))}:
            images[place, split] += number
        for term in terms:
            labelled[term] += number
    found = sorted({place for place, _ in images}, key=taxonomy.order)
    return [
        {
            "term": place,
            "name": taxonomy[place].name,
            "level": taxonomy[place].level,
            "parent": taxonomy[place].parent,
            "images": {split.value: images[place, split.value] for split in Split},
            "labelled": labelled[place],
            "boxes": boxes.get(place, 0),
        }
        for place in found
    ]


def class_balance(label_sets: LabelSets, taxonomy: Taxonomy) -> dict[str, dict[str, Any]]:
    """How evenly each split's labels are spread.

    For each split: `images`; `shares`, of its images, that carry a label (in [0, 1]; an image with two labels counts
    for both, so they need not sum to 1); `missing`, labels of the build that the split lacks; `imbalance`, images of
    its commonest label over those of its rarest that occurs, or None without any; `effective_classes`, the number of
    equally common labels that would be as uneven: exp of the Shannon entropy of the labels' frequencies (Hill number of
    order 1; Hill, Ecology 1973).
    """
    totals: Counter[str] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    for (split, _, terms), number in label_sets.items():
        totals[split] += number
        for term in terms:
            counts[split, term] += number
    labels = sorted({term for _, term in counts}, key=taxonomy.order)
    return {split.value: _balance_of(labels, counts, split.value, totals[split.value]) for split in Split}


def _balance_of(
    labels: Sequence[str], counts: Mapping[tuple[str, str], int], split: str, n_images: int
) -> dict[str, Any]:
    own = {term: counts.get((split, term), 0) for term in labels}
    seen = [number for number in own.values() if number]
    return {
        "images": n_images,
        "labels": len(seen),
        "shares": {term: round(number / n_images, 6) if n_images else 0.0 for term, number in own.items()},
        "missing": [term for term, number in own.items() if not number],
        "imbalance": round(max(seen) / min(seen), 3) if seen else None,
        "effective_classes": round(effective_classes(seen), 3) if seen else None,
    }


def effective_classes(counts: Iterable[int]) -> float:
    """exp of the Shannon entropy of positive counts: 1 for one class, n for n equally common ones."""
    numbers = sorted(counts)  # a fixed order of adding, so that the same counts give the same last digit
    total = sum(numbers)
    return math.exp(-sum(number / total * math.log(number / total) for number in numbers))
