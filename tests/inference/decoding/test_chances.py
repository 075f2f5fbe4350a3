"""Sums over the taxonomy and priors, on numbers worked by hand."""

from __future__ import annotations

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.inference.decoding.chances import summed, without_prior


def test_a_term_is_as_likely_as_itself_and_all_below_it():
    taxonomy = Taxonomy.load()
    leaf = next(term for term in taxonomy.terms if term.level == 3)
    parent, top = taxonomy.ancestors(leaf.id)

    sums = summed({leaf.id: 0.25, parent: 0.125, top: 0.5}, taxonomy)

    assert (sums[leaf.id], sums[parent], sums[top]) == (0.25, 0.375, 0.875)
    assert sum(value > 0 for value in sums.values()) == 3


def test_no_sum_exceeds_one():
    taxonomy = Taxonomy.load()
    leaves = [term for term in taxonomy.terms if term.level == 3]

    assert max(summed({term.id: 0.9 for term in leaves}, taxonomy).values()) == 1.0


def test_exclusive_names_are_divided_by_the_prior_and_their_sum():
    found = without_prior({"a": 0.6, "b": 0.4}, {"a": 0.75, "b": 0.25}, is_exclusive=True)

    assert found == pytest.approx({"a": 0.8 / 2.4, "b": 1.6 / 2.4})


def test_of_labels_side_by_side_the_odds_are_divided():
    found = without_prior({"a": 0.5, "b": 0.75, "c": 0.0, "d": 1.0}, {"a": 0.2, "b": 0.75}, is_exclusive=False)

    assert found["a"] == pytest.approx(0.8)
    assert found["b"] == pytest.approx(0.5)
    assert (found["c"], found["d"]) == (0.0, 1.0)
