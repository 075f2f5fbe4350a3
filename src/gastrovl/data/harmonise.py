"""Source labels to taxonomy terms: each is mapped, or left out for a stated reason, or stops the build."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.errors import LabelError
from gastrovl.core.types import Box, Dialogue, Finding, Target, Task, Turn
from gastrovl.data.annotation import Annotation
from gastrovl.data.images import ImageFile
from gastrovl.data.source import LabelRule, SourceDescription

ALL_TASKS = frozenset(Task)
SAME_EDGE = 1e-5  # of the image's side: a hundredth of a pixel, and ten times what YOLO's six decimals lose


@dataclass(frozen=True)
class LabelUse:
    """One source label and what became of it; a row of `harmonised.json`.

    Attributes:
        term: Term id, or None when excluded.
        hierarchy: Ids from the taxonomy's first level down to the term; empty when excluded.
        reason: Why it is excluded, or None.
        images, annotations: How often it occurs.
    """

    source: str
    label: str
    term: str | None
    hierarchy: tuple[str, ...]
    reason: str | None
    images: int
    annotations: int


@dataclass
class LabelledImage:
    """An image with everything its source says of it, in the taxonomy's terms.

    Attributes:
        boxed: The source labels of the boxes of each term that has any.
    """

    image: ImageFile
    findings: tuple[Finding, ...] = ()
    tasks: frozenset[Task] = ALL_TASKS
    groups: tuple[str, ...] = ()
    split: str | None = None
    dialogues: tuple[Dialogue, ...] = ()
    boxed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Harmonised:
    """Attributes: `excluded` images carry excluded labels only; `silent` ones carry no annotation at all."""

    images: list[LabelledImage] = field(default_factory=list)
    uses: list[LabelUse] = field(default_factory=list)
    excluded: list[ImageFile] = field(default_factory=list)
    silent: list[ImageFile] = field(default_factory=list)


def check_rules(description: SourceDescription, taxonomy: Taxonomy, where: str) -> None:
    """Refuse rules that name terms the taxonomy does not hold.

    Raises:
        LabelError: With all of them.
    """
    wrong = []
    for label, rule in description.labels.items():
        for kind, term in (("term", rule.term), ("site", rule.site)):
            if term is not None and term not in taxonomy:
                wrong.append(f"  labels.{label}: {kind} {term!r}{_hint(term, taxonomy)}")
    if wrong:
        raise LabelError(
            f"{where}: found {len(wrong)} ids that are not in taxonomy {taxonomy.version}:\n" + "\n".join(wrong)
        )


def with_named_labels(
    description: SourceDescription, found: Iterable[Annotation], taxonomy: Taxonomy
) -> SourceDescription:
    """The description with a rule also for labels that are a term's name or synonym, where it allows that."""
    if not description.labels_by_name:
        return description
    labels = dict.fromkeys(label for annotation in found for label in annotation.labels)
    named = {
        label: LabelRule(term=term.id)
        for label in labels
        if label not in description.labels and (term := taxonomy.find(_plain(label))) is not None
    }
    return description.model_copy(update={"labels": {**description.labels, **named}})


def check_labels(
    descriptions: Sequence[SourceDescription], found: Sequence[list[Annotation]], taxonomy: Taxonomy
) -> None:
    """Refuse labels that no rule speaks of.

    Args:
        found: The annotations of each description, in the same order.

    Raises:
        LabelError: With all labels of all sources that did not map: count, example and nearest terms.
    """
    rows = []
    for description, said in zip(descriptions, found, strict=True):
        unknown: dict[str, list[Annotation]] = {}
        for annotation in said:
            for label in annotation.labels:
                if label not in description.labels:
                    unknown.setdefault(label, []).append(annotation)
        for label, uses in sorted(unknown.items()):
            rows.append(
                f"  {description.name}: {label!r}, {len(uses)} times, first in {uses[0].where}{_hint(label, taxonomy)}"
            )
    if rows:
        raise LabelError(
            f"{len(rows)} labels are not in the label map of their source:\n"
            + "\n".join(rows)
            + "\nExpected every label under `labels` of the source description, as `label: term_id` or "
            "`label: {exclude: reason}`"
        )


def harmonise(
    description: SourceDescription, images: Iterable[ImageFile], annotations: Sequence[Annotation], taxonomy: Taxonomy
) -> Harmonised:
    """Merge the annotations of each image into findings: one a term, with all its boxes, in taxonomy order.

    An image without a finding stays when the source gives a dialogue about it.
    """
    by_image: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        by_image.setdefault(annotation.image.name, []).append(annotation)
    result = Harmonised(uses=_uses(description, annotations, taxonomy))
    for image in images:
        said = by_image.get(image.name, [])
        labelled = _labelled(image, said, description.labels, taxonomy)
        if labelled.findings or labelled.dialogues:
            result.images.append(labelled)
        else:
            (result.excluded if any(annotation.labels for annotation in said) else result.silent).append(image)
    return result


def _labelled(
    image: ImageFile, said: list[Annotation], rules: dict[str, LabelRule], taxonomy: Taxonomy
) -> LabelledImage:
    merged: dict[tuple[str, str | None, str | None], list[Annotation]] = {}
    tasks = ALL_TASKS
    for annotation in said:
        rule = rules[annotation.label] if annotation.label is not None else None
        if rule is not None and rule.term is not None:
            merged.setdefault((rule.term, rule.site, rule.grade), []).append(annotation)
            tasks = tasks if rule.tasks is None else tasks & frozenset(rule.tasks)
    shown = _only_site([term for term, _, _ in merged], taxonomy)
    findings = [
        Finding(
            term=term,
            site=site or (shown if _is_pathology(term, taxonomy) else None),
            grade=grade,
            boxes=_distinct(uses),
            origin="; ".join(dict.fromkeys(annotation.label or "" for annotation in uses)),
        )
        for (term, site, grade), uses in merged.items()
    ]
    findings.sort(key=lambda finding: (taxonomy.order(finding.term), finding.site or "", finding.grade or ""))
    return LabelledImage(
        image,
        tuple(findings),
        tasks,
        groups=tuple(dict.fromkeys(annotation.group for annotation in said if annotation.group)),
        split=_one_split(image, said),
        dialogues=_dialogues(said, rules),
        boxed=_boxed(said, rules),
    )


def _boxed(said: list[Annotation], rules: dict[str, LabelRule]) -> dict[str, tuple[str, ...]]:
    labels: dict[str, dict[str, None]] = {}
    for annotation in said:
        if annotation.box is not None and annotation.label is not None and (term := rules[annotation.label].term):
            labels.setdefault(term, {})[annotation.label] = None
    return {term: tuple(found) for term, found in labels.items()}


def _dialogues(said: list[Annotation], rules: dict[str, LabelRule]) -> tuple[Dialogue, ...]:
    """What the source asks and answers itself; a dialogue about an excluded label goes with the label."""
    found: list[Dialogue] = []
    for dialogue in (annotation.dialogue for annotation in said if annotation.dialogue is not None):
        terms = [rules[label].term for label in dialogue.labels]
        if None not in terms:
            turns = [
                turn
                for question, answer in dialogue.turns
                for turn in (Turn(role="user", text=question), Turn(role="assistant", text=answer))
            ]
            target = Target(terms=tuple(dict.fromkeys(term for term in terms if term)), boxes=dialogue.boxes)
            found.append(Dialogue(task=dialogue.task, kind=dialogue.kind, turns=tuple(turns), target=target))
    return tuple(dict.fromkeys(found))


def _one_split(image: ImageFile, said: list[Annotation]) -> str | None:
    splits = list(dict.fromkeys(annotation.split for annotation in said if annotation.split))
    if len(splits) > 1:
        raise LabelError(
            f"{said[-1].where}: image {image.name} is in split {splits[-1]!r} and elsewhere in {splits[0]!r}; expected "
            "one split an image. Correct the table"
        )
    return splits[0] if splits else None


def _distinct(uses: list[Annotation]) -> tuple[Box, ...]:
    """Each box once; what two files state of one box may differ in the last digits that each of them writes."""
    found: list[Box] = []
    for box in dict.fromkeys(use.box for use in uses if use.box is not None):
        if not any(_is_same(box, other) for other in found):
            found.append(box)
    return tuple(found)


def _is_same(a: Box, b: Box) -> bool:
    return all(abs(x - y) < SAME_EDGE for x, y in zip(a.xyxy, b.xyxy, strict=True))


def _only_site(terms: list[str], taxonomy: Taxonomy) -> str | None:
    """The anatomical structure in view when the labels name exactly one: a lesion of that frame lies there."""
    shown = [term for term in terms if "anatomical_structure" in taxonomy.ancestors(term) and taxonomy[term].site]
    return shown[0] if len(shown) == 1 else None


def _is_pathology(term: str, taxonomy: Taxonomy) -> bool:
    return "pathological_findings" in taxonomy.ancestors(term)


def _uses(description: SourceDescription, annotations: Sequence[Annotation], taxonomy: Taxonomy) -> list[LabelUse]:
    counts: dict[str, list[Annotation]] = {}
    for annotation in annotations:
        for label in dict.fromkeys(annotation.labels):
            counts.setdefault(label, []).append(annotation)
    return [
        LabelUse(
            source=description.name,
            label=label,
            term=rule.term,
            hierarchy=(*reversed(taxonomy.ancestors(rule.term)), rule.term) if rule.term else (),
            reason=rule.exclude,
            images=len({annotation.image.name for annotation in counts[label]}),
            annotations=len(counts[label]),
        )
        for label, rule in description.labels.items()
        if label in counts
    ]


def _hint(label: str, taxonomy: Taxonomy) -> str:
    """The terms whose id, name or synonym come nearest to `label`."""
    plain = _plain(label)
    exact = taxonomy.find(plain)
    wordings = {wording: term.id for term in taxonomy.terms for wording in (term.id, term.name, *term.synonyms)}
    near = [wordings[wording] for wording in difflib.get_close_matches(plain, wordings, n=6, cutoff=0.55)]
    ids = list(dict.fromkeys([*([exact.id] if exact else []), *near]))[:3]
    return f"; nearest terms: {', '.join(ids)}" if ids else "; no term comes near"


def _plain(label: str) -> str:
    return label.lower().replace("_", " ").replace("-", " ")
