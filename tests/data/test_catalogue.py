"""The packaged sources as a list, the page that shows it, and the template of a private one."""

from __future__ import annotations

import pytest

from gastrovl.core.errors import OutputError
from gastrovl.data.catalogue import list_sources, markdown_rows, write_template
from gastrovl.data.source import load_source, packaged_sources


def test_every_source_is_listed_and_the_template_is_not():
    assert [row["name"] for row in list_sources()] == packaged_sources()
    assert "template" not in packaged_sources()
    assert {"edd2020", "gastrohun", "gastrovision", "hyperkvasir", "kvasir_seg", "kvasir_v2"} <= set(packaged_sources())


def test_the_page_of_sources_agrees_with_the_descriptions(repository):
    page = (repository / "docs/data_sources.md").read_text(encoding="utf-8")
    assert markdown_rows() in page, "paste what `markdown_rows()` of gastrovl.data.catalogue gives into the page"


def test_a_copy_of_the_template_is_a_working_description(tmp_path):
    path = write_template(tmp_path / "own.yaml")
    description, _ = load_source(str(path))
    assert description.access == "private"
    with pytest.raises(OutputError, match="is there already"):
        write_template(path)


def test_what_cannot_be_fetched_says_where_it_is():
    for name in packaged_sources():
        description, _ = load_source(name)
        assert description.downloads or description.by_hand, name


def test_lower_gi_classes_of_the_mixed_sets_are_excluded_by_name():
    for name, labels in {
        "gastrovision": (
            "Cecum",
            "Colon polyps",
            "Colorectal cancer",
            "Retroflex rectum",
            "Small bowel_terminal ileum",
        ),
        "hyperkvasir_folds": ("cecum", "ileum", "polyps", "retroflex-rectum", "bbps-0-1"),
        "kvasir_v2": ("normal-cecum", "polyps", "ulcerative-colitis"),
    }.items():
        rules = load_source(name)[0].labels
        assert all((rules[label].exclude or "").startswith("lower GI tract") for label in labels)


def test_gastrovision_has_its_27_classes_and_keeps_organs_unnamed_where_the_class_does():
    rules = load_source("gastrovision")[0].labels
    assert len(rules) == 27
    assert [rules[label].term for label in ("Ulcer", "Erythema", "Angiectasia", "Blood in lumen")] == [
        "ulcer_unspecified",
        "erythema_unspecified",
        "angiectasia_unspecified",
        "blood_unspecified",
    ]


def test_gastrohun_has_its_22_stations():
    rules = load_source("gastrohun")[0].labels
    stations = [label for label in rules if label[-1].isdigit()]
    assert len(stations) == 22
    assert {rules[label].term for label in stations if label.endswith("6")} == {"angle"}
