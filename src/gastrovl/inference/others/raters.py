"""People's answers in a CSV to files of predictions, one a rater; and the empty CSV that they fill in.

A person's slip can still be put right, so what could not be scored is refused with its row, in the place of counting as
wrong. `unsure` is an answer: it is kept, and counts as unread.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gastrovl.clinical.answers import ParseFailure, parse_answer
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import records
from gastrovl.core.errors import OutputError, RecordError
from gastrovl.core.files import atomic_path, sha256_file
from gastrovl.core.replyform import BoxForm, ReplyForm, Scale
from gastrovl.core.types import Conversation, Prediction, Task
from gastrovl.inference.runrecord import summarise, write_run

UNSURE = "unsure"
EDGES = ("x0_px", "y0_px", "x1_px", "y1_px")  # pixels of the original image
TEMPLATE = ("conversation_id", "image", "task", "question", "answer", *EDGES, "seconds", "confidence")
_PIXELS = ReplyForm(boxes=BoxForm(scale=Scale.PIXELS, pixels_of="original"))
_RATER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STARTS_A_FORMULA = tuple("=+-@\t\r")
_NAMED = 5  # rows or ids shown in a message


@dataclass
class _Answer:
    """What one person said to one question."""

    row: int
    text: str
    boxes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    confidence: float | None = None

    def prediction(self, conversation: Conversation, rater: str) -> Prediction:
        in_pixels = bool(self.boxes)
        return Prediction(
            conversation_id=conversation.id,
            text=" ".join(self.boxes) if in_pixels else self.text,
            confidence=self.confidence,
            model=rater,
            seconds=self.seconds,
            stop_reason="external",
            form=_PIXELS if in_pixels else None,
            image_wh=conversation.image.size_wh if in_pixels else None,
        )


def write_template(conversations: Path, output: Path, *, is_replaced: bool = False) -> int:
    """Write the questions of a file as a CSV with empty answers, and their images beside it; returns how many.

    Ids and names of images can name the truth (a set may keep its classes in folders), so both are codes here;
    `read_raters` knows them. Cells that a spreadsheet would take for a formula open with an apostrophe.

    Raises:
        OutputError: `output` exists and `is_replaced` is False, or cannot be written.
        RecordError, OSError: The conversations or an image are missing.
    """
    conversations, output = Path(conversations), Path(output)
    folder = output.with_name(f"{output.stem}-images")
    if (output.exists() or folder.exists()) and not is_replaced:
        raise OutputError(f"{output} or {folder} exists already; choose another -o, or pass --overwrite")
    rows = []
    for one in records.read_records(conversations, Conversation):
        picture = folder / f"{_code(one.image.path)}{Path(one.image.path).suffix}"
        picture.parent.mkdir(parents=True, exist_ok=True)
        if not picture.exists():
            shutil.copyfile(conversations.parent / one.image.path, picture)
        said = [f"{'Q' if turn.role == 'user' else 'A'}: {turn.text}" for turn in one.turns[:-1]]
        question = one.turns[-2].text if len(said) == 1 else "\n".join(said)
        filled = {
            "conversation_id": _code(one.id),
            "image": f"{folder.name}/{picture.name}",
            "task": one.task.value,
            "question": question,
        }
        rows.append({name: _safe(filled.get(name, "")) for name in TEMPLATE})
    with atomic_path(output) as temporary, temporary.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, TEMPLATE)
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def read_raters(
    answers: Path, conversations: Path, output: Path, *, is_replaced: bool = False
) -> list[tuple[Path, int]]:
    """Write the predictions of each rater of a CSV; returns their files with the number of answers.

    Columns: conversation_id (or its code), answer, and if wanted rater, seconds, confidence (0-1) and four pixel edges
    of a box, of which a question may have several rows. Other columns are passed over. Labels are names or synonyms of
    the taxonomy; boxes are our answer text, pixels of the original image, or `absent`.

    Args:
        output: The file of predictions; with a column `rater`, the folder that gets RATER.jsonl of each.

    Raises:
        RecordError: A column is missing, or rows are wrong, missing or double; the message names them.
        OutputError: A file exists and `is_replaced` is False.
    """
    asked = {one.id: one for one in records.read_records(Path(conversations), Conversation)}
    if not asked:
        raise RecordError(f"{conversations}: holds no conversation")
    has_raters, found = _read(Path(answers), asked)
    paths = {rater: Path(output) / f"{rater}.jsonl" if has_raters else Path(output) for rater in found}
    for path in paths.values():
        if path.exists() and not is_replaced:
            raise OutputError(f"{path} exists already; choose another -o, or pass --overwrite")
    for rater, path in paths.items():
        predictions = [found[rater][name].prediction(one, rater) for name, one in asked.items()]
        records.write_records(path, predictions)
        run = summarise(
            predictions,
            model=rater,
            fingerprint=sha256_file(answers),
            conversations=sha256_file(conversations),
            asked_now=len(predictions),
            seconds_now=0.0,
        )
        write_run(path, run)
    return [(path, len(asked)) for path in paths.values()]


def _read(path: Path, asked: Mapping[str, Conversation]) -> tuple[bool, dict[str, dict[str, _Answer]]]:
    """Whether raters are named, and the answers of each by conversation id."""
    codes = {_code(name): name for name in asked}
    found: dict[str, dict[str, _Answer]] = {}
    wrong: list[str] = []
    has_raters = False
    for row, cells in _rows(path):
        has_raters = "rater" in cells
        name = cells["conversation_id"] if cells["conversation_id"] in asked else codes.get(cells["conversation_id"])
        rater = cells.get("rater", path.stem)
        if name is None:
            wrong.append(f"row {row}: no conversation {cells['conversation_id']!r} in the file that was asked")
        elif not _RATER.fullmatch(rater):
            wrong.append(f"row {row}: rater {rater!r}; expected a short name of letters, digits, '.', '-' and '_'")
        else:
            try:
                _add(found.setdefault(rater, {}), row, cells, asked[name])
            except ValueError as error:
                wrong.append(f"row {row}: {error}")
    for rater, given in found.items():
        missing = [_shown(name, codes) for name in asked if name not in given]
        if missing and not wrong:
            wrong.append(f"rater {rater}: {len(missing)} of {len(asked)} questions have no row: {_some(missing, ', ')}")
    if wrong or not found:
        raise RecordError(f"{path}: {_some(wrong, chr(10)) if wrong else 'holds no answer'}")
    return has_raters, found


def _add(given: dict[str, _Answer], row: int, cells: Mapping[str, str], asked: Conversation) -> None:
    """Take one row into a rater's answers.

    Raises:
        ValueError: It is no answer to its question, or a second one.
    """
    edges = [cells.get(name, "") for name in EDGES]
    text = cells["answer"]
    if any(edges):
        if asked.task is not Task.REC or not all(edges) or text:
            raise ValueError("pixel edges are for REC, all four of them, and without an answer beside them")
        box = f"[{', '.join(edges)}]"
        _check(Task.REC, box, asked, _PIXELS)
        if asked.id in given and given[asked.id].boxes:
            given[asked.id].boxes.append(box)
            return
        answer = _Answer(row, "", [box])
    else:
        if not text:
            raise ValueError(f"no answer; write {UNSURE!r} where there is none")
        if text.casefold() != UNSURE:
            _check(asked.task, text, asked, None)
        answer = _Answer(row, text)
    if asked.id in given:
        raise ValueError(f"a second answer to {asked.id!r}, the first stands in row {given[asked.id].row}")
    answer.seconds = _number(cells.get("seconds", ""), "seconds", math.inf) or 0.0
    answer.confidence = _number(cells.get("confidence", ""), "confidence", 1.0)
    given[asked.id] = answer


def _check(task: Task, text: str, asked: Conversation, form: ReplyForm | None) -> None:
    answer = parse_answer(task, text, Taxonomy.load(), form, asked.image.size_wh)
    if isinstance(answer, ParseFailure):
        raise ValueError(answer.reason)


def _number(text: str, name: str, most: float) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most or math.isinf(value):
        raise ValueError(f"{name} {text!r}; expected a number from 0" + (f" to {most:g}" if most < math.inf else " on"))
    return value


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows that are not blank, each with the line in which it ends; cells without surrounding white space."""
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a CSV of answers (--template writes an empty one)")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            head = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=";" if head.count(";") > head.count(",") else ",", strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            if missing := {"conversation_id", "answer"} - set(names):
                raise RecordError(
                    f"{path}:1: has the columns {', '.join(names)}; expected also {', '.join(sorted(missing))}"
                )
            for cells in reader:
                if None in cells:
                    raise RecordError(
                        f"{path}: row {reader.line_num}: more cells than columns; put an answer with a comma in quotes"
                    )
                kept = {name: _unsafe((value or "").strip()) for name, value in cells.items()}
                if any(kept.values()):
                    yield reader.line_num, kept
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordError(f"{path}: cannot be read as a CSV in UTF-8 ({error}); save it as such") from error


def _code(name: str) -> str:
    """An id or path without what it says."""
    return "q" + hashlib.sha256(name.encode()).hexdigest()[:15]


def _shown(name: str, codes: Mapping[str, str]) -> str:
    return f"{name} ({next(code for code, one in codes.items() if one == name)})"


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_STARTS_A_FORMULA) else text


def _unsafe(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_STARTS_A_FORMULA) else text


def _some(parts: list[str], joint: str) -> str:
    more = f"{joint}and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return joint.join(parts[:_NAMED]) + more
