"""Counts of a small dataset, worked by hand."""

from __future__ import annotations

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Box, Conversation, Finding, ImageRef, Sample, Split, Target, Task, Turn
from gastrovl.data.source import SourceDescription
from gastrovl.data.statistics import count_dataset, markdown_table, render_markdown, type_code

TAXONOMY = Taxonomy.load()
HALF, TENTH = Box(x0=0, y0=0, x1=0.5, y1=1), Box(x0=0, y0=0, x1=0.1, y1=1)


def sample(name, split, *findings, group=None):
    image = ImageRef(path=f"{name}.png", width_px=10, height_px=10, sha256="0" * 64)
    return Sample(id=name, image=image, source="own", group=group or name, split=split, findings=findings)


def question(about, task, boxes=()):
    turns = (Turn(role="user", text="?"), Turn(role="assistant", text="!"))
    return Conversation(
        id=f"{about.id}#{task}",
        sample_id=about.id,
        task=task,
        image=about.image,
        source=about.source,
        group=about.group,
        split=about.split,
        turns=turns,
        target=Target(boxes=boxes),
    )


@pytest.fixture
def counts():
    """Two training images of one group with two boxes, one test image without."""
    a = sample("a", Split.TRAIN, Finding(term="barretts_esophagus", boxes=(HALF, TENTH)), group="g")
    b = sample("b", Split.TRAIN, Finding(term="antrum"), group="g")
    c = sample("c", Split.TEST, Finding(term="antrum"))
    asked = [question(a, Task.CLS), question(a, Task.REC, (HALF,)), question(b, Task.REC), question(c, Task.CAP)]
    description = SourceDescription(
        name="own",
        title="Own",
        licence="CC0",
        citation="-",
        images=("*",),
        annotations=({"format": "yolo"},),
        labels={},
    )
    return count_dataset([a, b, c], asked, [description], TAXONOMY)


def test_table_1_counts_pairs_by_split_and_task(counts):
    assert counts["table_1"] == {
        "train": {"CAP": 0, "CLS": 1, "REC": 2, "REG": 0},
        "val": {"CAP": 0, "CLS": 0, "REC": 0, "REG": 0},
        "test": {"CAP": 1, "CLS": 0, "REC": 0, "REG": 0},
    }


def test_table_2_counts_pairs_by_source_with_their_types(counts):
    (row,) = counts["table_2"]
    assert (row["source"], row["images"], row["total"], row["types"]) == ("own", 3, 4, ["AS-S", "PF-ED"])


def test_images_groups_boxes_and_absent_questions_are_counted(counts):
    assert counts["splits"]["train"] == {"images": 2, "groups": 1, "boxes": 2}
    assert counts["splits"]["test"] == {"images": 1, "groups": 1, "boxes": 0}
    assert counts["absent_questions"] == 1


def test_labels_are_counted_by_split_in_taxonomy_order(counts):
    assert [(row["term"], row["images"], row["boxes"]) for row in counts["labels"]] == [
        ("antrum", {"train": 1, "val": 0, "test": 1}, 0),
        ("barretts_esophagus", {"train": 1, "val": 0, "test": 0}, 2),
    ]


def test_box_sizes_are_shares_of_the_image(counts):
    assert (counts["box_share_of_image"][0], counts["box_share_of_image"][-1]) == (0.1, 0.5)


def test_the_page_shows_a_task_without_pairs_as_not_available(counts):
    page = render_markdown(counts, TAXONOMY)
    assert "| train | 0 | 1 | 2 | 0 |" in page
    assert "| own | 1 | 1 | 2 | N/A | 4 | AS-S, PF-ED | public |" in page
    assert "AS-S anatomical structure, stomach" in page


def test_type_codes_are_initials_of_the_upper_levels():
    assert type_code("early_gastric_cancer", TAXONOMY) == "PF-GD"
    assert type_code("pathological_findings", TAXONOMY) == "PF"


def test_type_codes_of_all_places_differ():
    codes = [type_code(term.id, TAXONOMY) for term in TAXONOMY.terms if term.level <= 2]
    assert len(set(codes)) == len(codes)


def test_a_bar_or_a_line_break_does_not_break_a_table():
    assert markdown_table(["a"], [["x|y\nz"], [1234]]).splitlines()[2:] == ["| x\\|y z |", "| 1,234 |"]
