"""Task folders of other harnesses, loaded as each harness loads them, and scored as `gastrovl evaluate` would.

Neither harness is installed here: the loaders below follow their published code (lmms-eval's `!function` and
`load_dataset("parquet", data_files=...)`; VLMEvalKit's TSV, image column and `evaluate(eval_file)`).
"""

from __future__ import annotations

import base64
import csv
import importlib.util
import io
import json
import math
import sys
import types

import pytest
import yaml
from datasets import load_dataset
from PIL import Image

from gastrovl.core.boxtext import decode_boxes
from gastrovl.core.records import from_line, read_records, write_records
from gastrovl.core.types import Conversation, Split, Target, Task, Turn
from gastrovl.data.exporters import export_dataset
from gastrovl.data.exporters.harnesses import METRICS
from gastrovl.evaluation.harness import harness_scores

CAPTION = "A clean ulcer of the gastric antrum."


@pytest.fixture
def dataset(whole_dataset):
    """`whole_dataset` with answerable questions of five tasks in its test split."""
    path = whole_dataset / "test.jsonl"
    (first, *_) = read_records(path, Conversation)
    answers = {
        Task.CLS: "gastric ulcer",
        Task.REC: "[000,000,500,999]",
        Task.REG: "gastric ulcer",
        Task.CAP: CAPTION,
        Task.VQA: "antrum",
    }
    asked = []
    for task, answer in answers.items():
        turns = [Turn(role="user", text=f"{task}?"), Turn(role="assistant", text=answer)]
        if task is Task.REG:
            turns = [Turn(role="user", text="Where?"), Turn(role="assistant", text="Here."), *turns]
        boxes = decode_boxes("[000,000,500,999]") if task is Task.REC else ()
        target = Target(terms=("gastric_ulcer",), boxes=boxes)
        fields = {"id": f"{first.sample_id}#{task}", "task": task, "turns": tuple(turns), "target": target}
        asked.append(first.model_copy(update=fields))
    write_records(path, asked)
    return whole_dataset


def load_module(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_task(path):
    """A task's YAML with its functions, as lmms-eval reads one."""
    utils = load_module(path.parent / "utils.py", "utils")

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        module, name = loader.construct_scalar(node).split(".")
        assert module == "utils"
        return getattr(utils, name)

    Loader.add_constructor("!function", function)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506 (a safe loader of this test)


def run_task(path, answer, monkeypatch, tmp_path):
    """Scores of one task when `answer(document, prompt)` is the model."""
    task = load_task(path)
    monkeypatch.chdir(path.parent)  # as its README says
    rows = load_dataset(task["dataset_path"], cache_dir=str(tmp_path / "cache"), **task["dataset_kwargs"])
    gathered = {}
    for doc in rows[task["test_split"]]:
        (picture,) = task["doc_to_visual"](doc)
        assert picture.mode == "RGB"
        prompt = task["doc_to_text"](doc, task["lmms_eval_specific_kwargs"]["default"])
        bare = {name: value for name, value in doc.items() if name != "image"}  # what the harness scores with
        for metric, value in task["process_results"](bare, [answer(bare, prompt)]).items():
            gathered.setdefault(metric, []).append(value)
    metrics = {one["metric"]: one for one in task["metric_list"]}
    assert gathered.keys() == metrics.keys()
    return {name: one["aggregation"](gathered[name]) for name, one in metrics.items()}


def test_an_lmms_eval_folder_scores_the_true_answers_as_perfect(dataset, tmp_path, monkeypatch):
    folder = export_dataset(dataset, "lmms-eval", tmp_path / "lmms")

    group = yaml.safe_load((folder / "_gastroinst_test.yaml").read_text(encoding="utf-8"))
    assert group["group"] == "gastroinst_test"
    assert group["task"] == [f"gastroinst_{task}_test" for task in ("cls", "rec", "reg", "cap", "vqa")]
    scores = {
        name: run_task(folder / f"{name}.yaml", lambda doc, _: doc["answer"], monkeypatch, tmp_path)
        for name in group["task"]
    }

    assert scores["gastroinst_cls_test"] == {"accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "unparsed": 0}
    rec = scores["gastroinst_rec_test"]
    assert (rec["acc@0.5"], rec["mean_iou"], rec["unparsed"]) == (1, 1, 0)
    assert math.isnan(rec["presence_balanced"])  # nothing absent was asked for
    cap = scores["gastroinst_cap_test"]
    assert (cap["rougeL"], cap["fact_f1"], cap["contradictions"]) == (1, 1, 0)
    listed = load_task(folder / "gastroinst_cap_test.yaml")["metric_list"]
    assert [one["metric"] for one in listed if not one["higher_is_better"]] == ["contradictions", "unparsed"]
    assert scores["gastroinst_vqa_test"] == {"exact_match": 1, "unparsed": 0}


def test_an_unreadable_reply_counts_as_wrong_in_lmms_eval(dataset, tmp_path, monkeypatch):
    folder = export_dataset(dataset, "lmms-eval", tmp_path / "lmms")

    found = run_task(folder / "gastroinst_cls_test.yaml", lambda *_: "I see an ulcer.", monkeypatch, tmp_path)

    assert (found["accuracy"], found["unparsed"]) == (0, 1)


def test_a_prompt_says_how_to_answer_and_holds_an_earlier_exchange(dataset, tmp_path, monkeypatch):
    folder = export_dataset(dataset, "lmms-eval", tmp_path / "lmms")
    prompts = []
    for name in ("cls", "rec", "reg"):
        run_task(
            folder / f"gastroinst_{name}_test.yaml",
            lambda doc, prompt: prompts.append(prompt) or doc["answer"],
            monkeypatch,
            tmp_path,
        )
    cls, rec, reg = prompts
    assert "gastric ulcer; " in cls
    assert "whole numbers 0-999" in rec
    assert "gastric ulcer" not in rec
    assert reg.startswith("Question: Where?\nAnswer: Here.\nQuestion: REG?\n")


def test_the_validation_split_has_its_own_tasks(dataset, tmp_path):
    folder = export_dataset(dataset, "lmms-eval", tmp_path / "lmms")
    assert (folder / "gastroinst_rec_val.yaml").is_file()
    assert not list(folder.rglob("*train*"))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["licences"] == {"other": "CC0"}


def test_every_metric_that_is_named_exists(dataset):
    lines = (dataset / "test.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        one = from_line(line, Conversation, "x")
        assert set(METRICS[one.task]) <= set(harness_scores([line], [one.answer]))


def read_tsv(path):
    csv.field_size_limit(10**8)
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_a_vlmevalkit_table_holds_pictures_questions_and_answers(dataset, tmp_path):
    folder = export_dataset(dataset, "vlmevalkit", tmp_path / "kit")

    rows = read_tsv(folder / "GastroINST_test.tsv")

    assert [row["index"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [row["category"] for row in rows] == ["CLS", "REC", "REG", "CAP", "VQA"]
    assert {row["split"] for row in rows} == {"test"}
    assert Image.open(io.BytesIO(base64.b64decode(rows[0]["image"]))).size == (100, 50)
    assert [row["image"] for row in rows[1:]] == ["0"] * 4  # a short cell names the row that holds the picture
    assert len(rows[0]["image"]) > 64
    assert "whole numbers 0-999" in rows[1]["question"]
    assert rows[3]["answer"] == CAPTION


@pytest.fixture
def vlmeval(monkeypatch, dataset, tmp_path):
    """As much of VLMEvalKit as a dataset class touches, with tables as dicts of columns."""
    folder = export_dataset(dataset, "vlmevalkit", tmp_path / "kit")

    def load(path):
        rows = read_tsv(type(tmp_path)(path))
        return {name: [row[name] for row in rows] for name in rows[0]}

    class ImageBaseDataset:
        def __init__(self, dataset):
            self.data = self.load_data(dataset)

        @classmethod
        def supported_datasets(cls):
            return list(cls.DATASET_URL)

    def dump(content, path):
        type(tmp_path)(path).write_text(json.dumps(content), encoding="utf-8")

    names = ("vlmeval", "vlmeval.dataset", "vlmeval.dataset.image_base", "vlmeval.smp")
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["vlmeval.dataset.image_base"].ImageBaseDataset = ImageBaseDataset
    smp = sys.modules["vlmeval.smp"]
    smp.load, smp.dump, smp.LMUDataRoot = load, dump, lambda: str(folder)
    return load_module(folder / "gastroinst.py", "gastroinst").GastroINST


def test_the_vlmevalkit_class_scores_a_file_of_predictions(vlmeval, tmp_path):
    assert vlmeval.supported_datasets() == ["GastroINST_val", "GastroINST_test"]
    made = vlmeval("GastroINST_test")
    replies = [*made.data["answer"]]
    replies[2] = "an ulcer, I think"
    table = tmp_path / "model_GastroINST_test.tsv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows(
            [("index", "prediction"), *zip(made.data["index"], replies, strict=True)]
        )

    scores = made.evaluate(str(table))

    assert (scores["CLS accuracy"], scores["REC acc@0.5"], scores["CAP rougeL"]) == (1, 1, 1)
    assert (scores["REG accuracy"], scores["REG unparsed"], scores["CLS unparsed"]) == (0, 1, 0)
    assert json.loads((tmp_path / "model_GastroINST_test_score.json").read_text(encoding="utf-8")) == scores


def test_only_questions_of_val_and_test_leave(dataset, tmp_path):
    folder = export_dataset(dataset, "vlmevalkit", tmp_path / "kit")
    assert sorted(path.name for path in folder.glob("*.tsv")) == ["GastroINST_test.tsv", "GastroINST_val.tsv"]
    splits = {row["split"] for name in Split for path in folder.glob(f"*_{name}.tsv") for row in read_tsv(path)}
    assert splits == {"val", "test"}
