"""What calibration, checks, label sets, abstention and scope are worth on a checkpoint's own validation and test data.

    python benchmarks/confidence.py --checkpoint runs/grounding/train --data runs/grounding/data \\
        --lower data/hyperkvasir/images --output benchmarks/results/confidence.json

Everything is fitted on val and tested on test; and, since val may hold few groups, once more by cross-fitting over the
groups of val and test together: what is said of a group was fitted without it. `perfect` beside an ECE is the mean ECE
of answers that are right exactly as often as the confidence says: chance alone makes that much.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gastrovl.cli.calibrate import judge
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.files import write_text
from gastrovl.core.records import read_records
from gastrovl.core.types import Conversation, Prediction, Task
from gastrovl.evaluation.measures import confidence as measures
from gastrovl.evaluation.measures.weighted import value_of_any
from gastrovl.inference.batch import predict_file
from gastrovl.inference.belief.abstention import wider_term
from gastrovl.inference.belief.calibrating import Asked, cases_of, checks_of_file
from gastrovl.inference.belief.calibration import TaskCalibration
from gastrovl.inference.belief.conformal import LabelSets, covered, hierarchical_quantile
from gastrovl.inference.belief.fitting import Case, fit_task, presence_cut
from gastrovl.inference.belief.scaling import folds, numbered
from gastrovl.inference.belief.verdicts import Check
from gastrovl.inference.predictor import Predictor
from scopes import scope_table

SEED, DRAWS = 7, 500
SHOWN = (measures.ECE, measures.ECE_ADAPTIVE, measures.BRIER, measures.AURC, measures.CONFIDENCE_AUROC)
Fitted = Sequence[tuple[Case, TaskCalibration]]  # each case with a calibration that has not seen its group
ALL = "all"


def answered(
    predictor: Predictor, data: Path, work: Path, split: str
) -> tuple[list[Asked], dict[str, tuple[Check, ...]]]:
    """Raw predictions of a split and their checks; kept in `work`, where the predictions are made once."""
    output, kept = work / f"{split}.jsonl", work / f"{split}.checks.json"
    if not output.exists():
        predict_file(predictor, data / f"{split}.jsonl", output)
    said = {one.conversation_id: one for one in read_records(output, Prediction)}
    asked = [(one, said[one.id]) for one in read_records(data / f"{split}.jsonl", Conversation)]
    if not kept.exists():
        made = checks_of_file(predictor, asked, data, Taxonomy.load())
        told = {name: [[one.name, one.passed, one.detail] for one in some] for name, some in made.items()}
        write_text(kept, json.dumps(told))
    read = json.loads(kept.read_text(encoding="utf-8"))
    return asked, {name: tuple(Check(*one) for one in some) for name, some in read.items()}


def crossed(task: Task, cases: Sequence[Case], level: float, risk: float) -> Fitted:
    """Each case with what was fitted on the other groups."""
    found: list[tuple[Case, TaskCalibration]] = []
    for fold in folds(numbered([one.group for one in cases])):
        known = fit_task(task, [one for one, out in zip(cases, fold, strict=True) if not out], level=level, risk=risk)
        found += [(one, known.of(one.source)) for one, out in zip(cases, fold, strict=True) if out]
    return found


def raw(one: Case, _: TaskCalibration) -> float:
    return one.confidence


def scaled(one: Case, known: TaskCalibration) -> float:
    return known.ways(one.subject).plain.scaling(one.confidence)


def checked(one: Case, known: TaskCalibration) -> float:
    return known.ways(one.subject).way(has_checks=True).scaling(one.confidence, one.failed)


WAYS: dict[str, Callable[[Case, TaskCalibration], float]] = {"raw": raw, "scaled": scaled, "scaled + checks": checked}


def of_confidence(fitted: Fitted) -> dict[str, Any]:
    """The measures of each way, what chance alone would make of the ECE, and what checks change with its interval."""
    right, groups = np.array([one.is_right for one, _ in fitted]), numbered([one.group for one, _ in fitted])
    rows, draws = np.ones(len(right), dtype=np.bool_), np.random.default_rng(SEED)
    found: dict[str, Any] = {"n": len(right), "groups": int(groups.max()) + 1, "accuracy": float(right.mean())}
    sure = {name: np.array([way(one, known) for one, known in fitted]) for name, way in WAYS.items()}
    for name, values in sure.items():
        scores = {one.metric: value_of_any(one, rows) for one in measures.measures(values.tolist(), right)}
        luck = [_ece(values, draws.random(len(values)) < values) for _ in range(200)]
        found[name] = {key: scores[key] for key in SHOWN} | {
            "mean": float(values.mean()),
            "perfect": float(np.mean(luck)),
            "perfect, 95 of 100 below": float(np.quantile(luck, 0.95)),
            "ece interval": _interval(groups, draws, lambda rows, said=values: _ece(said[rows], right[rows])),
        }
    found["trivial aurc"] = measures.trivial(right)[measures.AURC]
    found["checks minus scaled, aurc"] = _difference(sure["scaled"], sure["scaled + checks"], right, groups, draws)
    return found


def _ece(sure: np.ndarray, right: np.ndarray) -> float:
    bins = measures.equal_width(sure)
    gaps = np.bincount(bins, weights=sure - right, minlength=measures.BINS)
    return float(np.abs(gaps).sum() / len(sure))


def _difference(
    before: np.ndarray, after: np.ndarray, right: np.ndarray, groups: np.ndarray, draws: np.random.Generator
) -> dict[str, float]:
    """AURC after minus before (below 0 is better) with the 95 % interval of a bootstrap over groups."""

    def change(rows: np.ndarray) -> float:
        return _aurc(after[rows], right[rows]) - _aurc(before[rows], right[rows])

    low, high = _interval(groups, draws, change)
    return {"value": _aurc(after, right) - _aurc(before, right), "low": low, "high": high}


def _interval(groups: np.ndarray, draws: np.random.Generator, of: Callable[[np.ndarray], float]) -> list[float]:
    """95 % of what is found for the rows of groups drawn with replacement."""
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    found = [
        of(np.concatenate([members[group] for group in draws.integers(0, len(members), len(members))]))
        for _ in range(DRAWS)
    ]
    return [float(value) for value in np.quantile(found, [0.025, 0.975])]


def _aurc(sure: np.ndarray, right: np.ndarray) -> float:
    wrong = ~right[np.argsort(-sure, kind="stable")]
    return float((np.cumsum(wrong) / np.arange(1, len(wrong) + 1)).mean())


def of_sets(fitted: Fitted) -> dict[str, Any] | None:
    """How much of the truth label sets hold, over answers and over groups, and how large they are."""
    told = [(one, known, known.sets) for one, known in fitted if one.probabilities and known.sets]
    if not told:
        return None
    sets = [made(_probabilities(one, known)) for one, known, made in told]
    truth = [one.true_terms for one, *_ in told]
    found = _coverage(sets, truth, [one.group for one, *_ in told])
    found["top alone"] = _coverage([some[:1] for some in sets], truth, [one.group for one, *_ in told])
    found["too few groups"] = float(np.mean([not made.is_informative for *_, made in told]))
    return found


def _probabilities(one: Case, known: TaskCalibration) -> dict[str, float]:
    assert one.probabilities is not None
    if known.names is not None:
        return known.names(one.probabilities)
    if known.presence_of_labels is not None:
        return {name: known.presence_of_labels(value) for name, value in one.probabilities.items()}
    return one.probabilities


def _coverage(sets: Sequence[Sequence[str]], truth: Sequence[frozenset[str]], groups: Sequence[str]) -> dict[str, Any]:
    held = covered(sets, truth)
    sizes = [len(some) for some in sets]
    numbers, draws = numbered(groups), np.random.default_rng(SEED)
    of_group = np.bincount(numbers, weights=np.asarray(held)) / np.bincount(numbers)
    return {
        "n": len(sets),
        "of answers": float(np.mean(held)),
        "of groups": float(of_group.mean()),
        "of groups, interval": _interval(np.arange(len(of_group)), draws, lambda rows: float(of_group[rows].mean())),
        "mean size": float(np.mean(sizes)),
        "median size": float(np.median(sizes)),
        "least size": min(sizes),
    }


def _group_mean(values: Sequence[float], groups: Sequence[str]) -> float:
    numbers = numbered(groups)
    return float((np.bincount(numbers, weights=np.asarray(values, dtype=float)) / np.bincount(numbers)).mean())


def of_labels(fitted: Fitted) -> dict[str, float] | None:
    """ECE of the presence of single labels (CLS), before and after."""
    told = [(one, known) for one, known in fitted if one.probabilities and known.presence_of_labels]
    if not told:
        return None
    flags = np.array([name in one.true_terms for one, _ in told for name in one.probabilities or {}])
    before = np.array([value for one, _ in told for value in (one.probabilities or {}).values()])
    after = np.array([value for one, known in told for value in _probabilities(one, known).values()])
    return {"n": len(flags), "raw": _ece(before, flags), "calibrated": _ece(after, flags)}


def of_boxes(fitted: Fitted, cut: float | None) -> dict[str, Any] | None:
    """What the head expects of boxes against what they overlap, before and after; and presence at two cuts."""
    told = [
        (said, known.box_iou(said), overlap)
        for one, known in fitted
        if known.box_iou and len(one.expected_iou) == len(one.ious)
        for said, overlap in zip(one.expected_iou, one.ious, strict=True)
    ]
    if not told:
        return None
    before, after, true = (np.array(column) for column in zip(*told, strict=True))
    asked = [(one.presence, bool(one.is_present)) for one, _ in fitted if one.presence is not None]
    there = np.array([is_there for _, is_there in asked])

    def balanced(at_least: float) -> float | None:
        says = np.array([presence >= at_least for presence, _ in asked])
        return float((says[there].mean() + (~says[~there]).mean()) / 2) if 0 < there.sum() < len(there) else None

    return {
        "boxes": len(true),
        "mean iou": float(true.mean()),
        "raw": _fit_of_iou(before, true),
        "calibrated": _fit_of_iou(after, true),
        "absent questions": int((~there).sum()),
        "presence_balanced at 0.5": balanced(0.5),
        **({} if cut is None else {"cut fitted on val": cut, "presence_balanced there": balanced(cut)}),
    }


def _fit_of_iou(said: np.ndarray, true: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(said.mean()),
        "bin gap": _ece(said, true),
        "rmse": float(((said - true) ** 2).mean() ** 0.5),
    }


def of_abstention(fitted: Fitted, task: Task, risk: float, *, has_checks: bool) -> dict[str, Any]:
    """What is given, how often that is wrong, and how often what is said instead of a withheld answer is right."""
    taxonomy = Taxonomy.load()
    kept: list[tuple[Case, bool]] = []
    instead: list[tuple[int, bool]] = []  # level of the term that is said, and whether it is true
    silent = 0
    for one, known in fitted:
        way = known.ways(one.subject).way(has_checks=has_checks)
        is_given = not way.abstention.withholds(way.scaling(one.confidence, one.failed if has_checks else ()))
        kept.append((one, is_given))
        if is_given or not one.probabilities:
            continue
        probabilities = _probabilities(one, known)
        top = max(probabilities, key=lambda name: probabilities[name])
        wider = wider_term(probabilities, top, 1 - risk, taxonomy, is_one=task is Task.REG)
        silent += wider is None
        if wider is not None:
            is_true = any(wider.term in (name, *taxonomy.ancestors(name)) for name in one.true_terms)
            instead.append((taxonomy[wider.term].level, is_true))
    given = [one for one, is_given in kept if is_given]
    ways = [known.ways(one.subject).way(has_checks=has_checks) for one, known in fitted]
    return {
        "given": len(given) / len(kept),
        "wrong of given": float(np.mean([not one.is_right for one in given])) if given else None,
        "wrong of given, mean of groups": _group_mean([not one.is_right for one in given], [one.group for one in given])
        if given
        else None,
        "wrong of all": float(np.mean([not one.is_right for one, _ in kept])),
        "risk shown": float(np.mean([way.abstention.is_assured for way in ways])),
        "withheld": len(kept) - len(given),
        "said instead, by level": {
            level: {"n": len(some), "right": float(np.mean(some))}
            for level in (3, 2, 1)
            if (some := [is_true for at, is_true in instead if at == level])
        },
        "nothing said instead": silent,
    }


def one_table(
    task: Task, fitted: Fitted, sources: dict[str, str], risk: float, cut: float | None = None
) -> dict[str, Any]:
    """All measures over all cases, and over those of each source."""
    parts = {ALL: list(fitted)}
    for source in sorted(set(sources.values())):
        parts[source] = [pair for pair in fitted if sources[pair[0].group] == source]
    return {
        name: {
            "confidence": of_confidence(part),
            "sets": of_sets(part),
            "labels": of_labels(part),
            "boxes": of_boxes(part, cut) if task is Task.REC else None,
            "abstention": of_abstention(part, task, risk, has_checks=False),
            "abstention with checks": of_abstention(part, task, risk, has_checks=True),
        }
        for name, part in parts.items()
        if part
    }


def pooled(
    task: Task, fit_on: Sequence[Case], test: Sequence[Case], level: float, risk: float
) -> dict[str, Any] | None:
    """Coverage of REG if all answers had one threshold, for comparison."""
    known = fit_task(task, fit_on, level=level, risk=risk)
    if known.names is None:
        return None
    own = [(known.names(one.probabilities or {}), next(iter(one.true_terms)), one.group) for one in fit_on]
    cut = hierarchical_quantile([1 - some.get(term, 0.0) for some, term, _ in own], [name for *_, name in own], level)
    sets = LabelSets(kind="one", level=level, least=max(0.0, 1 - cut), groups=0, is_informative=True)
    made = [sets(known.names(one.probabilities or {})) for one in test]
    return _coverage(made, [one.true_terms for one in test], [one.group for one in test])


def show(title: str, table: dict[str, Any]) -> None:
    """One line a source and way."""
    print(f"\n{title}")
    for source, part in table.items():
        scores = part["confidence"]
        for way in WAYS:
            one = scores[way]
            told = " ".join(f"{key} {one[key]:.3f}" for key in (*SHOWN, "perfect") if one[key] is not None)
            many = f"n {scores['n']:4} groups {scores['groups']:4} right {scores['accuracy']:.3f}"
            print(f"  {source:12} {way:16} {many} mean {one['mean']:.3f} {told}")
        change = scores["checks minus scaled, aurc"]
        print(
            f"  {source:12} checks change AURC by {change['value']:+.4f} [{change['low']:+.4f}, {change['high']:+.4f}]"
        )
        for name in ("sets", "labels", "boxes", "abstention", "abstention with checks"):
            if part[name]:
                print(f"  {source:12} {name}: {json.dumps(rounded(part[name]))}")


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Print every table and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder with train, val and test")
    parser.add_argument("--lower", type=Path, help="images of HyperKvasir in class folders, for the scope")
    parser.add_argument("--work", type=Path, default=Path("runs/confidence"), help="where predictions are kept")
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--date", required=True)
    parser.add_argument("--hardware", default="2-core CPU (Intel Xeon, shared)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/confidence.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    predictor = Predictor.load(options.checkpoint, "cpu")
    cases: dict[str, dict[Task, list[Case]]] = {}
    sources: dict[str, str] = {}
    for split in ("val", "test"):
        asked, checks = answered(predictor, options.data, options.work, split)
        verdicts = judge(options.work / f"{split}.jsonl", options.data / f"{split}.jsonl")
        cases[split] = cases_of(asked, verdicts, checks)
        sources |= {one.group: one.source for one, _ in asked}
    told: dict[str, Any] = {
        "date": options.date,
        "hardware": options.hardware,
        "level": options.level,
        "risk": options.risk,
    }
    for task in cases["val"]:
        known = fit_task(task, cases["val"][task], level=options.level, risk=options.risk)
        both = [*cases["val"][task], *cases["test"][task]]
        seen = [(one, known.of(one.source)) for one in cases["val"][task]]
        unseen = [(one, known.of(one.source)) for one in cases["test"][task]]
        cut = presence_cut(cases["val"][task])
        tables = {
            "fitted on val, val": one_table(task, seen, sources, options.risk, cut),
            "fitted on val, test": one_table(task, unseen, sources, options.risk, cut),
            "cross-fitted": one_table(task, crossed(task, both, options.level, options.risk), sources, options.risk),
        }
        told[task.value] = {"fit": known.model_dump(mode="json", exclude_none=True), **tables}
        if task is Task.REG:
            told[task.value]["one threshold for all, test"] = pooled(
                task, cases["val"][task], cases["test"][task], options.level, options.risk
            )
        for name, table in tables.items():
            show(f"{task}: {name}", table)
    if options.lower:
        told["scope"] = scope_table(predictor, options.data, options.lower, options.level)
    known = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
    told |= {"folds": known["folds"]} if "folds" in known else {}  # by confidence_folds.py
    write_text(options.output, json.dumps(rounded(told), indent=1) + "\n")


if __name__ == "__main__":
    Image.MAX_IMAGE_PIXELS = None
    main()
