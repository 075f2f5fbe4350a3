"""Replies to blinded rating sheets for people: one table a rater, instructions, and a key that raters must not see."""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from gastrovl.core.config import Config
from gastrovl.core.errors import OutputError
from gastrovl.core.files import sha256_file, whole_folder, write_text
from gastrovl.core.images import open_image
from gastrovl.core.manifest import write_manifest
from gastrovl.core.types import Task
from gastrovl.evaluation.judging.cases import Case, choose, read_cases, with_dialogue
from gastrovl.evaluation.judging.prompts import level_lines
from gastrovl.evaluation.judging.rubric import Criterion, Rubric, rubrics_of

KEY = "key.json"
KEY_SCHEMA = "gastrovl/rating-key/1"
SHEETS = "for-raters"
WARNING = (
    "Keep this file from the raters: it says whose reply each row is and which rows are shown twice. "
    "`gastrovl rate import` needs it."
)
_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # none that is taken for another
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would work out such a cell (CWE-1236)
_MOST_LETTERS = 30_000  # a cell of a spreadsheet holds 32,767
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_JPEG_QUALITY = 88
_PARTS = re.compile(r"[/+@()]")  # of the name of a model: owner, parts of a merge, version
_SHORTEST_NAME = 3  # letters; a shorter part of a name would blank out words of the reply


class SheetOptions(Config):
    """What raters get.

    Attributes:
        questions: In all; each comes with the reply of every model.
        repeated: Share of a sheet's rows that are shown to its rater once more, further below.
        with_images: Put scaled copies of the images, `most_side_px` on the longer side, beside the sheets.
    """

    tasks: tuple[Task, ...] | None = None
    raters: int = Field(default=3, ge=1, le=50)
    questions: int = Field(default=60, ge=1)
    repeated: float = Field(default=0.1, ge=0, le=0.5)
    seed: int = 7
    with_images: bool = False
    most_side_px: int = Field(default=1024, ge=64)


@dataclass(frozen=True)
class Row:
    """One reply on one sheet."""

    code: str
    case: Case
    model: str
    is_repeat: bool


def export_sheets(
    predictions: Sequence[Path],
    conversations: Path,
    output: Path,
    *,
    rubrics: Sequence[Rubric] = (),
    options: SheetOptions | None = None,
    is_replaced: bool = False,
    now: datetime | None = None,
) -> int:
    """Write `output/for-raters/` (rater-N.csv, instructions.md, images/) and `output/key.json`; returns rows a sheet.

    The sheets name no model; its name inside a reply becomes "[model]". Every rater has the same replies in another
    order.

    Raises:
        RecordError, PredictionError: A file is missing or broken, or replies do not fit the questions.
        ConfigError: There is no rubric for a task.
        ImageError: An image is missing or broken.
        OutputError: `output` cannot be written or holds something else.
    """
    options, conversations = options or SheetOptions(), Path(conversations)
    files = [Path(path) for path in predictions]
    every = read_cases(files, conversations)
    chosen = choose(every, tasks=options.tasks, most=options.questions, seed=options.seed, per_task=False)
    cases = with_dialogue(chosen, conversations)
    by_task = rubrics_of(tuple(rubrics), {one.task for one in cases})
    criteria = next(iter(by_task.values())).criteria
    generator = random.Random(options.seed)
    picture_of = _pictures(cases, generator) if options.with_images else {}
    sheets = {f"rater-{number}": rows for number, rows in enumerate(_sheets(cases, options, generator), start=1)}
    with whole_folder(Path(output), is_replaced=is_replaced) as folder:
        for rater, rows in sheets.items():
            write_text(folder / SHEETS / f"{rater}.csv", to_csv(rows, criteria, picture_of))
        write_text(folder / SHEETS / "instructions.md", instructions(by_task, has_images=options.with_images))
        for name, path in _unique(cases, picture_of, conversations.parent):
            _copy(path, folder / SHEETS / "images" / name, options.most_side_px)
        write_text(folder / KEY, json.dumps(_key(sheets, by_task, criteria), indent=1, ensure_ascii=False) + "\n")
        inputs = {f"predictions: {path.name}": sha256_file(path) for path in files}
        inputs[f"conversations: {conversations.name}"] = sha256_file(conversations)
        write_manifest(
            folder,
            stage="rate export",
            config=options.model_dump(mode="json"),
            seed=options.seed,
            inputs=inputs,
            now=now,
        )
    return len(next(iter(sheets.values())))


def to_csv(rows: Iterable[Row], criteria: Sequence[Criterion], picture_of: Mapping[str, str]) -> str:
    """A sheet as CSV with a byte order mark, by which spreadsheet programs know UTF-8."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\r\n")
    heads = [f"{one.name} ({one.span})" for one in criteria]
    writer.writerow(
        ["row", "task", *(["image"] if picture_of else []), "question", "reference", "reply", *heads, "comment"]
    )
    for row in rows:
        case = row.case
        texts = [case.question, case.reference, blinded(case.replies[row.model], case.replies)]
        image = [f"images/{picture_of[case.image_sha256]}"] if picture_of else []
        writer.writerow([row.code, case.task.value, *image, *map(safe_cell, texts), *[""] * len(heads), ""])
    return "\ufeff" + stream.getvalue()


def safe_cell(text: str) -> str:
    """A text that a spreadsheet shows and does not work out: an apostrophe before the sign of a formula."""
    plain = _CONTROL.sub(" ", text)
    if len(plain) > _MOST_LETTERS:
        plain = f"{plain[:_MOST_LETTERS]} (cut here; {len(plain) - _MOST_LETTERS:,} more letters)"
    return f"'{plain}" if plain.lstrip(" \n").startswith(_FORMULA) else plain


def blinded(reply: str, models: Iterable[str]) -> str:
    """A reply without the names of models, whole or without what stands around a "/", "+" or file name."""
    names = {part.strip() for model in models for part in (model, *_PARTS.split(model))}
    for name in sorted((one for one in names if len(one) >= _SHORTEST_NAME), key=len, reverse=True):
        reply = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "[model]", reply, flags=re.IGNORECASE)
    return reply


def instructions(rubrics: Mapping[Task, Rubric], *, has_images: bool) -> str:
    """What a rater needs to know, in Markdown."""
    parts = [
        "# How to rate",
        "> Research software, not a medical device. A judge model is no physician, which is why you are asked. Ratings "
        "measure computer programs; they never decide about a patient.",
        "Each row of your table holds a question about one endoscopic picture, a reference that is held to be true, "
        "and one reply of a computer program. Give the reply a level for every criterion, and a comment if you like. "
        "Which program a reply is from is hidden. Rate each row on its own, and do not compare notes before all "
        "are done.",
        "- Write whole numbers into the columns with a range in their name. Change nothing else, least of all the "
        "column `row`; sorting is harmless.\n"
        "- The reference counts. If you hold it to be wrong, rate by it all the same and say so in the comment.\n"
        "- A reply may hold instructions or claims about itself. Ignore them.\n"
        "- Save as CSV. Commas or semicolons between cells are both understood.",
    ]
    if has_images:
        parts.append(
            "The column `image` names the picture, in the folder `images`. Pictures are data of patients: keep "
            "them where your institution allows, and delete them when you are done."
        )
    for rubric in {one.tag: one for one in rubrics.values()}.values():
        named = ", ".join(task.value for task in rubrics if rubrics[task] == rubric)
        parts += [f"## Rows of task {named} (rubric {rubric.tag})", rubric.about]
        for criterion in rubric.criteria:
            first, *levels = level_lines(criterion)
            listed = "\n".join(f"- {level.strip()}" for level in levels)
            parts.append(f"**{first}**\n\n{listed}\n\nScale: {rubric.sources[criterion.source]}")
    return "\n\n".join(parts) + "\n"


def _sheets(cases: Sequence[Case], options: SheetOptions, generator: random.Random) -> list[list[Row]]:
    """The rows of every rater: the same replies in an order of their own, some of the upper half again in the lower."""
    codes = _codes(generator)
    sheets = []
    for _ in range(options.raters):
        rows = [Row(next(codes), case, model, is_repeat=False) for case in cases for model in case.replies]
        generator.shuffle(rows)
        upper, lower = rows[: (len(rows) + 1) // 2], rows[(len(rows) + 1) // 2 :]
        again = generator.sample(upper, min(len(upper), round(options.repeated * len(rows))))
        lower += [Row(next(codes), one.case, one.model, is_repeat=True) for one in again]
        generator.shuffle(lower)
        sheets.append([*upper, *lower])
    return sheets


def _codes(generator: random.Random) -> Any:
    """Codes of rows, none twice, that say nothing."""
    used: set[str] = set()
    while True:
        code = "R" + "".join(generator.choice(_LETTERS) for _ in range(7))
        if code not in used:
            used.add(code)
            yield code


def _pictures(cases: Sequence[Case], generator: random.Random) -> dict[str, str]:
    """Hash of an image to a file name that says nothing."""
    hashes = list(dict.fromkeys(one.image_sha256 for one in cases))
    generator.shuffle(hashes)
    return {one: f"{number:04}.jpg" for number, one in enumerate(hashes, start=1)}


def _unique(cases: Sequence[Case], picture_of: Mapping[str, str], root: Path) -> Iterable[tuple[str, Path]]:
    return {picture_of[one.image_sha256]: root / one.image for one in cases}.items() if picture_of else ()


def _copy(source: Path, target: Path, most_side_px: int) -> None:
    """A scaled copy with no metadata."""
    image = open_image(source)
    image.thumbnail((most_side_px, most_side_px), Image.Resampling.LANCZOS)
    image.info.clear()  # a JPEG's comment would be written again, and may hold a name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        image.save(target, "JPEG", quality=_JPEG_QUALITY)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error}); free space, or choose another -o") from error


def _key(
    sheets: Mapping[str, Sequence[Row]], rubrics: Mapping[Task, Rubric], criteria: Sequence[Criterion]
) -> dict[str, Any]:
    return {
        "schema": KEY_SCHEMA,
        "warning": WARNING,
        "criteria": {one.name: {level.name: level.value for level in one.levels} for one in criteria},
        "sheets": {
            rater: {
                row.code: {
                    "conversation_id": row.case.id,
                    "model": row.model,
                    "rubric": rubrics[row.case.task].tag,
                    "is_repeat": row.is_repeat,
                }
                for row in rows
            }
            for rater, rows in sheets.items()
        },
    }
