"""Prompts hold the whole annotation in words, and templates are refused when a slot is missing."""

from __future__ import annotations

import hashlib

import pytest

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Box, Finding, ImageRef, Sample, Split, Status
from gastrovl.data.captioning.prompts import (
    load_template,
    packaged_templates,
    render_facts,
    request_prompt,
    retry_prompt,
)

TAXONOMY = Taxonomy.load()
SMALL = Box(x0=0.1, y0=0.1, x1=0.3, y1=0.3)  # 4 %
LARGE = Box(x0=0.6, y0=0.3, x1=1.0, y1=0.7)  # 16 %


def sample_of(*findings: Finding) -> Sample:
    image = ImageRef(path="images/a.jpg", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id="own/a", image=image, source="own", group="1", split=Split.TRAIN, findings=findings)


def test_facts_name_sites_findings_status_grade_numbers_places_and_absences():
    sample = sample_of(
        Finding(term="antrum"),
        Finding(term="esophageal_varices", grade="2"),
        Finding(term="gastric_ulcer", site="antrum", boxes=(SMALL, LARGE)),
        Finding(term="gastric_cancer", status=Status.UNCERTAIN),
        Finding(term="polyp_unspecified"),
        Finding(term="gastritis", status=Status.ABSENT),
    )
    assert render_facts(sample, TAXONOMY).splitlines() == [
        "- in view: antrum",
        "- finding: esophageal varices, grade 2",
        "- not there: gastritis",
        "- finding: gastric ulcer, site antrum, in 2 places, at the right (large in view), at the upper left "
        "(small in view)",
        "- finding: possible gastric cancer (not certain)",
        "- finding: polyp, organ not noted",
    ]


@pytest.mark.parametrize("name", packaged_templates())
def test_a_packaged_template_puts_facts_reply_and_faults_into_words(name):
    template, sample = load_template(name), sample_of(Finding(term="antrum"))
    assert "- in view: antrum" in request_prompt(template, sample, TAXONOMY)
    again = retry_prompt(template, sample, TAXONOMY, "A {polyp}.", ["invented finding: polyp"])
    assert "- in view: antrum" in again
    assert "A {polyp}." in again
    assert "- invented finding: polyp" in again


def test_there_are_at_least_two_templates():
    assert packaged_templates() == ["note", "visual"]


def test_a_long_reply_is_quoted_in_part():
    again = retry_prompt(load_template("note"), sample_of(Finding(term="antrum")), TAXONOMY, "word " * 1000, ["form"])
    assert len(again) < 2500


def test_a_template_of_ones_own_is_known_by_the_hash_of_its_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text('request: "Say: {facts}"\nretry: "{facts} {reply} {faults}"\n')
    template = load_template(str(path))
    assert (template.name, template.sha256) == ("mine", hashlib.sha256(path.read_bytes()).hexdigest())
    assert request_prompt(template, sample_of(Finding(term="antrum")), TAXONOMY) == "Say: - in view: antrum"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('request: "Say."\nretry: "{facts} {reply} {faults}"', r"request: has slots \[\]"),
        ('request: "{facts} {name}"\nretry: "{facts} {reply} {faults}"', "expected"),
        ('request: "{facts"\nretry: "{facts} {reply} {faults}"', "unpaired brace"),
        ('request: "{facts}"', "retry"),
    ],
)
def test_a_template_with_wrong_slots_is_refused(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_template(str(path))


def test_an_unknown_template_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="note, visual"):
        load_template("notes")
