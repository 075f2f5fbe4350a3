"""Probabilities of terms to sums over the taxonomy, and to probabilities without what a model says of any image."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gastrovl.clinical.taxonomy import Taxonomy

_LEAST = 1e-9  # what counts as impossible is this unlikely


def summed(probabilities: Mapping[str, float], taxonomy: Taxonomy) -> dict[str, float]:
    """Of every term, that it or a term below it is meant: its own probability and those of its children, 1 at most.

    Of REG, where one name is given, this is exact; of CLS, where several labels can be, it is an upper bound.
    """
    total = {term.id: probabilities.get(term.id, 0.0) for term in taxonomy.terms}
    for term in reversed(taxonomy.terms):  # parents stand before their children
        if term.parent is not None:
            total[term.parent] += total[term.id]
    return {term: min(1.0, value) for term, value in total.items()}


def without_prior(
    probabilities: Mapping[str, float], prior: Mapping[str, float], *, is_exclusive: bool
) -> dict[str, float]:
    """Probabilities with what the model says whatever it sees taken out.

    Args:
        probabilities: Of terms. Of REG they exclude each other (`is_exclusive`) and are divided by the prior, then by
            their sum, which is contextual calibration (Zhao et al., ICML 2021); of CLS each stands for itself, and the
            same is done to its odds.
        prior: Of the same terms: what the model says of a blank image (`Predictor.prior`), or their shares in
            training, which makes this logit adjustment (Menon et al., ICLR 2021).
    """
    shares = {term: max(prior.get(term, 0.0), _LEAST) for term in probabilities}
    if is_exclusive:
        raw = {term: value / shares[term] for term, value in probabilities.items()}
        total = math.fsum(raw.values()) or 1.0
        return {term: value / total for term, value in raw.items()}
    return {term: _over(value, min(shares[term], 1 - _LEAST)) for term, value in probabilities.items()}


def _over(value: float, prior: float) -> float:
    """The probability whose odds are those of `value` divided by those of `prior`."""
    ahead, behind = value * (1 - prior), (1 - value) * prior
    return ahead / (ahead + behind)
