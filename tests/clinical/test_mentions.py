"""Terms in free text, each with what is said of it; every expectation is read off the sentence by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.mentions import find_mentions, plain_word, singular, tokenise
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Status

TAXONOMY = Taxonomy.load()
MARKS = {Status.PRESENT: "+", Status.ABSENT: "-", Status.UNCERTAIN: "?"}


def said(text: str) -> list[str]:
    """Terms in order, with + (present), - (absent) or ? (uncertain) in front."""
    return [MARKS[mention.status] + mention.term for mention in find_mentions(text, TAXONOMY)]


def check(text: str, expected: str) -> None:
    assert said(text) == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Gastric ulcer in the antrum.", "+gastric_ulcer +antrum"),
        ("An ulcer of the stomach.", "+gastric_ulcer"),
        ("Ulcers of the stomach and duodenal ulcers.", "+gastric_ulcer +duodenal_ulcer"),
        ("Early gastric cancer.", "+early_gastric_cancer"),  # and not "gastric cancer"
        ("Oesophagitis of the lower oesophagus.", "+esophagitis +lower_esophagus"),
        ("Oesophagitis LA grade B-D.", "+esophagitis_la_b_d"),
        ("Barrett’s oesophagus, short-segment Barrett's.", "+barretts_esophagus +short_segment_barretts"),
        ("Haematin on the mucosa.", "+hematin"),
        ("Z-line and GEJ in view.", "+z_line +z_line"),
        ("Papillae and polyps.", "+duodenal_papilla +polyp_unspecified"),
        ("Multiple white, flat, elevated lesions.", "+white_flat_elevated_lesions"),
        ("FUNDIC GLAND POLYPS", "+fundic_gland_polyp"),
        ("Angioectasias are seen.", "+angiectasia_unspecified"),
    ],
)
def test_the_longest_wording_wins_in_both_spellings_and_numbers(text, expected):
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Gastric mucosa with an antral polyp.", "+stomach +antrum +polyp_unspecified"),
        ("Normal duodenal mucosa.", "+normal_duodenum"),
        ("Duodenal folds.", "+duodenum"),
        ("Fundic gland polyp.", "+fundic_gland_polyp"),  # the adjective is part of the name
    ],
)
def test_an_adjective_names_the_site(text, expected):
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("This should be a polyp.", "+polyp_unspecified"),
        ("BE is seen.", "+barretts_esophagus"),
        ("Seen at an angle, the gastric angle.", "+angle"),
        ("Blood vessels, but no blood.", "-blood_unspecified"),
        ("A foreign body in the gastric body.", "+body"),
        ("The other side.", ""),
        ("Suspicious.", ""),
        ("A suspicious area.", "+suspicious_area"),
        ("The wide angle view of a polyp.", "+polyp_unspecified"),
        ("The polypoid shape is ulcerated.", ""),
    ],
)
def test_words_of_other_meanings_are_no_terms(text, expected):
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No gastric ulcer.", "-gastric_ulcer"),
        ("There is no evidence of gastric ulcer.", "-gastric_ulcer"),
        ("No signs of Barrett's esophagus.", "-barretts_esophagus"),
        ("Antrum without ulcer.", "+antrum -ulcer_unspecified"),
        ("Free of polyps, ulcers and cancer.", "-polyp_unspecified -ulcer_unspecified -cancer_unspecified"),
        ("Absence of esophageal varices.", "-esophageal_varices"),
        ("An ulcer rather than a polyp.", "+ulcer_unspecified -polyp_unspecified"),
        ("A polyp instead of an ulcer.", "+polyp_unspecified -ulcer_unspecified"),
        ("The view rules out Barrett's oesophagus.", "-barretts_esophagus"),
        ("Neither ulcers nor polyps are seen.", "-ulcer_unspecified -polyp_unspecified"),
        ("Negative for cancer.", "-cancer_unspecified"),
        ("The esophagus lacks varices; gastritis.", "+esophagus +gastritis"),  # "varices" alone is no term
        ("The mucosa does not show an ulcer.", "-ulcer_unspecified"),
        ("It is not an ulcer.", "-ulcer_unspecified"),
        ("Devoid of polyps.", "-polyp_unspecified"),
        ("Nothing to suggest Barrett's esophagus.", "-barretts_esophagus"),
        ("Gastric ulcer: none. Polyp: 2.", "-gastric_ulcer +polyp_unspecified"),
        ("No ulcer, erosive gastritis, or polyp.", "-ulcer_unspecified -gastric_erosion -polyp_unspecified"),
        ("No ulcer and no polyp.", "-ulcer_unspecified -polyp_unspecified"),
        ("No ulcers or polyps.", "-ulcer_unspecified -polyp_unspecified"),
        ("Without any visible gastric ulcer.", "-gastric_ulcer"),
    ],
)  # fmt: skip
def test_a_denial_before_terms_makes_them_absent(text, expected):
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No ulcer but a polyp.", "-ulcer_unspecified +polyp_unspecified"),
        ("No ulcer; a polyp.", "-ulcer_unspecified +polyp_unspecified"),
        ("No ulcer. Polyp.", "-ulcer_unspecified +polyp_unspecified"),
        ("No ulcer, however, a polyp is seen.", "-ulcer_unspecified +polyp_unspecified"),
        ("No ulcer, and the antrum shows a polyp.", "-ulcer_unspecified +antrum +polyp_unspecified"),
        ("There is no ulcer, the antrum is in view.", "-ulcer_unspecified +antrum"),
        ("No polyps in the antrum or duodenum.", "-polyp_unspecified +antrum +duodenum"),
        ("No abnormality of the antrum.", "+antrum"),
        ("Polyp (no ulcer) in the antrum.", "+polyp_unspecified -ulcer_unspecified +antrum"),
        ("No ulcer while a polyp is seen.", "-ulcer_unspecified +polyp_unspecified"),
        ("No cancer except an ulcer.", "-cancer_unspecified +ulcer_unspecified"),
        ("Findings: no ulcer. Site: antrum.", "-ulcer_unspecified +antrum"),
        ("Not in the antrum.", "-antrum"),
    ],
)
def test_a_denial_ends_where_something_new_begins(text, expected):
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A gastric ulcer is not seen.", "-gastric_ulcer"),
        ("Ulcers are not visible in the antrum.", "-ulcer_unspecified +antrum"),
        ("Gastric ulcer and polyp are absent.", "-gastric_ulcer -polyp_unspecified"),
        ("Cancer is ruled out.", "-cancer_unspecified"),
        ("Cancer was excluded.", "-cancer_unspecified"),
        ("A polyp is seen, and an ulcer is not present.", "+polyp_unspecified -ulcer_unspecified"),
        ("The polyp is absent and an ulcer is seen.", "-polyp_unspecified +ulcer_unspecified"),
        ("Polyps in the antrum are not seen.", "-polyp_unspecified +antrum"),
        ("An ulcer, which is not seen here.", "-ulcer_unspecified"),
    ],
)
def test_a_denial_behind_a_term_makes_it_absent(text, expected):
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No change in ulcer.", "+ulcer_unspecified"),
        ("No increase in polyps.", "+polyp_unspecified"),
        ("Not only an ulcer but also a polyp.", "+ulcer_unspecified +polyp_unspecified"),
        ("Without doubt an ulcer.", "+ulcer_unspecified"),
        ("Gastric ulcer - no cancer.", "+gastric_ulcer -cancer_unspecified"),
        ("Ulcer", "+ulcer_unspecified"),
        ("Not just gastritis.", "+gastritis"),
        ("The ulcer, which is not malignant, lies in the antrum.", "+ulcer_unspecified +antrum"),
    ],
)
def test_what_only_looks_like_a_denial_denies_nothing(text, expected):
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Possible gastric cancer.", "?gastric_cancer"),
        ("Suspicious for early gastric cancer.", "?early_gastric_cancer"),
        ("Suspected ulcer or polyp.", "?ulcer_unspecified ?polyp_unspecified"),
        ("We cannot exclude cancer.", "?cancer_unspecified"),
        ("Cancer cannot be excluded.", "?cancer_unspecified"),
        ("Cancer cannot be ruled out.", "?cancer_unspecified"),
        ("This may represent an ulcer.", "?ulcer_unspecified"),
        ("It could be a polyp.", "?polyp_unspecified"),
        ("Ulcer?", "?ulcer_unspecified"),
        ("?ulcer in the antrum", "?ulcer_unspecified +antrum"),
        ("Ulcer (?) in the antrum", "?ulcer_unspecified +antrum"),
        ("Ulcer is likely.", "?ulcer_unspecified"),
        ("Ulcer is unlikely.", "?ulcer_unspecified"),
        ("Ulcer versus cancer.", "?ulcer_unspecified ?cancer_unspecified"),
        ("Findings suggestive of Barrett's esophagus in the lower esophagus.", "?barretts_esophagus +lower_esophagus"),
    ],
)
def test_a_doubt_makes_terms_uncertain(text, expected):
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Possible gastric cancer and gastric polyp.", "?gastric_cancer +gastric_polyp"),
        ("Possible cancer, polyp.", "?cancer_unspecified +polyp_unspecified"),
        ("Possible cancer in the antrum.", "?cancer_unspecified +antrum"),
        ("A polyp that may bleed.", "+polyp_unspecified"),
    ],
)
def test_a_doubt_reaches_its_own_term_only(text, expected):
    check(text, expected)


def test_a_mention_says_where_it_stands():
    text = "View of the antrum; no oesophageal varices."
    assert [text[m.start : m.end] for m in find_mentions(text, TAXONOMY)] == ["antrum", "oesophageal varices"]


def test_further_wordings_are_found_with_their_status_and_the_longer_one_wins():
    found = find_mentions("No hiatal hernia, but an ulcer.", TAXONOMY, {"hernia": "x", "hiatal hernia": "y"})
    assert [(m.term, m.status) for m in found] == [("y", Status.ABSENT), ("ulcer_unspecified", Status.PRESENT)]


@pytest.mark.parametrize("term", [term for term in TAXONOMY.terms if term.level == 3], ids=lambda term: term.id)
def test_every_name_of_level_three_is_found_in_a_sentence(term):
    assert f"+{term.id}" in said(f"The image shows {term.name}.")


@pytest.mark.parametrize(
    ("many", "one"),
    [("polyps", "polyp"), ("bodies", "body"), ("gastritis", "gastritis"), ("pylorus", "pylorus"), ("masses", "mass")],
)
def test_a_plural_loses_its_ending(many, one):
    assert singular(many) == one


def test_words_are_compared_in_american_spelling_without_apostrophes():
    assert [plain_word(word) for word in ("Oesophagus", "Barrett’s", "Tumour")] == ["esophagus", "barretts", "tumor"]


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader_and_tokens_stand_where_they_say(text):
    for token in tokenise(text):
        assert text[token.start : token.end] == token.raw
    for mention in find_mentions(text, TAXONOMY):
        assert 0 <= mention.start < mention.end <= len(text)
