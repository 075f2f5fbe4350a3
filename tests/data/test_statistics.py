"""Counts of a small dataset, worked by hand."""

from __future__ import annotations

import itertools
import json

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import RecordError
from gastrovl.core.types import Box, Conversation, Finding, ImageRef, Sample, Split, Status, Target, Task, Turn
from gastrovl.data.source import SourceDescription
from gastrovl.data.statistics import Tally, count_dataset, markdown_table, render_markdown, type_code

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


DESCRIPTION = SourceDescription(
    name="own", title="Own", licence="CC0", citation="-", images=("*",), annotations=({"format": "yolo"},), labels={}
)


@pytest.fixture
def dataset():
    """Two training images of one group with two boxes, one test image without; each with its conversations by file."""
    a = sample("a", Split.TRAIN, Finding(term="barretts_esophagus", boxes=(HALF, TENTH)), group="g")
    b = sample("b", Split.TRAIN, Finding(term="antrum"), group="g")
    c = sample("c", Split.TEST, Finding(term="antrum"))
    return [
        (a, {"train": [question(a, Task.CLS), question(a, Task.REC, (HALF,))]}),
        (b, {"train": [question(b, Task.REC)]}),
        (c, {"test": [question(c, Task.CAP)], "test_reworded": [question(c, Task.CAP)] * 2, "test_dialogues": []}),
    ]


def tally_of(images):
    tally = Tally()
    for about, conversations in images:
        tally.add(about, conversations)
    return tally


@pytest.fixture
def counts(dataset):
    return tally_of(dataset).result([DESCRIPTION], TAXONOMY)


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


def test_parts_counted_apart_add_up_to_the_whole_in_any_order(dataset, counts):
    for order in itertools.permutations(dataset):
        whole = Tally()
        for image in order:
            whole.merge(tally_of([image]))
        assert whole.to_json() == tally_of(dataset).to_json()
        assert whole.result([DESCRIPTION], TAXONOMY) == counts


def test_a_tally_survives_json(dataset, counts):
    again = Tally.from_json(json.loads(json.dumps(tally_of(dataset).to_json())))
    assert again.result([DESCRIPTION], TAXONOMY) == counts
    again.merge(again)
    assert again.result([DESCRIPTION], TAXONOMY)["splits"]["train"] == {"images": 4, "groups": 1, "boxes": 4}


def test_a_tally_of_another_version_is_refused():
    with pytest.raises(RecordError, match="expected 'gastrovl/tally/1'"):
        Tally.from_json({"schema": "gastrovl/tally/0", "counts": [], "groups": []})


def test_a_dataset_in_memory_is_counted_like_one_that_streams(dataset, counts):
    asked = [item for _, files in dataset for name in ("train", "val", "test") for item in files.get(name, ())]
    beside = {"test_reworded": dataset[2][1]["test_reworded"], "test_dialogues": []}
    assert count_dataset([about for about, _ in dataset], asked, [DESCRIPTION], TAXONOMY, beside) == counts


def test_files_beside_the_splits_are_counted_even_when_empty(dataset):
    counts = tally_of(dataset).result([DESCRIPTION], TAXONOMY, ["val_reworded"])
    assert counts["further_files"] == {"test_dialogues": 0, "test_reworded": 2, "val_reworded": 0}


def test_quartiles_are_the_boxes_at_those_places():
    # Five boxes of 10, 20, 30, 40 and 50 % of the image: places 0, 1, 2, 3 and 4.
    boxes = tuple(Box(x0=0, y0=0, x1=0.1 * n, y1=1) for n in (3, 1, 5, 2, 4))
    counts = tally_of([(sample("a", Split.VAL, Finding(term="polyp_unspecified", boxes=boxes)), {})]).result(
        [], TAXONOMY
    )
    assert counts["box_share_of_image"] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_finding_that_is_absent_is_no_label():
    about = sample("a", Split.TEST, Finding(term="gastric_ulcer", status=Status.ABSENT), Finding(term="antrum"))
    counts = tally_of([(about, {})]).result([DESCRIPTION], TAXONOMY)
    assert [row["term"] for row in counts["labels"]] == ["antrum"]


@pytest.fixture
def skewed():
    """Training images: 6 antrum, 3 body, of which 1 also gastric ulcer; testing images: 2 antrum."""
    antrum, body, ulcer = (Finding(term=term) for term in ("antrum", "body", "gastric_ulcer"))
    found = [(antrum,)] * 6 + [(body,)] * 2 + [(body, ulcer)]
    images = [(sample(f"a{n}", Split.TRAIN, *findings), {}) for n, findings in enumerate(found)]
    images += [(sample(f"t{n}", Split.TEST, antrum), {}) for n in range(2)]
    return tally_of(images).result([DESCRIPTION], TAXONOMY)


def test_an_image_counts_once_at_each_place_of_the_taxonomy(skewed):
    rows = {row["term"]: row for row in skewed["table_3"]}
    assert list(rows) == [
        "anatomical_structure",
        "stomach",
        "body",
        "antrum",
        "pathological_findings",
        "gastric_diseases",
        "gastric_ulcer",
    ]
    assert rows["stomach"]["images"] == {"train": 9, "val": 0, "test": 2}
    assert (rows["stomach"]["labelled"], rows["antrum"]["labelled"], rows["body"]["labelled"]) == (0, 8, 3)
    assert (rows["gastric_ulcer"]["level"], rows["gastric_ulcer"]["parent"]) == (3, "gastric_diseases")


def test_the_page_lays_table_3_out_by_the_upper_levels(skewed):
    page = render_markdown(skewed, TAXONOMY)
    assert "| anatomical structure (11) | stomach | gastric body 3, antrum 8 | 11 |" in page
    assert "| pathological findings (1) | gastric diseases | gastric ulcer 1 | 1 |" in page


def test_class_balance_is_that_of_images(skewed):
    train, test = skewed["balance"]["train"], skewed["balance"]["test"]
    # 6, 3 and 1 of 9 images; 10 labels, so exp(-(0.6 ln 0.6 + 0.3 ln 0.3 + 0.1 ln 0.1)) = exp(0.897946) = 2.4546
    assert train["shares"] == pytest.approx({"antrum": 6 / 9, "body": 3 / 9, "gastric_ulcer": 1 / 9}, abs=1e-6)
    assert (train["imbalance"], train["effective_classes"]) == (6.0, 2.455)
    assert (test["labels"], test["imbalance"], test["effective_classes"]) == (1, 1.0, 1.0)
    assert test["missing"] == ["body", "gastric_ulcer"]
    assert skewed["balance"]["val"] == {
        "images": 0,
        "labels": 0,
        "shares": {"body": 0.0, "antrum": 0.0, "gastric_ulcer": 0.0},
        "missing": ["body", "antrum", "gastric_ulcer"],
        "imbalance": None,
        "effective_classes": None,
    }


def test_the_page_names_labels_that_a_split_lacks(skewed):
    assert "| test | 2 | 1 | 1.0 | 1.0 | gastric body, gastric ulcer |" in render_markdown(skewed, TAXONOMY)
