"""Evaluations of several models to one table of grounding and recognition, a row a change, with the priors beside.

    python benchmarks/grounding.py --split test \\
        --row "paper's recipe=runs/paper-7/evaluation/results.json" \\
        --row "paper's recipe=runs/paper-8/evaluation/results.json" \\
        --row "ours=runs/ours-7/evaluation/results.json" --parameters ours=runs/ours-7/train \\
        --conversations DATA/test.jsonl \\
        --replies "paper's recipe=runs/paper-7/predictions.jsonl" --replies ours=runs/ours-7/predictions.jsonl \\
        --json benchmarks/results/grounding.json --markdown table.md

A name that comes several times has several seeds: the cell is their mean, the least and the greatest in round brackets,
and in square ones the mean of the ends of their 95 % intervals (bootstrap over groups, from results.json). Beside each
score stands its prior: the best of the baselines that never look, under the same protocol and on the same questions.
Rows of an earlier `--json` file stay, unless a row of the same name is given now.

`--replies` with two names or more tests each later one against the first on the questions that all of them answered:
outcomes are averaged over seeds, p comes from swapping the two in whole groups, the interval from the bootstrap.

Without a row, the table of the file is printed again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Split, Task
from gastrovl.evaluation.baselines.trivial import NEIGHBOUR
from gastrovl.evaluation.items import read_items
from gastrovl.evaluation.measures.measure import Measure, mean_measure
from gastrovl.evaluation.results import Results, read_results
from gastrovl.evaluation.statistics.paired import differences, outcomes, sign_flip_p
from gastrovl.evaluation.tasks import measures_of

RESULTS = Path(__file__).with_name("results") / "grounding.json"


@dataclass(frozen=True)
class Column:
    """One score of the table."""

    head: str
    task: Task
    metric: str
    dataset: str


COLUMNS = (
    Column("polyps: acc@0.5", Task.REC, "acc@0.5", "hyperkvasir"),
    Column("polyps: mean IoU", Task.REC, "mean_iou", "hyperkvasir"),
    Column("EDD2020: hull acc@0.5", Task.REC, "acc@0.5_hull", "edd2020"),
    Column("EDD2020: largest acc@0.5", Task.REC, "acc@0.5_largest", "edd2020"),
    Column("EDD2020: set acc@0.5", Task.REC, "acc@0.5", "edd2020"),
    Column("EDD2020: mean IoU", Task.REC, "mean_iou", "edd2020"),
    Column("EDD2020: REG accuracy", Task.REG, "accuracy", "edd2020"),
    Column("EDD2020: CLS mean AP", Task.CLS, "mean_ap", "edd2020"),
)
TESTED = tuple(column for column in COLUMNS if column.task in (Task.REC, Task.REG))  # plain means over questions


def cell(column: Column, seeds: Sequence[Results], split: Split) -> dict[str, Any] | None:
    """One score over the seeds of a row, with its prior; None where no seed has it."""
    found = [
        score
        for one in seeds
        for score in one.scores
        if (score.task, score.metric, score.dataset, score.split) == (column.task, column.metric, column.dataset, split)
        and score.value is not None
    ]
    if not found:
        return None
    ends = [(score.low, score.high) for score in found if score.low is not None and score.high is not None]
    return {
        "values": [score.value for score in found],
        "interval": np.mean(ends, axis=0).round(6).tolist() if ends else None,
        "n": found[0].n,
        "prior": prior(column, seeds[0], split),
    }


def prior(column: Column, results: Results, split: Split) -> dict[str, Any] | None:
    """The best baseline that never looks at an image."""
    known = [
        one
        for one in results.baselines
        if (one.task, one.metric, one.dataset, one.split) == (column.task, column.metric, column.dataset, split)
        and one.value is not None
        and one.name != NEIGHBOUR
    ]
    best = max(known, key=lambda one: one.value or 0.0, default=None)
    return None if best is None else {"name": best.name, "value": best.value}


def row(files: Sequence[Path], split: Split, parameters: int | None) -> dict[str, Any]:
    """Everything that the table says of one change."""
    seeds = [read_results(file) for file in files]
    replies = [one for results in seeds for one in results.replies if one.split is split]
    boxes = [one for one in replies if one.task is Task.REC]
    asked = sum(one.n for one in boxes)
    return {
        "split": split.value,
        "seeds": len(seeds),
        "scores": {column.head: cell(column, seeds, split) for column in COLUMNS},
        "unreadable": sum(one.n_unparsed for one in replies),
        "replies": sum(one.n for one in replies),
        "ms_per_box_answer": round(1000 * sum(one.seconds for one in boxes) / asked, 2) if asked else None,
        "parameters": parameters,
    }


def parameters_of(place: Path) -> int:
    """Parameters of a checkpoint folder, or those that the run.json of a specialist names.

    Raises:
        SystemExit: There is neither.
    """
    if not (files := sorted(place.glob("*.safetensors"))):
        about = place / "run.json"
        count = json.loads(about.read_text(encoding="utf-8")).get("parameters") if about.is_file() else None
        if not isinstance(count, int):
            raise SystemExit(f"{place}: no *.safetensors there, and no run.json that names `parameters`")
        return count
    total = 0
    for file in files:
        with safe_open(file, "np") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        total += sum(
            int(np.prod(shape))
            for name, shape in shapes.items()
            if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        )
    return total


def shared(files: Iterable[Path], conversations: Path, folder: Path) -> tuple[list[Path], Path]:
    """Copies of replies and questions that hold only the questions that every file answers."""
    texts = [file.read_text(encoding="utf-8").splitlines() for file in files]
    answered = [{json.loads(line)["conversation_id"]: line for line in lines} for lines in texts]
    kept = set.intersection(*(set(one) for one in answered))
    questions = folder / "questions.jsonl"
    lines = [one for one in conversations.read_text(encoding="utf-8").splitlines() if json.loads(one)["id"] in kept]
    order = [json.loads(line)["id"] for line in lines]
    questions.write_text("\n".join(lines) + "\n", encoding="utf-8")
    copies = []
    for number, one in enumerate(answered):
        copies.append(folder / f"{number}.jsonl")
        copies[-1].write_text("\n".join(one[name] for name in order) + "\n", encoding="utf-8")
    return copies, questions


def averaged(files: Sequence[Path], questions: Path, column: Column) -> tuple[Measure, list[str]] | None:
    """The outcomes of one score, the mean over the seeds of a model, and the group of each question; None of none."""
    found, groups = [], []
    for file in files:
        items = [
            one
            for one in read_items(file, questions, Taxonomy.load())
            if (one.question.task, one.question.source) == (column.task, column.dataset)
        ]
        if not items:
            return None
        asked, answers = [one.question for one in items], [one.answer for one in items]
        measure = next(one for one in measures_of(column.task, asked, answers) if one.metric == column.metric)
        values = outcomes(measure)
        if values is None or not len(values):
            return None
        found.append(values)
        groups = [one.group for one, is_about in zip(asked, measure.applies, strict=True) if is_about]
    mean = np.mean(found, axis=0)
    return mean_measure(column.metric, mean, np.ones(len(mean), dtype=np.bool_), "no question"), groups


def paired(replies: dict[str, list[Path]], conversations: Path, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Each later model against the first, score by score."""
    names = list(replies)
    found = []
    with tempfile.TemporaryDirectory() as place:
        files = [file for name in names for file in replies[name]]
        copies, questions = shared(files, conversations, Path(place))
        of = {name: [copies[files.index(file)] for file in replies[name]] for name in names}
        for column in TESTED:
            first = averaged(of[names[0]], questions, column)
            for name in names[1:]:
                second = averaged(of[name], questions, column)
                if first is None or second is None:
                    continue
                found.append(_tested(column, (names[0], name), first, second[0], resamples, seed))
    return found


def _tested(
    column: Column,
    names: tuple[str, str],
    first: tuple[Measure, list[str]],
    second: Measure,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    measure, groups = first
    [said] = differences([measure], [second], groups, resamples=resamples, seed=seed)
    return {
        "score": column.head,
        "first": names[0],
        "second": names[1],
        "values": said.values,
        "difference": said.difference,
        "interval": [said.interval.low, said.interval.high],
        "p": sign_flip_p(second.counts[:, 0] - measure.counts[:, 0], groups, seed=seed),
        "n": said.n,
        "groups": said.groups,
    }


def table(content: dict[str, Any]) -> str:
    """Rows and tests as Markdown; scores in percent."""
    heads = ["change", "split", "seeds", *(f"{column.head} [prior]" for column in COLUMNS)]
    heads += ["unreadable", "M parameters", "ms a box answer"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, one in content["rows"].items():
        cells = [name, one["split"], str(one["seeds"]), *(_shown(one["scores"].get(col.head)) for col in COLUMNS)]
        cells += [f"{one['unreadable']} of {one['replies']}"]
        cells += ["-" if one["parameters"] is None else f"{one['parameters'] / 1e6:.1f}"]
        cells += ["-" if one["ms_per_box_answer"] is None else f"{one['ms_per_box_answer']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    if content["paired"]:
        heads = [
            "score",
            "first",
            "second",
            "first (%)",
            "second (%)",
            "difference",
            "95 % interval",
            "p",
            "n",
            "groups",
        ]
        lines += ["", "| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for one in content["paired"]:
        low, high = one["interval"]
        values = [f"{100 * value:.1f}" for value in one["values"]]
        interval = "-" if low is None else f"{100 * low:+.1f} to {100 * high:+.1f}"
        p = "-" if one["p"] is None else f"{one['p']:.4f}"
        cells = [one["score"], one["first"], one["second"], *values, f"{100 * one['difference']:+.1f}", interval, p]
        lines.append("| " + " | ".join([*cells, str(one["n"]), str(one["groups"])]) + " |")
    return "\n".join(lines)


def _shown(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    values = [100 * value for value in found["values"]]
    text = f"{np.mean(values):.1f}"
    if len(values) > 1:
        text += f" ({min(values):.1f} to {max(values):.1f})"
    if found["interval"]:
        text += " [{:.1f} to {:.1f}]".format(*(100 * end for end in found["interval"]))
    return text + (f"; prior {100 * found['prior']['value']:.1f}" if found["prior"] else "")


def _named(pairs: Sequence[str]) -> dict[str, list[Path]]:
    """NAME=PATH, several times, to the paths of each name."""
    found: dict[str, list[Path]] = {}
    for pair in pairs:
        name, mark, path = pair.partition("=")
        if not (name and mark and path):
            raise SystemExit(f"{pair!r}: expected NAME=PATH")
        found.setdefault(name, []).append(Path(path))
    return found


def main() -> None:
    """Read, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", default=[], metavar="NAME=results.json", help="one seed of a row")
    parser.add_argument("--parameters", action="append", default=[], metavar="NAME=FOLDER", help="checkpoint of a row")
    parser.add_argument("--replies", action="append", default=[], metavar="NAME=FILE", help="predictions to test")
    parser.add_argument("--conversations", type=Path, help="the questions that --replies answer")
    parser.add_argument("--split", type=Split, default=Split.TEST, choices=list(Split))
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file whose rows are kept and added to")
    parser.add_argument("--markdown", type=Path, help="write the table there, too")
    options = parser.parse_args()
    if options.replies and not options.conversations:
        parser.error("--replies needs --conversations, the file of questions that they answer")
    place = options.json or RESULTS
    kept = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {"rows": {}, "paired": []}
    sizes = {name: parameters_of(places[0]) for name, places in _named(options.parameters).items()}
    for name, files in _named(options.row).items():
        kept["rows"][name] = row(files, options.split, sizes.get(name))
    if options.replies:
        tests = paired(_named(options.replies), options.conversations, options.resamples, options.seed)
        named = {(one["score"], one["first"], one["second"]) for one in tests}
        others = [one for one in kept["paired"] if (one["score"], one["first"], one["second"]) not in named]
        kept["paired"] = [*others, *tests]
    text = table(kept)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
