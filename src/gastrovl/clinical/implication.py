"""Two terms to whether one is true wherever the other is: equal, above it, its organ, or said with fewer words."""

from __future__ import annotations

from functools import lru_cache

from gastrovl.clinical.mentions import singular, tokenise
from gastrovl.clinical.taxonomy import Taxonomy

_VIEWS = ("negative", "anatomical_structure", "out_of_scope")  # terms below these name what is in view, not a finding
_SMALL_WORDS = frozenset({"of", "the", "in", "and", ","})  # not "a", which is a grade
_ORGAN_WORDS = {
    "esophagus": frozenset({"esophagus", "esophageal"}),
    "stomach": frozenset({"stomach", "gastric"}),
    "duodenum": frozenset({"duodenum", "duodenal"}),
}
_PATHOLOGY = "pathological_findings"


def is_view(term: str, taxonomy: Taxonomy) -> bool:
    """Whether a term names what is in view (a site, a normal view) and not a finding."""
    return any(ancestor in _VIEWS for ancestor in (term, *taxonomy.ancestors(term)))


def implies(term: str, wider: str, taxonomy: Taxonomy, *, organ: str | None = None, grade: str | None = None) -> bool:
    """Whether `wider` is true wherever `term` is.

    Args:
        term, wider: Term ids of the taxonomy.
        organ: "esophagus", "stomach" or "duodenum" where `term` is known to lie; None when nothing says.
        grade: The grade that `term` is known to have; "esophagitis" of grade A is "esophagitis la grade a".
    """
    above = (term, *taxonomy.ancestors(term))
    if wider in above or (organ and wider in (organ, *taxonomy.ancestors(organ))):
        return True
    own = _ORGAN_WORDS.get(organ or "", frozenset()) if _PATHOLOGY in above else frozenset()
    if grade:
        own |= {"la", "grade", *(token.word for token in tokenise(grade))}
    words = _wordings(term, taxonomy)[0]  # the name's: a synonym such as "erosive gastritis" says too much
    return any(less <= (words | own) for less in _wordings(wider, taxonomy))


@lru_cache(maxsize=4096)
def _wordings(term: str, taxonomy: Taxonomy) -> tuple[frozenset[str], ...]:
    """Each wording of a term, its name first, as the set of its words, without endings and small words."""
    found = []
    for wording in (taxonomy[term].name, *taxonomy[term].synonyms):
        words = {singular(token.word) for token in tokenise(wording)} - _SMALL_WORDS
        if any(word.endswith("carcinoma") for word in words):
            words |= {"cancer", "carcinoma"}
        if "adenoma" in words:
            words |= {"polyp"}
        found.append(frozenset(words))
    return tuple(found)
