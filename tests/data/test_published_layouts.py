"""Each packaged source in the folder layout in which it is published, with a frame a class: what its build makes of it.

The pictures are drawn; names, folders and tables are those of the releases (see `note` and `by_hand` of each source).
"""

from __future__ import annotations

import csv
import json

import pytest

from gastrovl.core.config import parse_config
from gastrovl.core.errors import LabelError
from gastrovl.core.records import read_records
from gastrovl.core.types import Sample
from gastrovl.data.build import BuildConfig, build_dataset
from gastrovl.data.source import load_source, packaged_sources

SIZE_WH = (100, 80)
BOX = {"label": "polyp", "xmin": 10, "ymin": 20, "xmax": 60, "ymax": 60}
FOLDS = {  # HyperKvasir's labelled images: tract and kind of class above the class
    "upper-gi-tract/anatomical-landmarks": ["z-line", "pylorus", "retroflex-stomach"],
    "upper-gi-tract/pathological-findings": ["esophagitis-a", "esophagitis-b-d", "barretts", "barretts-short-segment"],
    "lower-gi-tract/anatomical-landmarks": ["cecum", "ileum", "retroflex-rectum"],
    "lower-gi-tract/pathological-findings": ["polyps", "hemorrhoids", "ulcerative-colitis-grade-2"],
    "lower-gi-tract/quality-of-mucosal-views": ["bbps-0-1", "bbps-2-3", "impacted-stool"],
    "lower-gi-tract/therapeutic-interventions": ["dyed-lifted-polyps", "dyed-resection-margins"],
}


def table(path, rows, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)


@pytest.fixture
def lay_out(tmp_path, draw):
    """`lay_out(name)` makes the source's folder; every frame shows something else."""
    made = []

    def frame(name):
        made.append(name)
        return draw(tmp_path / name, len(made), SIZE_WH)

    def kvasir_v2():
        for label in load_source("kvasir_v2")[0].labels:
            frame(f"kvasir-dataset-v2/{label}/{label}-0a1b.jpg")

    def hyperkvasir():
        for label in ("polyp", "normal-z-line", "bbps-0-1", "unlabelled"):
            frame(f"images/{label}/{label}-0a1b.jpg")
        entry = {"height": SIZE_WH[1], "width": SIZE_WH[0], "bbox": [BOX]}
        (tmp_path / "bounding-boxes.json").write_text(json.dumps({"polyp-0a1b": entry}), encoding="utf-8")

    def hyperkvasir_folds():
        rows = [["file-name", "class-name", "split-index"]]
        for folder, labels in FOLDS.items():
            for label in labels:
                for number in range(5):
                    frame(f"labeled-images/{folder}/{label}/{label}-{number}.jpg")
                    rows.append([f"{label}-{number}.jpg", label, number])
        table(tmp_path / "official_splits/5_fold_split.csv", rows, ";")

    def gastrovision():
        labels = list(load_source("gastrovision")[0].labels)
        for split in ("train", "validate", "test"):
            table(tmp_path / f"Split/{split}.csv", [["Filename", "Class"], *([f"{split}.jpg", one] for one in labels)])
            for label in labels:
                frame(f"images/{label}/{split}.jpg")

    def gastrohun():
        rows = [["num patient", "filename", "set_type", "Triple agreement", "Complete agreement"]]
        for patient, (split, label) in enumerate(
            [("Train", "A1"), ("Validation", "G4"), ("Test", "L6"), ("Train", "OTHERCLASS"), ("Train", "")]
        ):
            frame(f"images/{patient}/{patient}_0001.jpg")
            rows.append([patient, f"{patient}_0001.jpg", split, label or "A1", label])
        table(tmp_path / "official_splits/image_classification.csv", rows)

    def edd2020():
        for number, rows in enumerate([["10 20 60 60 BE", "5 5 30 30 HGD"], ["10 20 60 60 polyp"]], start=1):
            frame(f"images/EDD2020_AJ{number:04d}.jpg")
            (tmp_path / "bbox").mkdir(exist_ok=True)
            (tmp_path / f"bbox/EDD2020_AJ{number:04d}.txt").write_text("\n".join(rows), encoding="utf-8")

    def kvasir_seg():
        entry = {"height": SIZE_WH[1], "width": SIZE_WH[0], "bbox": [BOX, {**BOX, "xmin": 70, "xmax": 90}]}
        frame("Kvasir-SEG/images/cju0a1b.jpg")
        draw(tmp_path / "Kvasir-SEG/masks/cju0a1b.jpg", 99, SIZE_WH)
        (tmp_path / "Kvasir-SEG/kavsir_bboxes.json").write_text(json.dumps({"cju0a1b": entry}), encoding="utf-8")

    layouts = [kvasir_v2, hyperkvasir, hyperkvasir_folds, gastrovision, gastrohun, edd2020, kvasir_seg]

    def run(name):
        {layout.__name__: layout for layout in layouts}[name]()
        return tmp_path

    run.names = sorted(layout.__name__ for layout in layouts)
    return run


@pytest.fixture
def build(lay_out, tmp_path):
    """`build(name)` lays out and builds a source: its samples by file name, and what became of its labels."""

    def run(name):
        settings = {"sources": [{"description": name, "root": str(lay_out(name))}], "figures": False}
        folder = build_dataset(parse_config(settings, BuildConfig, where="test"), tmp_path / "built")
        uses = json.loads((folder / "harmonised.json").read_text(encoding="utf-8"))["labels"]
        samples = list(read_records(folder / "records.jsonl", Sample))
        return {sample.id.removeprefix(f"{name}/"): sample for sample in samples}, {use["label"]: use for use in uses}

    return run


def terms(sample):
    return [finding.term for finding in sample.findings]


def test_every_packaged_source_has_a_layout_here(lay_out):
    assert lay_out.names == sorted(set(packaged_sources()) - {"drawn"})  # `drawn` is drawn


def test_kvasir_v2_keeps_its_upper_classes_and_excludes_the_lower_ones_by_name(build):
    samples, uses = build("kvasir_v2")
    assert {key.split("/")[0]: terms(sample) for key, sample in samples.items()} == {
        "esophagitis": ["esophagitis"],
        "normal-pylorus": ["pylorus"],
        "normal-z-line": ["z_line"],
    }
    assert len(uses) == 8
    excluded = {label for label, use in uses.items() if (use["reason"] or "").startswith("lower GI tract")}
    assert excluded == {
        "normal-cecum",
        "ulcerative-colitis",
        "polyps",
        "dyed-lifted-polyps",
        "dyed-resection-margins",
    }


def test_hyperkvasir_boxes_its_polyps_and_excludes_the_lower_tract(build):
    samples, uses = build("hyperkvasir")
    assert {key: terms(sample) for key, sample in samples.items()} == {
        "normal-z-line/normal-z-line-0a1b": ["z_line"],
        "polyp/polyp-0a1b": ["polyp_unspecified"],
    }
    (finding,) = samples["polyp/polyp-0a1b"].findings
    assert [box.xyxy for box in finding.boxes] == [(0.1, 0.25, 0.6, 0.75)]
    assert uses["bbps-0-1"]["term"] is None


def test_hyperkvasir_folds_are_the_official_split(build):
    samples, uses = build("hyperkvasir_folds")
    split_of_fold = {"0": "train", "1": "train", "2": "train", "3": "val", "4": "test"}
    assert len(samples) == 7 * 5
    assert all(sample.split.value == split_of_fold[key[-1]] for key, sample in samples.items())
    assert {label for label, use in uses.items() if use["reason"]} == {
        label for folder, labels in FOLDS.items() if folder.startswith("lower") for label in labels
    }


def test_gastrovision_has_its_official_split_although_file_names_repeat(build):
    samples, uses = build("gastrovision")
    word = {"train": "train", "validate": "val", "test": "test"}
    assert len(samples) == 14 * 3
    assert all(sample.split.value == word[key.split("/")[-1]] for key, sample in samples.items())
    assert sum(use["term"] is None for use in uses.values()) == 13


def test_gastrohun_has_its_official_split_by_patient(build):
    samples, _ = build("gastrohun")
    assert {key: (sample.split.value, terms(sample)) for key, sample in samples.items()} == {
        "0/0_0001": ("train", ["antrum"]),
        "1/1_0001": ("val", ["fundus_cardia_retroflexed"]),
        "2/2_0001": ("test", ["angle"]),
        "3/3_0001": ("train", ["unqualified_frame"]),
    }


def test_edd2020_frames_have_several_findings_and_organs_that_are_not_named(build):
    samples, _ = build("edd2020")
    assert {key: sorted(terms(sample)) for key, sample in samples.items()} == {
        "EDD2020_AJ0001": ["barretts_esophagus", "high_grade_dysplasia"],
        "EDD2020_AJ0002": ["polyp_unspecified"],
    }


def test_kvasir_seg_has_several_boxes_in_one_frame(build):
    samples, _ = build("kvasir_seg")
    (sample,) = samples.values()
    (finding,) = sample.findings
    assert sorted(box.xyxy for box in finding.boxes) == [(0.1, 0.25, 0.6, 0.75), (0.7, 0.25, 0.9, 0.75)]


def test_a_class_folder_that_no_rule_knows_stops_the_build_with_its_name(build, tmp_path, draw):
    draw(tmp_path / "kvasir-dataset-v2/polyps-new/x.jpg", 77, SIZE_WH)
    with pytest.raises(LabelError, match=r"kvasir_v2: 'polyps-new', 1 times, first in .*polyps-new"):
        build("kvasir_v2")


@pytest.mark.parametrize("name", sorted({*packaged_sources()} - {"drawn"}))
def test_a_source_says_where_it_is_and_how_its_frames_belong_together(name):
    source = load_source(name)[0]
    assert source.url.startswith("https://")
    assert source.licence
    assert source.citation
    has_key = source.group is not None or any(one.get("group") for one in source.annotations)
    assert has_key or "no patient" in source.note.lower(), "give a key of patient or video, or say that there is none"
