"""A dataset folder's val and test questions to task folders of other evaluation harnesses: lmms-eval and VLMEvalKit.

Questions ask for our own answer texts, and replies go to `gastrovl.evaluation.harness`, so that a score is the one that
`gastrovl evaluate` gives. The harness needs this package installed (without PyTorch) beside its own.
"""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.files import write_text
from gastrovl.core.records import to_line
from gastrovl.core.types import Conversation, Split, Task
from gastrovl.data.exporters.parquet import RowFile
from gastrovl.data.exporters.streamed import BuiltImage, stream_built

SPLITS = (Split.VAL, Split.TEST)
_LABELS = "accuracy", "balanced_accuracy", "macro_f1", "unparsed"
_TEXTS = "bleu4", "rouge1", "rouge2", "rougeL", "fact_f1", "negation_accuracy", "contradictions", "unparsed"
_LOWER_IS_BETTER = ("contradictions", "unparsed")
METRICS = {
    Task.CLS: _LABELS,
    Task.REC: ("acc@0.5", "acc@0.3", "acc@0.75", "mean_iou", "centre_hit", "presence_balanced", "unparsed"),
    Task.REG: _LABELS,
    Task.CAP: _TEXTS,
    Task.VQA: ("exact_match", "unparsed"),
    Task.REPORT: _TEXTS,
}
ROOM = {Task.CLS: 64, Task.REC: 192, Task.REG: 64, Task.CAP: 256, Task.VQA: 64, Task.REPORT: 768}
_BOXES = (
    "Boxes are [x0,y0,x1,y1], whole numbers 0-999 of the width and the height of the image from its top left corner."
)
_PROMPTS = {
    Task.CLS: "Answer with the exact name of one label of this list, or with several joined by '; ', only: ",
    Task.REC: f"{_BOXES} Answer with a box for each place and nothing else, or with absent if it is not in the image.",
    Task.REG: f"{_BOXES} Answer with the exact name of one label of this list and nothing else: ",
    Task.VQA: f"{_BOXES} Answer as briefly as possible.",
}
_TEMPLATES = Path(__file__).with_name("templates")


def write_lmms_eval(dataset: Path, folder: Path) -> dict[str, str]:
    """Task YAMLs, groups, utils.py and a Parquet file a task and split; returns the licence of each source.

    Raises:
        MissingExtraError: pyarrow is not installed.
        RecordError, SourceError, ImageError: `dataset` is no whole dataset folder.
    """
    licences: dict[str, str] = {}
    files: dict[tuple[Split, Task], RowFile] = {}
    try:
        for built, split, one in _questions(dataset, licences):
            place = folder / "data" / f"{one.task.value.lower()}-{split}.parquet"
            if (split, one.task) not in files:
                files[split, one.task] = RowFile(place)
            image = {"bytes": built.path.read_bytes(), "path": f"image{built.path.suffix}"}
            files[split, one.task].add({"image": image, **_row(one)})
    finally:
        for file in files.values():
            file.close()
    labels = _label_list()
    for split in dict.fromkeys(split for split, _ in files):
        tasks = [task for task in Task if (split, task) in files]
        for task in tasks:
            name = _task_name(task, split)
            write_text(folder / f"{name}.yaml", _task_yaml(task, split, labels))
        group = {"group": f"gastroinst_{split}", "task": [_task_name(task, split) for task in tasks]}
        write_text(folder / f"_gastroinst_{split}.yaml", yaml.safe_dump(group, sort_keys=False))
    write_text(folder / "utils.py", _lmms_functions())
    write_text(folder / "README.md", _LMMS_NOTE)
    return licences


def write_vlmevalkit(dataset: Path, folder: Path) -> dict[str, str]:
    """GastroINST_SPLIT.tsv and the file of a dataset class; returns the licence of each source.

    Raises:
        RecordError, SourceError, ImageError: `dataset` is no whole dataset folder.
    """
    licences: dict[str, str] = {}
    names = ("index", "image", "question", "answer", "category", "split", "source", "conversation")
    streams: dict[Split, Any] = {}
    writers: dict[Split, Any] = {}
    rows: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    first: dict[tuple[Split, str], int] = {}  # the row that holds a picture; later ones name that row
    labels = _label_list()
    try:
        for built, split, one in _questions(dataset, licences):
            if split not in writers:
                streams[split] = (folder / f"GastroINST_{split}.tsv").open("w", encoding="utf-8", newline="")
                writers[split] = csv.writer(streams[split], delimiter="\t", lineterminator="\n")
                writers[split].writerow(names)
            key, index = (split, built.sample.id), rows[split]
            picture = str(first[key]) if key in first else base64.b64encode(built.path.read_bytes()).decode("ascii")
            first.setdefault(key, index)
            said = _row(one)
            question = f"{said['question']}{_added(one.task, labels)}"
            cells = (index, picture, question, one.answer, one.task.value, split.value, one.source, to_line(one))
            writers[split].writerow(cells)
            rows[split] += 1
    finally:
        for stream in streams.values():
            stream.close()
    listed = tuple(f"GastroINST_{split}" for split in streams)
    code = (_TEMPLATES / "vlmevalkit_dataset.py.txt").read_text(encoding="utf-8")
    write_text(folder / "gastroinst.py", code.replace("in NAMES}", f"in {listed!r}}}"))
    write_text(folder / "README.md", _VLMEVALKIT_NOTE)
    return licences


def _questions(dataset: Path, licences: dict[str, str]) -> Iterator[tuple[BuiltImage, Split, Conversation]]:
    for built in stream_built(dataset):
        for split in SPLITS:
            for one in built.conversations.get(split.value, ()):
                licences[built.sample.source] = built.sample.licence
                yield built, split, one


def _row(one: Conversation) -> dict[str, Any]:
    """The columns of a question; of a dialogue, what was said before stands before it."""
    *before, last = one.turns[:-1]
    said = [f"{'Question' if turn.role == 'user' else 'Answer'}: {turn.text}" for turn in before]
    return {
        "id": one.id,
        "task": one.task.value,
        "question": "\n".join([*said, f"Question: {last.text}"]) if said else last.text,
        "answer": one.answer,
        "source": one.source,
        "group": one.group,
        "conversation": to_line(one),
    }


def _label_list() -> str:
    return "; ".join(term.name for term in Taxonomy.load().terms)


def _added(task: Task, labels: str) -> str:
    prompt = _PROMPTS.get(task)
    return "" if prompt is None else f"\n{prompt}{labels if task in (Task.CLS, Task.REG) else ''}"


def _task_name(task: Task, split: Split) -> str:
    return f"gastroinst_{task.value.lower()}_{split}"


class _Function(str):
    """A function of utils.py, as lmms-eval names one in YAML."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Function, lambda dumper, name: dumper.represent_scalar("!function", str(name)))


def _task_yaml(task: Task, split: Split, labels: str) -> str:
    content = {
        "task": _task_name(task, split),
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": f"data/{task.value.lower()}-{split}.parquet"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_visual": _Function("utils.doc_to_visual"),
        "doc_to_text": _Function("utils.doc_to_text"),
        "doc_to_target": _Function("utils.doc_to_target"),
        "process_results": _Function("utils.process_results"),
        "generation_kwargs": {"max_new_tokens": ROOM[task], "temperature": 0, "num_beams": 1, "do_sample": False},
        "metric_list": [
            {
                "metric": metric,
                "aggregation": _Function(f"utils.{_function_of(metric)}"),
                "higher_is_better": metric not in _LOWER_IS_BETTER,
            }
            for metric in METRICS[task]
        ],
        "lmms_eval_specific_kwargs": {"default": {"pre_prompt": "", "post_prompt": _added(task, labels)}},
        "metadata": [{"version": 1.0}],
    }
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _function_of(metric: str) -> str:
    return "score_" + "".join(letter if letter.isalnum() else "_" for letter in metric)


def _lmms_functions() -> str:
    """utils.py: lmms-eval names a function for each metric, so each has one."""
    body = (_TEMPLATES / "lmms_eval_utils.py.txt").read_text(encoding="utf-8")
    table = "".join(f'    "{task.value}": {list(metrics)!r},\n' for task, metrics in METRICS.items())
    every = dict.fromkeys(metric for metrics in METRICS.values() for metric in metrics)
    scorers = "\n\n".join(f"def {_function_of(one)}(results):\n    return _score(results, {one!r})\n" for one in every)
    return f"{body}METRICS = {{\n{table}}}\n\n\n{scorers}"


_LMMS_NOTE = """# GastroINST for lmms-eval

Install `gastrovl[evaluate]` beside lmms-eval, then, in this folder (paths in the YAML files are relative to it):

```
python -m lmms_eval --include_path . --tasks gastroinst_test --model MODEL --model_args ... --output_path out
```

`gastroinst_val` are the questions of the validation split; `gastroinst_cls_test` and the like are single tasks. Scores
are those of `gastrovl evaluate` without intervals; `unparsed` is the share of replies that could not be read, which
count as wrong. An undefined score is NaN.
"""
_VLMEVALKIT_NOTE = """# GastroINST for VLMEvalKit

Install `gastrovl[evaluate]` beside VLMEvalKit. Copy the TSV files to `$LMUData` and `gastroinst.py` to
`vlmeval/dataset/`, and name the class in `vlmeval/dataset/__init__.py`: import `GastroINST` and add it to
`IMAGE_DATASET`. Then:

```
python run.py --data GastroINST_test --model MODEL
```

Scores are those of `gastrovl evaluate` without intervals, by task; `unparsed` is the share of replies that could not be
read, which count as wrong.
"""
