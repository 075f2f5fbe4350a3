"""How often the caption check throws away true captions, and how often it finds a false statement put into one.

    python benchmarks/caption_check.py                # 2,000 drawn and 2,000 random records, about a minute
    python benchmarks/caption_check.py --records 100

True captions are those of the grammar and of ten free patterns that the grammar does not have. False ones are a free
caption with one change of a known kind, in several wordings. Patterns, changes and checker have the same authors, so
the figures say how the check does on what was thought of; they say nothing of what a model may yet come up with.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import yaml

from gastrovl.clinical.implication import is_view
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.positions import position_phrase, share_word
from gastrovl.core.types import Box, Finding, ImageRef, Sample, Split, Status, Verdict
from gastrovl.data.captioning.check import CheckOptions, check_caption
from gastrovl.data.captions import captions_of
from gastrovl.data.exchanges import may_be_one
from gastrovl.data.synthetic.drawn_set import draw_frame

TAXONOMY = Taxonomy.load()
LEAVES = [term.id for term in TAXONOMY.terms if term.level == 3]
FINDINGS = [term for term in LEAVES if not is_view(term, TAXONOMY)]
ORGANS = ("esophagus", "stomach", "duodenum")
TEXTS = Path(__file__).with_name("caption_check_texts.yaml")
Rng = np.random.Generator
Corners = tuple[float, float, float, float]
# {site} "the antrum", {finding} a name, {place} "at the left", {share} "small"; for records of one site and one box.
FREE = (
    "A {finding} is seen in {site}, {place} of the image.",
    "In {site}, {finding} can be made out {place}.",
    "{place}, {finding} stands out against the mucosa of {site}.",
    "This endoscopic image of {site} demonstrates {finding}, located {place}.",
    "The endoscope looks into {site}. There is one area of {finding}, which lies {place} and appears {share}.",
    "{finding} in {site}; it takes up a {share} part of the view and lies {place}.",
    "Within {site} a {share} {finding} is visible {place}.",
    "{site} is in view, with {finding} {place}.",
    "We see {site} and, {place}, a {share} area of {finding}.",
    "Moist, shining mucosa of {site} with visible folds. {finding} is present {place}.",
)
OPPOSITE = {"left": "right", "right": "left", "upper": "lower", "lower": "upper", "top": "bottom", "bottom": "top"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--show", type=int, default=0, help="print so many wrong verdicts of each kind")
    arguments = parser.parse_args()
    started = time.process_time()
    accepted, found, wrong = measure(arguments.records, arguments.seed)
    seconds = time.process_time() - started
    print("| true captions | number | rejected or cut |\n| --- | --- | --- |")
    for kind, (ok, total) in accepted.items():
        print(f"| {kind} | {total:,} | {total - ok:,} ({1 - ok / total:.2%}) |")
    print("\n| false statement put in | number | found |\n| --- | --- | --- |")
    for kind, (hits, total) in found.items():
        print(f"| {kind} | {total:,} | {hits:,} ({hits / total:.1%}) |")
    judge_texts(arguments.show)
    print(f"\n{seconds:.0f} s of processor time, drawing included")
    for kind, texts in wrong.items():
        for text in texts[: arguments.show]:
            print(f"{kind}: {text}")


def measure(
    records: int, seed: int
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]], dict[str, list[str]]]:
    """(accepted, all) of true captions by kind, (found, all) of false ones by kind, and the texts judged wrongly."""
    good: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}

    def judge(kind: str, text: str, sample: Sample, *, is_true: bool) -> None:
        totals[kind] += 1
        checked = check_caption(text, sample, TAXONOMY, CheckOptions(repairs=False))
        is_accepted = checked.verdict is Verdict.ACCEPTED
        (good if is_true else hits)[kind] += is_accepted if is_true else not is_accepted
        if is_accepted != is_true:
            wrong.setdefault(kind, []).append(f"{text} {[str(one) for one in checked.found]}")

    rng = np.random.default_rng(seed)
    for name, samples in (("drawn", drawn_records(records, seed)), ("random", random_records(records, rng))):
        for sample in samples:
            for text in captions_of(sample, TAXONOMY, rng, 3):
                judge(f"grammar, {name} records", text, sample, is_true=True)
    for sample in simple_records(records, rng):
        text = free_caption(sample, rng)
        judge("free patterns", text, sample, is_true=True)
        for kind, change in CHANGES.items():
            changed = change(text, sample, rng)
            if changed is not None:
                judge(kind, changed, sample, is_true=False)
    true = {kind: (good[kind], totals[kind]) for kind in totals if kind not in CHANGES}
    return true, {kind: (hits[kind], totals[kind]) for kind in CHANGES}, wrong


def judge_texts(shown: int) -> None:
    """Print how the check does on the captions of caption_check_texts.yaml."""
    content = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    records = {name: sample_of([finding_of(*row) for row in rows]) for name, rows in content["records"].items()}
    for number in ("first", "second"):
        cases = [(name, text, "") for name, texts in content[f"holds_{number}"].items() for text in texts]
        cases += [(name, text, what) for name, pairs in content[f"fails_{number}"].items() for what, text in pairs]
        missed, refused = [], []
        for name, text, what in cases:
            found = check_caption(text, records[name], TAXONOMY, CheckOptions(repairs=False)).found
            if bool(found) != bool(what):
                (missed if what else refused).append(f"{what or 'true'}: {text} {[str(one) for one in found]}")
        false = sum(bool(what) for _, _, what in cases)
        print(f"\nHand-written, {number} set: {len(refused)} of {len(cases) - false} true texts rejected, ", end="")
        print(f"{false - len(missed)} of {false} false ones found")
        print("\n".join([*missed, *refused][: shown * 10]), end="")
    print()


def finding_of(
    term: str, status: str = "present", grade: str | None = None, boxes: tuple[Corners, ...] = ()
) -> Finding:
    places = tuple(Box(x0=x0, y0=y0, x1=x1, y1=y1) for x0, y0, x1, y1 in boxes)
    return Finding(term=term, status=Status(status), grade=grade, boxes=places)


def drawn_records(count: int, seed: int) -> Iterator[Sample]:
    """Records of the drawn set."""
    for index in range(count):
        drawn = draw_frame(seed, index)
        boxes: dict[str, list[Box]] = {}
        for term, box in drawn.lesions:
            boxes.setdefault(term, []).append(box)
        findings = [Finding(term=drawn.site)]
        findings += [Finding(term=term, boxes=tuple(places)) for term, places in boxes.items()]
        yield sample_of(findings)


def random_records(count: int, rng: Rng) -> Iterator[Sample]:
    """One to three terms of the whole taxonomy, of any status, with up to three boxes, a site and a grade at times."""
    for _ in range(count):
        findings = []
        for term in rng.choice(LEAVES, size=int(rng.integers(1, 4)), replace=False):
            status = Status(rng.choice(["present", "present", "present", "uncertain", "absent"]))
            if status is Status.ABSENT and is_view(str(term), TAXONOMY):
                status = Status.PRESENT  # "no antrum" beside a site in the antrum would contradict itself
            boxes = tuple(random_box(rng) for _ in range(int(rng.integers(0, 4)))) if status != "absent" else ()
            grade = [None, None, "2", "A", "0-IIa"][int(rng.integers(5))]
            if status is Status.ABSENT and any(may_be_one(str(term), other.term, TAXONOMY) for other in findings):
                continue  # "no polyp" beside a fundic gland polyp would, too
            findings = [one for one in findings if one.status != "absent" or not may_be_one(one.term, term, TAXONOMY)]
            findings.append(Finding(term=str(term), status=status, boxes=boxes, grade=grade))
        yield sample_of(findings)


def simple_records(count: int, rng: Rng) -> Iterator[Sample]:
    """One finding with one box, at a site of its organ."""
    sites = [term.id for term in TAXONOMY.terms if term.level == 3 and "anatomical_structure" in above(term.id)]
    for _ in range(count):
        term = FINDINGS[int(rng.integers(len(FINDINGS)))]
        organ = TAXONOMY[term].site
        own = [site for site in sites if TAXONOMY[site].site and organ in (None, TAXONOMY[site].site)]
        site = own[int(rng.integers(len(own)))]
        yield sample_of([Finding(term=site), Finding(term=term, boxes=(random_box(rng),))])


def above(term: str) -> tuple[str, ...]:
    return TAXONOMY.ancestors(term)


def random_box(rng: Rng) -> Box:
    x, y = rng.uniform(0, 0.85, 2)
    width, height = rng.uniform(0.05, 0.5, 2)
    return Box(x0=x, y0=y, x1=min(x + width, 1.0), y1=min(y + height, 1.0))


def sample_of(findings: list[Finding]) -> Sample:
    image = ImageRef(path="a.png", width_px=320, height_px=288, sha256="0" * 64)
    return Sample(id="a", image=image, source="a", group="a", split=Split.TRAIN, findings=tuple(findings))


def parts(sample: Sample) -> tuple[str, str, str, str]:
    """(site, finding, place, share) of a simple record, in words."""
    site, finding = sample.findings
    box = finding.boxes[0]
    return f"the {TAXONOMY[site.term].name}", TAXONOMY[finding.term].name, position_phrase(box), share_word(box)


def free_caption(sample: Sample, rng: Rng) -> str:
    site, finding, place, share = parts(sample)
    return FREE[int(rng.integers(len(FREE)))].format(site=site, finding=finding, place=place, share=share)


def one_of(rng: Rng, *texts: str) -> str:
    return texts[int(rng.integers(len(texts)))]


def other_term(sample: Sample, rng: Rng) -> str:
    """Name of a finding that is certainly not the record's."""
    own = sample.findings[1].term
    others = [term for term in FINDINGS if not may_be_one(term, own, TAXONOMY)]
    return TAXONOMY[others[int(rng.integers(len(others)))]].name


def swap_finding(text: str, sample: Sample, rng: Rng) -> str:
    return text.replace(parts(sample)[1], other_term(sample, rng))


def add_finding(text: str, sample: Sample, rng: Rng) -> str:
    name = other_term(sample, rng)
    return text + one_of(rng, f" There is also {name}.", f" {name} lies beside it.", f" Further away, {name}.")


def deny_finding(text: str, sample: Sample, rng: Rng) -> str:
    name = parts(sample)[1]
    forms = (f"no {name}", f"no evidence of {name}", f"absence of {name}", f"nothing suggestive of {name}")
    return text.replace(name, one_of(rng, *forms))


def deny_behind(text: str, sample: Sample, rng: Rng) -> str:
    name = parts(sample)[1]
    return text + one_of(rng, f" {name} is not seen.", f" {name} is absent.", f" {name} was ruled out.")


def deny_unstated(text: str, sample: Sample, rng: Rng) -> str:
    name = other_term(sample, rng)
    return text + one_of(rng, f" No {name} is seen.", f" The view is free of {name}.", f" {name} is not visible.")


def add_doubt(text: str, sample: Sample, rng: Rng) -> str:
    name = parts(sample)[1]
    return text.replace(name, one_of(rng, f"possible {name}", f"what may be {name}", f"suspected {name}"))


def add_organ(text: str, sample: Sample, rng: Rng) -> str | None:
    own = TAXONOMY[sample.findings[0].term].site
    organ = one_of(rng, *(name for name in ORGANS if name != own))
    return text + one_of(
        rng, f" The {organ} looks as usual.", f" It reaches into the {organ}.", f" Behind it, the {organ}."
    )


def swap_site(text: str, sample: Sample, rng: Rng) -> str:
    own = sample.findings[0].term
    others = [t for t in ("antrum", "fundus", "lower_esophagus", "duodenal_bulb") if not may_be_one(t, own, TAXONOMY)]
    others = [t for t in others if not own.startswith(t)]  # "fundus and cardia" holds the fundus
    return text.replace(parts(sample)[0], f"the {TAXONOMY[one_of(rng, *others)].name}")


def move_side(text: str, sample: Sample, rng: Rng) -> str:
    place, box = parts(sample)[2], sample.findings[1].boxes[0]
    moved = " ".join(OPPOSITE.get(word, word) for word in place.split())
    if moved == place:  # in the centre
        half = "in the right half" if box.x0 + box.x1 < 1 else "in the left half"
        moved = one_of(rng, "at the upper left", "at the lower right", half)
    return text.replace(place, moved)


def add_size(text: str, sample: Sample, rng: Rng) -> str:
    name = parts(sample)[1]
    number = int(rng.integers(2, 30))
    forms = (f"{number} mm {name}", f"{name} of about {number / 10:.1f} cm", f"{name} ({number}-{number + 2} mm)")
    return text.replace(name, one_of(rng, *forms))


def change_number(text: str, sample: Sample, rng: Rng) -> str:
    name = parts(sample)[1]
    forms = (f"two {name}", f"{name} in three places", f"multiple {name}", f"several small areas of {name}")
    return text.replace(name, one_of(rng, *forms))


def add_grade(text: str, sample: Sample, rng: Rng) -> str:
    name = parts(sample)[1]
    forms = (
        f"{name} grade C",
        f"severe {name}",
        f"{name} (Forrest IIb)",
        f"{name}, Paris 0-IIc",
        f"{name} of type III",
    )
    return text.replace(name, one_of(rng, *forms))


def add_wall(text: str, _: Sample, rng: Rng) -> str:
    return text + one_of(
        rng, " It lies on the posterior wall.", " It is at 3 o'clock.", " The lesser curvature is seen."
    )


def add_treatment(text: str, _: Sample, rng: Rng) -> str:
    return text + one_of(
        rng, " Biopsies were taken.", " Follow-up is advised.", " It was resected.", " Histology is awaited."
    )


def add_person(text: str, _: Sample, rng: Rng) -> str:
    return text + one_of(rng, " The patient is 61 years old.", " She has reflux.", " Examined on 12.03.2020.")


def change_share(text: str, sample: Sample, _: Rng) -> str | None:
    share = parts(sample)[3]
    if share == "medium" or f" {share}" not in text:
        return None
    return text.replace(share, "large" if share == "small" else "tiny")


CHANGES: dict[str, Callable[[str, Sample, Rng], str | None]] = {
    "finding replaced": swap_finding,
    "finding added": add_finding,
    "finding denied": deny_finding,
    "finding denied behind": deny_behind,
    "other finding denied": deny_unstated,
    "doubt added": add_doubt,
    "site replaced": swap_site,
    "organ added": add_organ,
    "side moved": move_side,
    "size in mm or cm": add_size,
    "number changed": change_number,
    "grade added": add_grade,
    "wall or o'clock": add_wall,
    "treatment or histology": add_treatment,
    "patient fact": add_person,
    "small and large exchanged": change_share,
}

if __name__ == "__main__":
    main()
