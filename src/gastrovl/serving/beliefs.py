"""What one may believe of a reply to the fields that say so on the wire."""

from __future__ import annotations

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.inference.verdicts import Belief
from gastrovl.serving.schemas import BeliefGiven, CheckMade, ScopeGiven, SetLabel, SureLabel


def scope_given(belief: Belief | None) -> ScopeGiven | None:
    """Whether the picture is one the model is for; None where that is not known."""
    scope = belief.scope if belief else None
    return None if scope is None else ScopeGiven(verdict=scope.verdict, reason=scope.reason)


def belief_given(belief: Belief | None) -> BeliefGiven | None:
    """What to believe of an answer; None where nothing was fitted for its task."""
    if belief is None or not belief.is_calibrated:
        return None
    labels = belief.label_set
    return BeliefGiven(
        withheld=belief.is_withheld,
        fallback=[SureLabel(id=one.term, name=_name(one.term), probability=one.probability) for one in belief.fallback],
        risk=belief.risk,
        risk_is_shown=belief.is_assured,
        label_set=None if labels is None else [SetLabel(id=term, name=_name(term)) for term in labels],
        level=belief.level,
        checks=[CheckMade(name=one.name, passed=one.passed, detail=one.detail) for one in belief.checks],
    )


def _name(term: str) -> str:
    return Taxonomy.load()[term].name
