from __future__ import annotations

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Split, Task
from gastrovl.evaluation.measures.classification import UNPARSED
from gastrovl.evaluation.results import ClassScore, ConfusionMatrix
from gastrovl.evaluation.showing.confusions import by_group, draw_classes, draw_confusion, group_of, in_groups


@pytest.fixture
def taxonomy():
    return Taxonomy.load()


def matrix(rows, columns, counts):
    return ConfusionMatrix(task=Task.CLS, split=Split.TEST, rows=rows, columns=columns, counts=counts)


def one_class(label, n_true, recall=0.5, precision=0.25):
    return ClassScore(
        task=Task.CLS, dataset="all", split=Split.TEST, label=label, n_true=n_true, n_predicted=4,
        precision=precision, recall=recall, f1=0.3,
    )  # fmt: skip


def test_labels_of_a_group_stand_side_by_side_and_odd_columns_last(taxonomy):
    found = in_groups(
        matrix(
            ("gastric_ulcer", "esophagitis", "gastric_polyp"),
            (UNPARSED, "gastric_ulcer", "esophagitis", "gastric_polyp"),
            ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12)),
        ),
        taxonomy,
    )
    assert found.rows[0] == "esophagitis"
    assert found.columns[0] == "esophagitis"
    assert found.columns[-1] == UNPARSED
    place = found.columns.index("gastric_ulcer")
    assert found.counts[0] == (7, *((6, 8) if place == 1 else (8, 6)), 5)


def test_confusions_within_a_group_are_right_up_to_the_group(taxonomy):
    found = by_group(
        matrix(
            ("esophagitis", "gastric_polyp", "gastric_ulcer"),
            ("esophagitis", "gastric_polyp", "gastric_ulcer", UNPARSED),
            ((5, 1, 0, 1), (0, 3, 2, 0), (1, 2, 4, 0)),
        ),
        taxonomy,
    )
    gastric = group_of("gastric_ulcer", taxonomy)
    assert found.rows == (group_of("esophagitis", taxonomy), gastric)
    assert found.columns == (*found.rows, UNPARSED)
    assert found.counts == ((5, 1, 1), (1, 11, 0))


def test_a_label_that_is_no_term_is_its_own_group(taxonomy):
    assert group_of("foreign label", taxonomy) == "foreign label"


def test_a_large_confusion_says_shares_of_at_least_a_tenth_only(taxonomy):
    labels = tuple(term.id for term in taxonomy.terms if term.level == 3)[:30]
    counts = tuple(tuple(18 if i == j else 1 if (i + 1) % 30 == j else 0 for j in range(30)) for i in range(30))
    axes = draw_confusion(matrix(labels, labels, counts), taxonomy).axes[0]
    assert [text.get_text() for text in axes.texts] == ["95"] * 30  # 18 of 19; 1 of 19 is less than a tenth
    assert "percent of the row" in axes.get_title()
    small = draw_confusion(matrix(labels[:2], labels[:2], ((18, 1), (0, 3))), taxonomy).axes[0]
    assert [text.get_text() for text in small.texts] == ["18", "1", "3"]
    assert "counts" in small.get_title()


def test_the_most_frequent_labels_come_first_and_absent_ones_not_at_all(taxonomy):
    axes = draw_classes(
        [one_class("gastric_ulcer", 2), one_class("esophagitis", 9), one_class("gastric_polyp", 0)], taxonomy
    ).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["esophagitis (9)", "gastric ulcer (2)"]
    assert [patch.get_width() for patch in axes.patches] == [50.0, 50.0]
    assert draw_classes([one_class("gastric_polyp", 0)], taxonomy) is None


def test_of_many_labels_forty_are_shown_and_the_title_says_so(taxonomy):
    labels = [term.id for term in taxonomy.terms][:45]
    axes = draw_classes([one_class(label, 100 - i) for i, label in enumerate(labels)], taxonomy).axes[0]
    assert len(axes.patches) == 40
    assert "the 40 most frequent of 45 labels" in axes.get_title()
