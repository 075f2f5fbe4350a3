"""Several annotation files of the same images are one set: no image and no box is there twice."""

from __future__ import annotations

import json

import pytest
import yaml

from gastrovl.core.config import parse_config
from gastrovl.core.records import read_records
from gastrovl.core.types import Sample
from gastrovl.data.build import BuildConfig, build_dataset

COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 100}],
    "categories": [{"id": 1, "name": "polyp"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [20, 10, 60, 40], "segmentation": [[20, 10, 80, 10, 80, 50, 20, 50]]}
    ],
}
VOC = (
    "<annotation><filename>a.png</filename><size><width>200</width><height>100</height></size><object><name>{}</name>"
    "<bndbox><xmin>20</xmin><ymin>10</ymin><xmax>80</xmax><ymax>50</ymax></bndbox></object></annotation>"
)
CVAT = (
    '<annotations><image name="sub/a.png" width="200" height="100">'
    '<box label="polyp" xtl="20" ytl="10" xbr="80" ybr="50"/></image></annotations>'
)
LABELME = {
    "imagePath": "..\\a.png",
    "shapes": [{"label": "polyp", "points": [[80, 50], [20, 10]], "shape_type": "rectangle"}],
}
READERS = {
    "coco": {"format": "coco", "files": ["one.json", "two.json"]},
    "voc": {"format": "voc", "folder": "voc"},
    "cvat": {"format": "cvat", "files": ["exported_test.xml"]},
    "labelme": {"format": "labelme", "folder": "labelme"},
    "yolo": {"format": "yolo", "folder": "yolo", "classes": "classes.txt"},  # its fractions differ in the last digit
}


@pytest.fixture
def build(tmp_path, draw):
    """`build(*formats, label=...)` builds an image that all of them annotate; its samples."""

    def run(*formats, label="polyp"):
        draw(tmp_path / "images/a.png", size_wh=(200, 100))
        for folder in ("voc", "labelme", "yolo"):
            (tmp_path / folder).mkdir()
        for name in ("one.json", "two.json"):
            (tmp_path / name).write_text(json.dumps(COCO), encoding="utf-8")
        (tmp_path / "voc/a.xml").write_text(VOC.format(label), encoding="utf-8")
        (tmp_path / "exported_test.xml").write_text(CVAT, encoding="utf-8")
        (tmp_path / "labelme/a.json").write_text(json.dumps(LABELME), encoding="utf-8")
        (tmp_path / "yolo/a.txt").write_text("0 0.25 0.3 0.300001 0.4\n", encoding="utf-8")
        (tmp_path / "classes.txt").write_text("polyp\n", encoding="utf-8")
        content = {
            "name": "own",
            "title": "Own",
            "licence": "CC0",
            "citation": "nobody",
            "images": ["images/*.png"],
            "annotations": [READERS[name] for name in formats],
            "labels": {"polyp": "polyp_unspecified", "ulcer": "ulcer_unspecified"},
        }
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        settings = {"sources": [{"description": str(tmp_path / "own.yaml"), "root": str(tmp_path)}], "figures": False}
        return list(
            read_records(
                build_dataset(parse_config(settings, BuildConfig, where="test"), tmp_path / "out") / "records.jsonl",
                Sample,
            )
        )

    return run


@pytest.mark.parametrize("formats", [["coco"], ["coco", "voc"], list(READERS)])
def test_an_image_that_several_files_annotate_is_one_item_with_one_box(build, formats):
    (sample,) = build(*formats)
    (finding,) = sample.findings
    assert [box.xyxy for box in finding.boxes] == [(0.1, 0.1, 0.4, 0.5)]


def test_what_several_files_add_is_joined(build):
    (sample,) = build("coco", "voc", label="ulcer")
    assert sorted(finding.term for finding in sample.findings) == ["polyp_unspecified", "ulcer_unspecified"]


def test_the_name_of_an_xml_file_is_no_split(build):
    (sample,) = build("cvat")
    assert sample.split.value == "train"  # as a set of one image is divided, not "exported_test"
