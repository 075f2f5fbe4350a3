"""Descriptions of sources: the packaged ones hold, and mistakes in one's own are named."""

from __future__ import annotations

import pytest
import yaml

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Task
from gastrovl.data.harmonise import check_rules
from gastrovl.data.source import PACKAGED, LabelRule, load_source

NAMES = sorted(path.stem for path in PACKAGED.glob("*.yaml"))
OWN = {
    "name": "own",
    "title": "Own",
    "licence": "CC0",
    "citation": "none",
    "images": ["*.png"],
    "annotations": [{"format": "box_text", "folder": "bbox"}],
    "labels": {"BE": "barretts_esophagus"},
}


def write(folder, **changes):
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**OWN, **changes}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_source_maps_to_the_taxonomy(name):
    description, path = load_source(name)
    assert description.name == name
    check_rules(description, Taxonomy.load(), str(path))


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_source_says_licence_and_citation(name):
    description, _ = load_source(name)
    assert description.licence
    assert description.citation


def test_lower_gi_labels_of_hyperkvasir_are_excluded_by_name():
    labels = load_source("hyperkvasir")[0].labels
    for label in ("cecum", "ileum", "retroflex-rectum", "bbps-0-1", "bbps-2-3", "impacted-stool", "hemorrhoids"):
        assert labels[label].exclude.startswith("lower GI tract")


def test_colonoscopic_polyps_teach_boxes_and_answer_no_class_question():
    rule = load_source("hyperkvasir")[0].labels["polyp"]
    assert rule.term == "polyp_unspecified"
    assert Task.REC in rule.tasks
    assert Task.CLS not in rule.tasks


def test_edd2020_labels_that_name_no_organ_stay_unspecified():
    labels = load_source("edd2020")[0].labels
    assert (labels["polyp"].term, labels["cancer"].term) == ("polyp_unspecified", "cancer_unspecified")


def test_a_rule_is_a_term_or_a_reason():
    assert LabelRule.model_validate("antrum") == LabelRule(term="antrum")
    assert LabelRule.model_validate({"exclude": "blurred"}).term is None
    for wrong in ({}, {"term": "antrum", "exclude": "blurred"}):
        with pytest.raises(ValueError, match="exactly one of them"):
            LabelRule.model_validate(wrong)


def test_an_unknown_source_lists_the_packaged_ones():
    with pytest.raises(ConfigError, match=r"source 'edd' is not packaged; expected one of drawn, edd2020"):
        load_source("edd")


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    path = write(tmp_path, annotations=[{"format": "cvt", "file": "a.json"}])
    with pytest.raises(ConfigError, match=r"own\.yaml: annotations\.0\.format: found 'cvt', expected one of box_text"):
        load_source(path)


def test_an_unknown_key_of_a_format_names_the_nearest(tmp_path):
    path = write(tmp_path, annotations=[{"format": "box_text", "folder": "bbox", "boxorder": "xywh"}])
    with pytest.raises(
        ConfigError, match=r"own\.yaml: annotations\.0 \(box_text\): unknown key 'boxorder'.*'box_order'"
    ):
        load_source(path)


def test_an_unknown_key_of_a_description_names_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"own\.yaml:\d+: unknown key 'license'; did you mean 'licence'"):
        load_source(write(tmp_path, license="CC0"))


def test_exhaustive_labels_must_be_listed(tmp_path):
    assert load_source(write(tmp_path, exhaustive=["BE"]))[0].exhaustive_labels() == ("BE",)
    with pytest.raises(ConfigError, match="exhaustive: found HGD"):
        load_source(write(tmp_path, exhaustive=["HGD"]))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"pattern": "("}, "not a regular expression"),
        ({"pattern": "a(\\d+)", "series": 5}, r"needs a group \(\?P<number>"),
    ],
)
def test_a_group_rule_that_cannot_work_is_refused(tmp_path, group, message):
    with pytest.raises(ConfigError, match=message):
        load_source(write(tmp_path, group=group))
