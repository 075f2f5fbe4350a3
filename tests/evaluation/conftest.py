"""Made-up questions, replies and run folders: flat-colour images with rectangles, every number chosen in sight."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from gastrovl.clinical.answers import format_labels
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.boxtext import encode_boxes
from gastrovl.core.manifest import write_manifest
from gastrovl.core.records import write_records
from gastrovl.core.types import Box, Conversation, ImageRef, Prediction, Split, Target, Task, Turn
from gastrovl.evaluation.questions import Question, questions_of

COLOURS = {
    "esophagitis": (196, 92, 84),
    "gastric_polyp": (214, 150, 110),
    "gastric_ulcer": (150, 60, 50),
    "normal_stomach": (226, 140, 130),
}
QUESTIONS = {
    Task.CLS: "What does this image show?",
    Task.REC: "Where is the named thing?",
    Task.REG: "What is in the box?",
    Task.CAP: "Describe the image.",
}


def make_conversation(
    task: Task,
    name: str,
    *,
    terms: Sequence[str] = (),
    boxes: Sequence[Box] = (),
    caption: str = "",
    alternatives: Sequence[str] = (),
    source: str = "drawn",
    group: str | None = None,
    split: Split = Split.TEST,
    image: str = "images/drawn/0.png",
) -> Conversation:
    answer = {
        Task.CLS: lambda: format_labels(terms, Taxonomy.load()),
        Task.REG: lambda: format_labels(terms, Taxonomy.load()),
        Task.REC: lambda: encode_boxes(boxes),
    }.get(task, lambda: caption)()
    question = f"{QUESTIONS[task]} {encode_boxes(boxes)}" if task is Task.REG else QUESTIONS[task]
    return Conversation(
        id=name,
        sample_id=name.split("#")[0],
        task=task,
        image=ImageRef(path=image, width_px=320, height_px=240, sha256=hashlib.sha256(image.encode()).hexdigest()),
        source=source,
        group=group or name,
        split=split,
        turns=(
            Turn(role="user", text=question),
            Turn(role="assistant", text=answer, alternatives=tuple(alternatives)),
        ),
        target=Target(terms=tuple(terms), boxes=tuple(boxes)),
    )


def make_prediction(conversation_id: str, text: str) -> Prediction:
    return Prediction(conversation_id=conversation_id, text=text, model="made-up", seconds=0.25, stop_reason="end")


@pytest.fixture
def conversation() -> Callable[..., Conversation]:
    return make_conversation


@pytest.fixture
def question() -> Callable[..., Question]:
    """As `conversation`, in the form in which it is scored."""
    return lambda *given, **named: next(questions_of([make_conversation(*given, **named)]))


@pytest.fixture
def prediction() -> Callable[[str, str], Prediction]:
    return make_prediction


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, for it takes seconds; tests get copies and may spoil them."""
    folder = tmp_path_factory.mktemp("finished")
    write_dataset(folder / "data", {Split.TRAIN: 24, Split.VAL: 12, Split.TEST: 16})
    return write_run(folder)


@pytest.fixture
def made_up_dataset(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run / "data", tmp_path / "data"))


@pytest.fixture(scope="session")
def reply_with() -> Callable[[Path, Path, Callable[[Conversation], str]], Path]:
    return write_replies


@pytest.fixture
def made_up_run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def write_dataset(folder: Path, images: dict[Split, int]) -> Path:
    """A dataset folder of two sources: each image one colour per term, one or two lesions as rectangles."""
    first = 0
    for split, count in images.items():
        rows = [one for index in range(first, first + count) for one in _conversations(folder, index, split)]
        write_records(folder / f"{split}.jsonl", rows)
        first += count
    write_manifest(folder, stage="data build", config={"seed": 7}, seed=7, licences={"drawn": "Apache-2.0"})
    return folder


def _conversations(folder: Path, index: int, split: Split) -> Iterable[Conversation]:
    generator = random.Random(index)
    source = "drawn" if index % 3 else "sketched"
    term = list(COLOURS)[index % 4]
    path = f"images/{source}/{index}.png"
    count = 0 if term == "normal_stomach" else 1 + (index % 5 == 0)
    boxes = [_box(generator, place) for place in range(count)]
    _draw(folder / path, COLOURS[term], boxes, generator)
    name = Taxonomy.load()[term].name
    common: dict[str, Any] = {"source": source, "group": f"exam-{index // 2}", "split": split, "image": path}
    yield make_conversation(Task.CLS, f"{source}/{index}#CLS-0", terms=[term], **common)
    yield make_conversation(
        Task.REC, f"{source}/{index}#REC-0", terms=[term if boxes else "esophagitis"], boxes=boxes, **common
    )
    for place, box in enumerate(boxes):
        yield make_conversation(Task.REG, f"{source}/{index}#REG-{place}", terms=[term], boxes=[box], **common)
    side = "left" if not boxes or boxes[0].x0 < 0.3 else "right"
    caption = f"The view shows {name} on the {side} side of the picture number {index % 6}."
    yield make_conversation(Task.CAP, f"{source}/{index}#CAP-0", terms=[term], caption=caption, **common)


def _box(generator: random.Random, place: int) -> Box:
    x0, y0 = generator.uniform(0.05, 0.3) + 0.45 * place, generator.uniform(0.05, 0.5)
    return Box(x0=x0, y0=y0, x1=x0 + generator.uniform(0.12, 0.22), y1=y0 + generator.uniform(0.15, 0.4))


def _draw(path: Path, colour: tuple[int, int, int], boxes: Sequence[Box], generator: random.Random) -> None:
    shade = generator.randint(-20, 20)
    image = Image.new("RGB", (320, 240), tuple(max(0, min(255, part + shade)) for part in colour))
    pen = ImageDraw.Draw(image)
    for box in boxes:
        pen.ellipse((box.x0 * 320, box.y0 * 240, box.x1 * 320, box.y1 * 240), fill=(120, 30, 40))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_replies(conversations: Path, predictions: Path, reply: Callable[[Conversation], str]) -> Path:
    lines = [Conversation.model_validate(_untagged(line)) for line in conversations.read_text("utf-8").splitlines()]
    write_records(predictions, [make_prediction(one.id, reply(one)) for one in lines])
    return predictions


def _untagged(line: str) -> dict[str, Any]:
    content = json.loads(line)
    del content["schema"]
    return dict(content)


def write_run(folder: Path) -> Path:
    """A finished run around `folder/data`: training log, replies that are right three times in four, evaluations."""
    from gastrovl.evaluation.evaluate import evaluate

    (folder / "train").mkdir()
    with (folder / "train" / "log.jsonl").open("w", encoding="utf-8") as stream:
        for step in range(10, 301, 10):
            stage = "align" if step <= 100 else "instruct"
            entry = {
                "step": step,
                "epoch": step / 50,
                "stage": stage,
                "loss": 4.0 / (1 + step / 40),
                "learning_rate": 1e-3,
            }
            stream.write(json.dumps(entry) + "\n")
            if step % 50 == 0:
                scores = {
                    "eval_loss": 4.4 / (1 + step / 40),
                    "eval_CLS_accuracy": step / 320,
                    "eval_REC_acc@0.5": step / 450,
                }
                stream.write(json.dumps({"step": step, "epoch": step / 50, "stage": stage, **scores}) + "\n")
    write_manifest(folder / "train", stage="train", config={"stages": ["align", "instruct"]}, seed=7)
    write_manifest(folder, stage="run", config={"name": "made-up", "seed": 7}, seed=7)
    for split in ("val", "test"):
        conversations = folder / "data" / f"{split}.jsonl"
        predictions = write_replies(conversations, folder / "predictions" / f"{split}.jsonl", _mixed_reply)
        evaluate(predictions, conversations, folder / "evaluation" / split, resamples=50, seed=7)
    return folder


def _mixed_reply(one: Conversation) -> str:
    generator = random.Random(one.id)
    if generator.random() < 0.7:
        return one.answer
    if generator.random() < 0.15:
        return "I cannot say"
    if one.task is Task.REC:
        return encode_boxes([_box(generator, 0)])
    if one.task is Task.CAP:
        return "The view shows normal stomach on the left."
    return "gastric ulcer"
