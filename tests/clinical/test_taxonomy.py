"""The vocabulary holds every entry of the paper and the public label sets, and refuses contradictions."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.taxonomy import Taxonomy, Term, normalise, read_taxonomy
from gastrovl.core.errors import ConfigError, LabelError

# Typed by hand from Table 3 of He et al. 2025: level I -> level II -> wordings of level III.
PAPER_TABLE_3 = {
    "Negative": {"Normal": ["Normal esophagus", "Normal stomach", "Normal duodenum"]},
    "Anatomical Structure": {
        "Esophagus": [],
        "Stomach": [],
        "Duodenum": [],
        "Others": ["Other sites"],
    },
    "Pathological Findings": {
        "Esophageal Diseases": ["Esophageal cancer"],
        "Gastric Diseases": ["Gastritis", "Gastric ulcer", "Gastric cancer"],
        "Duodenal Diseases": ["Duodenitis", "Duodenal ulcer"],
    },
}

# Typed by hand from its section 4.1.2: level II -> the entries it names.
PAPER_SECTION_4_1_2 = {
    "normal": ["normal gastric body", "normal duodenum"],
    "esophagus": ["upper esophagus", "mid esophagus", "lower esophagus", "cardia"],
    "stomach": ["body", "antrum", "angle", "fundus", "pylorus"],
    "duodenum": ["bulb", "descending part"],
    "esophageal diseases": ["esophagitis", "esophageal polyp", "esophageal cancer"],
    "gastric diseases": [
        "gastritis",
        "gastric ulcer",
        "gastric precancerous lesion",
        "gastric polyp",
        "gastric cancer",
    ],
    "duodenal diseases": ["duodenal ulcer", "duodenal polyp"],
}

# Level-3 rows of the crosswalk to the public sets: id -> labels and synonyms it must be found by.
CROSSWALK = {
    "normal_esophagus": ["Normal esophagus", "normal squamous mucosa"],
    "normal_stomach": ["Normal stomach", "normal gastric mucosa"],
    "normal_duodenum": ["normal duodenal mucosa"],
    "upper_esophagus": ["upper esophagus", "cervical esophagus"],
    "middle_esophagus": ["middle esophagus", "thoracic esophagus"],
    "lower_esophagus": ["lower esophagus", "abdominal esophagus"],
    "cardia": ["cardia"],
    "z_line": ["normal-z-line", "Gastroesophageal_junction_normal z-line", "GEJ", "EGJ", "squamocolumnar junction",
               "ora serrata", "gastroesophageal junction"],
    "pylorus": ["normal-pylorus", "Pylorus", "pyloric ring", "pyloric canal"],
    "fundus_cardia_retroflexed": ["retroflex-stomach", "J-turn", "inversion", "fundus and cardia, retroflexed"],
    "antrum": ["antrum"],
    "lower_body": ["lower body"],
    "body": ["corpus"],
    "middle_upper_body_antegrade": ["middle-upper body, antegrade"],
    "middle_upper_body_retroflexed": ["middle-upper body, retroflexed"],
    "angle": ["incisura angularis", "angulus"],
    "duodenal_bulb": ["Duodenal bulb", "D1"],
    "descending_duodenum": ["descending part", "D2"],
    "duodenal_papilla": ["papilla", "ampulla of Vater"],
    "unqualified_frame": ["OTHERCLASS", "blurred", "no view"],
    "esophagitis": ["esophagitis", "Esophagitis", "oesophagitis", "reflux esophagitis"],
    "esophagitis_la_a": ["oesophagitis-a"],
    "esophagitis_la_b_d": ["oesophagitis-b-d"],
    "barretts_esophagus": ["Barrett's esophagus", "BE", "columnar-lined esophagus"],
    "short_segment_barretts": ["short-segment-barretts", "SSBE"],
    "high_grade_dysplasia": ["HGD", "HGIN"],
    "suspicious_area": ["suspicious"],
    "esophageal_cancer": ["esophageal cancer"],
    "esophageal_adenocarcinoma": ["esophageal adenocarcinoma"],
    "esophageal_squamous_cell_carcinoma": ["ESCC"],
    "esophageal_varices": ["Esophageal varices"],
    "gastric_polyp": ["Gastric polyps"],
    "fundic_gland_polyp": ["fundic gland polyp"],
    "gastric_hyperplastic_polyp": ["gastric hyperplastic polyp"],
    "gastric_adenoma": ["gastric adenoma"],
    "gastritis": ["gastritis"],
    "atrophic_gastritis": ["atrophy"],
    "intestinal_metaplasia": ["intestinal metaplasia"],
    "gastric_ulcer": ["gastric ulcer"],
    "gastric_cancer": ["gastric cancer"],
    "early_gastric_cancer": ["EGC"],
    "advanced_gastric_cancer": ["AGC"],
    "duodenitis": ["duodenitis"],
    "duodenal_ulcer": ["duodenal ulcer"],
    "duodenal_polyp": ["duodenal polyp"],
    "polyp_unspecified": ["polyp"],
    "cancer_unspecified": ["cancer"],
    "ulcer_unspecified": ["Ulcer"],
    "erythema_unspecified": ["Erythema"],
    "angiectasia_unspecified": ["Angiectasia"],
    "blood_unspecified": ["Blood in lumen"],
    "accessory_tool": ["Accessory tools", "forceps", "snare"],
    "lower_gi": ["lower gastrointestinal tract"],
}  # fmt: skip

# The nineteen findings of the Kyoto classification of gastritis, which the paper's Table 3 refers to.
KYOTO = [
    "atrophy", "intestinal metaplasia", "diffuse redness", "spotty redness", "mucosal swelling", "enlarged folds",
    "nodularity", "sticky mucus", "xanthoma", "foveolar-hyperplastic polyp", "map-like redness", "patchy redness",
    "multiple white and flat elevated lesions", "fundic gland polyp", "hematin", "red streak", "raised erosion",
    "depressed erosion", "regular arrangement of collecting venules",
]  # fmt: skip


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return Taxonomy.load()


def test_every_entry_of_the_papers_table_3_stands_at_its_level(taxonomy):
    for level_1, below in PAPER_TABLE_3.items():
        top = taxonomy.find(level_1)
        assert top is not None, level_1
        assert top.level == 1
        for level_2, wordings in below.items():
            middle = taxonomy.find(level_2)
            assert middle is not None, level_2
            assert (middle.level, middle.parent) == (2, top.id)
            for wording in wordings:
                leaf = taxonomy.find(wording)
                assert leaf is not None, wording
                assert (leaf.level, leaf.parent) == (3, middle.id)


@pytest.mark.parametrize("organ", ["esophagus", "stomach", "duodenum"])
def test_each_organ_has_the_subregions_that_table_3_promises(taxonomy, organ):
    assert len([term for term in taxonomy.terms if term.parent == organ]) >= 3


def test_every_entry_of_the_papers_section_4_1_2_is_there(taxonomy):
    for level_2, wordings in PAPER_SECTION_4_1_2.items():
        for wording in wordings:
            leaf = taxonomy.find(wording)
            assert leaf is not None, wording
            assert taxonomy.at_level(leaf.id, 2).name == level_2, wording


@pytest.mark.parametrize(("term_id", "labels"), CROSSWALK.items())
def test_a_public_label_finds_its_term(taxonomy, term_id, labels):
    assert taxonomy[term_id].level == 3
    for label in labels:
        found = taxonomy.find(label)
        assert found is not None, label
        assert found.id == term_id


@pytest.mark.parametrize("wording", KYOTO)
def test_every_kyoto_finding_is_a_term_of_the_stomach(taxonomy, wording):
    found = taxonomy.find(wording)
    assert found is not None
    assert found.site == "stomach"


@pytest.mark.parametrize("label", ["polyp", "cancer", "ulcer", "erythema", "angiectasia", "blood in lumen"])
def test_a_label_that_names_no_organ_gets_none(taxonomy, label):
    assert taxonomy.find(label).site is None
    assert taxonomy.at_level(taxonomy.find(label).id, 2).id == "site_unspecified"


@pytest.mark.parametrize("label", ["adenocarcinoma", "hyperplastic polyp", "adenoma"])
def test_a_wording_that_fits_two_organs_finds_nothing(taxonomy, label):
    assert taxonomy.find(label) is None


def test_american_wordings_are_found_in_british_spelling_too(taxonomy):
    spellings = [("esoph", "oesoph"), ("hematin", "haematin")]
    wordings = [wording for term in taxonomy.terms for wording in (term.name, *term.synonyms)]
    for american, british in spellings:
        for wording in wordings:
            if american in wording and british not in wording:
                twin = taxonomy.find(wording.replace(american, british))
                assert twin is taxonomy.find(wording), wording


def test_every_term_names_a_source(taxonomy):
    assert [term.id for term in taxonomy.terms if not term.source] == []


def test_sites_agree_with_the_branch_a_term_hangs_on(taxonomy):
    branches = {"esophageal_diseases": "esophagus", "gastric_diseases": "stomach", "duodenal_diseases": "duodenum"}
    for term in taxonomy.terms:
        if term.level == 3 and term.parent in branches:
            assert term.site == branches[term.parent], term.id
        if term.parent in branches.values():
            assert term.site == term.parent, term.id


def test_find_overlooks_case_hyphens_apostrophes_spaces_and_a_full_stop(taxonomy):
    for text in ["barrett's esophagus", "Barretts  Esophagus.", " BARRETT’S-ESOPHAGUS ", "barrett's_esophagus"]:
        assert taxonomy.find(text).id == "barretts_esophagus"


def test_find_returns_none_for_an_unknown_wording(taxonomy):
    assert taxonomy.find("gastric ulcer with a clot") is None
    assert taxonomy.find("") is None


@given(st.sampled_from([wording for term in Taxonomy.load().terms for wording in (term.name, *term.synonyms)]))
def test_every_wording_finds_its_term_in_any_dress(wording):
    taxonomy = Taxonomy.load()
    term = taxonomy.find(wording)
    assert term is not None
    assert taxonomy.find(f"  {wording.upper().replace(' ', '_')}. ") is term


@given(st.text())
def test_any_text_can_be_looked_up(text):
    assert "  " not in normalise(text)
    assert Taxonomy.load().find(text) is Taxonomy.load().find(f" {text}")


def test_ancestors_come_nearest_first(taxonomy):
    assert taxonomy.ancestors("gastric_ulcer") == ("gastric_diseases", "pathological_findings")
    assert taxonomy.ancestors("negative") == ()


def test_at_level_gives_the_term_itself_or_the_one_above(taxonomy):
    assert taxonomy.at_level("antrum", 3).id == "antrum"
    assert taxonomy.at_level("antrum", 2).id == "stomach"
    assert taxonomy.at_level("antrum", 1).id == "anatomical_structure"


def test_at_level_below_the_term_is_refused(taxonomy):
    with pytest.raises(LabelError, match="'stomach' stands at level 2, so it has no ancestor at level 3"):
        taxonomy.at_level("stomach", 3)


@pytest.mark.parametrize(
    ("a", "b", "edges"),
    [
        ("antrum", "antrum", 0),
        ("antrum", "stomach", 1),
        ("antrum", "pylorus", 2),  # up to the stomach, down again
        ("antrum", "cardia", 4),  # antrum, stomach, anatomical structure, esophagus, cardia
        ("antrum", "gastric_ulcer", 6),  # three up to the common root, three down
        ("negative", "other", 2),
    ],
)
def test_distance_counts_edges(taxonomy, a, b, edges):
    assert taxonomy.distance(a, b) == edges
    assert taxonomy.distance(b, a) == edges


def test_order_is_the_order_of_the_files(taxonomy):
    assert taxonomy.order("negative") == 0
    assert taxonomy.order("pylorus") < taxonomy.order("duodenal_bulb") < taxonomy.order("esophagitis")


def test_an_unknown_id_names_the_nearest_one(taxonomy):
    with pytest.raises(LabelError, match=r"'gastric_ulcr' is no term of taxonomy .*; did you mean 'gastric_ulcer'"):
        taxonomy["gastric_ulcr"]
    with pytest.raises(LabelError, match="did you mean 'antrum'"):
        taxonomy.order("antrm")
    assert "gastric_ulcr" not in taxonomy
    assert "gastric_ulcer" in taxonomy


def test_loading_twice_gives_the_same_object():
    assert Taxonomy.load() is Taxonomy.load()


def _term(term_id: str, level: int, parent: str | None, name: str | None = None, **more: object) -> Term:
    wording = name if name is not None else term_id.replace("_", " ")
    return Term(id=term_id, name=wording, level=level, parent=parent, synonyms=more.get("synonyms", ()),
                site=more.get("site"), source="here")  # fmt: skip


ROOT = _term("negative", 1, None)
NORMAL = _term("normal", 2, "negative")


@pytest.mark.parametrize(
    ("terms", "complaint"),
    [
        ([ROOT, ROOT], "'negative' is listed twice"),
        ([_term("Bad-Id", 1, None)], "'Bad-Id' is not snake_case"),
        ([NORMAL], "parent 'negative' is not listed before it"),
        ([ROOT, _term("leaf", 3, "negative")], "'leaf' stands at level 3 and its parent 'negative' at level 1"),
        ([ROOT, _term("top", 1, "negative")], "'top' stands at level 1 but has parent 'negative'"),
        ([ROOT, NORMAL, _term("leaf", 3, "normal", "a; b")], "'a; b' cannot be answer text"),
        ([ROOT, NORMAL, _term("leaf", 3, "normal", "Upper")], "'Upper' cannot be answer text"),
        ([ROOT, NORMAL, _term("leaf", 3, "normal", "")], "'' cannot be answer text"),
        ([ROOT, _term("other", 1, None, "Negative".lower())], "is a wording of both 'negative' and 'other'"),
        ([ROOT, _term("other", 1, None, synonyms=("NEGATIVE.",))], "is a wording of both 'negative' and 'other'"),
        ([ROOT, _term("other", 1, None, synonyms=("Other",))], "is a wording of both 'other' and 'other'"),
        ([ROOT, _term("other", 1, None, synonyms=(" .",))], "'other' has an empty wording"),
        ([_term("other", 1, None, site="moon")], "site 'moon' is no level-2 term"),
        ([ROOT, _term("other", 1, None, site="negative")], "site 'negative' is no level-2 term"),
    ],
)
def test_terms_that_contradict_each_other_are_refused(terms, complaint):
    with pytest.raises(LabelError, match=complaint):
        Taxonomy("1.0.0", terms)


def _write(path: Path, text: str) -> Path:
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_files_of_different_versions_are_refused(tmp_path):
    terms = "sources: {a: here}\nterms: []\n"
    first = _write(tmp_path / "first.yaml", "version: 1.0.0\n" + terms)
    second = _write(tmp_path / "second.yaml", "version: 1.1.0\n" + terms)
    with pytest.raises(LabelError, match=r"different versions .*first\.yaml.*1\.0\.0.*1\.1\.0"):
        read_taxonomy([first, second])


def test_an_unexplained_source_is_refused(tmp_path):
    path = _write(
        tmp_path / "terms.yaml",
        """\
        version: 1.0.0
        sources: {paper: a paper}
        terms:
          - {id: negative, name: negative, level: 1, source: [book]}
        """,
    )
    with pytest.raises(LabelError, match=r"terms\.yaml: term 'negative' has source keys \['book'\].*\(paper\)"):
        read_taxonomy([path])


def test_a_misspelt_key_names_its_line(tmp_path):
    path = _write(
        tmp_path / "terms.yaml",
        """\
        version: 1.0.0
        sources: {paper: a paper}
        terms:
          - id: negative
            name: negative
            level: 1
            source: [paper]
            synonym: [no lesion]
        """,
    )
    with pytest.raises(ConfigError, match=r"terms\.yaml:8: unknown key 'terms\.0\.synonym'; did you mean 'synonyms'"):
        read_taxonomy([path])
