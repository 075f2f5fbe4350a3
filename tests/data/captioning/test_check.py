"""A caption against its record: what is contradicted, invented, left out and cut; verdicts judged by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Box, Finding, ImageRef, Sample, Split, Status, Verdict
from gastrovl.data.captioning.check import CheckOptions, Fault, check_caption
from gastrovl.data.captions import captions_of

TAXONOMY = Taxonomy.load()
UPPER_LEFT = Box(x0=0.1, y0=0.1, x1=0.3, y1=0.3)  # 4 % of the view: small
RIGHT = Box(x0=0.7, y0=0.3, x1=0.95, y1=0.7)  # 10 %: medium
CENTRE = Box(x0=0.3, y0=0.3, x1=0.7, y1=0.7)  # 16 %: large


def sample_of(*findings: Finding) -> Sample:
    image = ImageRef(path="images/a.jpg", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id="own/a", image=image, source="own", group="1", split=Split.TRAIN, findings=findings)


ULCER = sample_of(
    Finding(term="antrum"),
    Finding(term="gastric_ulcer", boxes=(UPPER_LEFT,)),
    Finding(term="gastric_polyp", status=Status.ABSENT),
)
POLYPS = sample_of(Finding(term="polyp_unspecified", boxes=(UPPER_LEFT, RIGHT)))
NORMAL = sample_of(Finding(term="normal_esophagus"))
GRADED = sample_of(Finding(term="esophagitis_la_a"), Finding(term="esophageal_varices", grade="2"))
DOUBT = sample_of(Finding(term="gastric_cancer", status=Status.UNCERTAIN, boxes=(CENTRE,)))
EARLY = sample_of(Finding(term="early_gastric_cancer", site="antrum"))


def faults(text: str, sample: Sample, **options: object) -> list[Fault]:
    checked = check_caption(text, sample, TAXONOMY, CheckOptions.model_validate({"repairs": False, **options}))
    assert (checked.verdict is Verdict.ACCEPTED) == (not checked.found)
    return list(dict.fromkeys(one.fault for one in checked.found))


@pytest.mark.parametrize(
    ("text", "sample"),
    [
        ("The antrum with a gastric ulcer at the upper left of the image.", ULCER),
        ("A small ulcer lies in the left upper quadrant of the antrum. No polyp is seen.", ULCER),
        ("Endoscopic view of the gastric antrum showing a single ulcer in the upper left corner.", ULCER),
        ("In the upper left, an ulcer of the stomach.", ULCER),
        ("The lesion is small and lies at the upper left. It is a gastric ulcer.", ULCER),
        ("One gastric ulcer; no gastric polyps.", ULCER),
        ("Two polyps, one at the upper left and one at the right.", POLYPS),
        ("A small polyp at the upper left and a medium-sized polyp on the right side.", POLYPS),
        ("Several polyps are in view.", POLYPS),
        ("Polyp in two places.", POLYPS),
        ("Normal esophageal mucosa without lesions.", NORMAL),
        ("The oesophagus is unremarkable, with no abnormality. Normal esophagus.", NORMAL),
        ("Esophagitis LA grade A and esophageal varices grade 2.", GRADED),
        ("LA grade A esophagitis with esophageal varices in the esophagus.", GRADED),
        ("Esophagitis of Los Angeles grade B to D.", sample_of(Finding(term="esophagitis_la_b_d"))),
        ("Gastritis and gastric xanthomas.", sample_of(Finding(term="gastritis"), Finding(term="gastric_xanthoma"))),
        ("Possible gastric cancer in the centre.", DOUBT),
        ("Large area suspicious for gastric cancer.", DOUBT),
        ("Gastric cancer of the antrum.", EARLY),
        ("Early cancer of the stomach: early gastric cancer, a malignant lesion of the antrum.", EARLY),
    ],
)
def test_what_the_record_states_or_implies_is_accepted(text, sample):
    assert faults(text, sample) == []


@pytest.mark.parametrize(
    ("text", "sample", "fault"),
    [
        ("Antrum; an ulcer at the left. There is no gastric ulcer.", ULCER, Fault.DENIED),
        ("Gastric ulcer and a gastric polyp.", ULCER, Fault.AFFIRMED),
        ("A possible gastric ulcer in the antrum. Gastric ulcer.", ULCER, Fault.CERTAINTY),
        ("Gastric cancer and possible gastric cancer.", DOUBT, Fault.CERTAINTY),
        ("Gastric ulcer with erosive gastritis.", ULCER, Fault.FINDING),
        ("Gastric ulcer with active bleeding.", ULCER, Fault.FINDING),
        ("Gastric ulcer. The surrounding mucosa is normal.", ULCER, Fault.FINDING),
        ("Normal esophagus with varices.", NORMAL, Fault.FINDING),
        ("Normal esophagus with a lesion.", NORMAL, Fault.FINDING),
        ("A gastric polyp and a polyp.", POLYPS, Fault.ORGAN),
        ("Colonic polyp.", POLYPS, Fault.FINDING),
        ("Gastric ulcer in the gastric body.", ULCER, Fault.SITE),
        ("Polyp in the stomach.", POLYPS, Fault.SITE),
        ("Normal esophagus near the z-line.", NORMAL, Fault.SITE),
        ("Gastric ulcer without cancer.", ULCER, Fault.ABSENCE),
        ("Polyp, no bleeding.", POLYPS, Fault.ABSENCE),
        ("Gastric ulcer at the lower right.", ULCER, Fault.SIDE),
        ("Gastric ulcer on the right side.", ULCER, Fault.SIDE),
        ("Gastric ulcer in the centre of the image.", ULCER, Fault.SIDE),
        ("Normal esophagus, lumen in the centre.", NORMAL, Fault.SIDE),
        ("Two gastric ulcers.", ULCER, Fault.COUNT),
        ("Polyp in three places.", POLYPS, Fault.COUNT),
        ("A single polyp.", POLYPS, Fault.COUNT),
        ("Multiple gastric ulcers.", ULCER, Fault.COUNT),
        ("Twin gastric ulcers.", ULCER, Fault.COUNT),
        ("Gastric ulcers.", ULCER, Fault.COUNT),  # the record has one box
        ("A polyp; it is the only one.", POLYPS, Fault.COUNT),
        ("A large gastric ulcer.", ULCER, Fault.SHARE),
        ("Small area of possible gastric cancer.", DOUBT, Fault.SHARE),
        ("An 8 mm gastric ulcer.", ULCER, Fault.SIZE),
        ("A gastric ulcer of about 1.5 cm.", ULCER, Fault.SIZE),
        ("A gastric ulcer of 5 x 8 mm.", ULCER, Fault.SIZE),
        ("Gastric ulcer over 30 % of the view.", ULCER, Fault.SIZE),
        ("Esophagitis LA grade B, esophageal varices.", GRADED, Fault.GRADE),
        ("Esophagitis LA grade B-D and esophagitis; esophageal varices.", GRADED, Fault.FINDING),
        ("Esophagitis with severe esophageal varices.", GRADED, Fault.GRADE),
        ("Gastric ulcer, Forrest IIa.", ULCER, Fault.GRADE),
        ("Polyp, Paris 0-Is.", POLYPS, Fault.GRADE),
        ("Polyp, pedunculated.", POLYPS, Fault.GRADE),
        ("Gastric ulcer of the anterior wall.", ULCER, Fault.PLACE),
        ("Gastric ulcer at the lesser curvature.", ULCER, Fault.PLACE),
        ("Gastric ulcer at 3 o'clock.", ULCER, Fault.PLACE),
        ("The patient has a gastric ulcer.", ULCER, Fault.PERSON),
        ("Gastric ulcer, 54-year-old.", ULCER, Fault.PERSON),
        ("Gastric ulcer, seen on 2021-03-04.", ULCER, Fault.PERSON),
        ("Gastric ulcer, biopsied.", ULCER, Fault.TREATMENT),
        ("Gastric ulcer; follow-up is recommended.", ULCER, Fault.TREATMENT),
        ("Gastric ulcer due to aspirin.", ULCER, Fault.CAUSE),
        ("Gastric ulcer, histologically benign.", ULCER, Fault.HISTOLOGY),
        ("Gastric ulcer under narrow-band imaging.", ULCER, Fault.TECHNIQUE),
        ("This image shows the antrum.", ULCER, Fault.MISSING),
        ("A lesion in the antrum.", ULCER, Fault.MISSING),
        ("I'm sorry, I cannot describe a gastric ulcer.", ULCER, Fault.FORM),
        ("**Gastric ulcer** in the antrum.", ULCER, Fault.FORM),
        ("- gastric ulcer\n- antrum", ULCER, Fault.FORM),
        ("According to the annotation, a gastric ulcer.", ULCER, Fault.FORM),
        ("Sure, here is a description: gastric ulcer.", ULCER, Fault.FORM),
        ('{"caption": "gastric ulcer"}', ULCER, Fault.FORM),
        ("Das Antrum mit einem gastric ulcer und der Rand ist rot.", ULCER, Fault.FORM),
        ("胃潰瘍がある。胃前庭部の胃潰瘍である gastric ulcer", ULCER, Fault.FORM),
        ("Gastric ulcer" + " here" * 100, ULCER, Fault.FORM),
    ],
)
def test_a_fault_is_named(text, sample, fault):
    assert faults(text, sample) == [fault]


@pytest.mark.parametrize("text", ["", "  ", "...", "42"])
def test_a_reply_without_words_is_rejected(text):
    assert Fault.FORM in faults(text, ULCER)


def test_a_record_that_states_nothing_has_no_caption():
    assert faults("A pink surface.", sample_of()) == [Fault.MISSING]


def test_a_view_only_record_needs_one_of_its_views():
    views = sample_of(Finding(term="antrum"), Finding(term="pylorus"))
    assert faults("The pylorus in view.", views) == []
    assert faults("A pink surface.", views) == [Fault.MISSING]


def test_every_finding_must_be_said_and_the_site_need_not():
    two = sample_of(Finding(term="gastric_ulcer", site="antrum"), Finding(term="gastric_xanthoma"))
    assert faults("Gastric ulcer and gastric xanthoma.", two) == []
    assert faults("Gastric ulcer in the antrum.", two) == [Fault.MISSING]


def test_a_position_is_compared_with_the_finding_that_it_follows():
    two = sample_of(Finding(term="gastric_ulcer", boxes=(UPPER_LEFT,)), Finding(term="gastric_polyp", boxes=(RIGHT,)))
    assert faults("A gastric ulcer at the left and a gastric polyp at the right.", two) == []
    assert faults("A gastric ulcer at the right and a gastric polyp at the left.", two) == [Fault.SIDE]


def test_a_box_a_little_outside_a_third_may_be_said_to_lie_there():
    near, far = (Box(x0=x - 0.05, y0=0.4, x1=x + 0.05, y1=0.6) for x in (0.42, 0.45))  # the third ends at 0.333
    assert faults("Polyp at the left.", sample_of(Finding(term="polyp_unspecified", boxes=(near,)))) == []
    assert faults("Polyp at the left.", sample_of(Finding(term="polyp_unspecified", boxes=(far,)))) == [Fault.SIDE]


def test_a_name_in_the_plural_counts_nothing():
    assert faults("Esophageal varices.", sample_of(Finding(term="esophageal_varices", boxes=(UPPER_LEFT,)))) == []


def test_anatomy_is_no_side_of_the_image():
    lower = sample_of(Finding(term="lower_esophagus"), Finding(term="middle_upper_body_antegrade"))
    assert faults("Upper endoscopy: lower esophagus and middle-upper body, antegrade.", lower) == []


def test_a_kind_of_fault_can_be_let_pass():
    kept = [fault for fault in Fault if fault is not Fault.SIZE]
    assert faults("An 8 mm gastric ulcer.", ULCER, faults=kept) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Gastric ulcer in the antrum. Biopsies were taken.", "Gastric ulcer in the antrum."),
        ("The antrum is seen. A gastric ulcer, measuring 8 mm.", "The antrum is seen. A gastric ulcer."),
        ("Gastric ulcer in the antrum, and a gastric polyp is present.", "Gastric ulcer in the antrum."),
        ("No bleeding is seen. Gastric ulcer.", "Gastric ulcer."),
        ("Gastric ulcer (about 8 mm) in the antrum.", "Gastric ulcer."),
        ("Gastric ulcer; the patient is 54 years old.", "Gastric ulcer."),
        ('"Gastric ulcer in the antrum. The duodenum is normal"', "Gastric ulcer in the antrum."),
    ],
)
def test_what_is_wrong_is_cut_where_the_rest_is_true_and_whole(text, left):
    checked = check_caption(text, ULCER, TAXONOMY)
    assert (checked.verdict, checked.text) == (Verdict.REPAIRED, left)
    assert checked.found


@pytest.mark.parametrize(
    "text",
    [
        "An 8 mm gastric ulcer in the antrum.",  # the fault stands before any comma
        "Biopsies of a gastric ulcer were taken. The antrum is in view.",  # what is left names no finding
        "The antrum" + " is seen" * 60 + ". Gastric ulcer.",  # too long as a whole, which no cut mends
    ],
)
def test_a_caption_that_cannot_be_mended_by_cutting_is_rejected(text):
    checked = check_caption(text, ULCER, TAXONOMY)
    assert (checked.verdict, checked.text) == (Verdict.REJECTED, None)


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ('"Gastric ulcer in the antrum"', "Gastric ulcer in the antrum."),
        ("Caption:  gastric   ulcer.", "Gastric ulcer."),
        ("gastric ulcer,", "Gastric ulcer."),
    ],
)
def test_quotes_a_label_and_blanks_are_no_fault(text, tidied):
    checked = check_caption(text, ULCER, TAXONOMY)
    assert (checked.verdict, checked.text) == (Verdict.ACCEPTED, tidied)


LEAVES = [term.id for term in TAXONOMY.terms if term.level == 3]
boxes = st.builds(
    lambda x, y, w, h: Box(x0=x, y0=y, x1=x + w * (1 - x), y1=y + h * (1 - y)),
    *(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.05, 1), st.floats(0.05, 1)),
)
one_finding = st.builds(
    Finding,
    term=st.sampled_from(LEAVES),
    status=st.sampled_from([Status.PRESENT, Status.PRESENT, Status.UNCERTAIN]),
    boxes=st.lists(boxes, max_size=2, unique=True).map(tuple),
)


@given(st.lists(one_finding, min_size=1, max_size=3, unique_by=lambda finding: finding.term), st.integers(0, 99))
def test_captions_of_the_grammar_are_accepted_word_by_word(findings, seed):
    sample = sample_of(*findings)
    for caption in captions_of(sample, TAXONOMY, np.random.default_rng(seed), 6):
        checked = check_caption(caption, sample, TAXONOMY)
        assert (checked.verdict, checked.text) == (Verdict.ACCEPTED, caption), [str(one) for one in checked.found]


@pytest.mark.parametrize("term", LEAVES)
def test_the_plain_name_of_every_term_is_accepted_and_another_organ_is_not(term):
    sample = sample_of(Finding(term=term))
    assert check_caption(f"The image shows {TAXONOMY[term].name}.", sample, TAXONOMY).verdict is Verdict.ACCEPTED
    organ = "duodenum" if TAXONOMY[term].site != "duodenum" else "esophagus"
    assert faults(f"The image shows {TAXONOMY[term].name} and the {organ}.", sample) == [Fault.SITE]


@given(st.text(max_size=120))
def test_no_reply_breaks_the_check(text):
    checked = check_caption(text, ULCER, TAXONOMY)
    assert (checked.text is None) == (checked.verdict is Verdict.REJECTED)
