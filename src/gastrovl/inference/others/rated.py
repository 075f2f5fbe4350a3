"""Saved sessions that people rated to ratings for evaluation, and to training conversations from their corrections."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from gastrovl.clinical import answers
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core import boxtext
from gastrovl.core.errors import GastroVLError, GeometryError, RecordError
from gastrovl.core.files import sha256_file, whole_folder, write_text
from gastrovl.core.images import open_image
from gastrovl.core.manifest import write_manifest
from gastrovl.core.records import write_records
from gastrovl.core.types import Conversation, ImageRef, Rating, Split, Target, Task, Turn
from gastrovl.inference.session import SCHEMA, TASK_OF, Exchange, Kind, SessionRecord, ShownImage, pixel_digest

SOURCE = "session"
RATINGS, QUESTIONS, RUBRIC, CORRECTIONS, IMAGES = (
    "ratings.jsonl",
    "questions.jsonl",
    "rubric.yaml",
    "corrections.jsonl",
    "images",
)
LEVELS = {"wrong": 0, "partly": 1, "right": 2}
_MARK = re.compile(r"<\|?/?[A-Za-z][\w ]*\|?>", re.ASCII)  # as chat templates write them: <image>, <|user|>, </s>
_TAG = "session/1"
_RUBRIC_TEXT = """\
# How a person rates an answer while talking with a model: one level, and no reference to look at.
name: session
version: 1
tasks: [CLS, REC, REG, CAP, VQA]
about: One answer about an endoscopic picture, rated by the person who asked.
sources:
  levels: Three levels are ours; they are what `gastrovl chat` asks for.
criteria:
  - name: verdict
    ask: Is the answer right?
    higher_is: better
    source: levels
    levels:
      - {value: 0, name: wrong, means: "The answer is wrong."}
      - {value: 1, name: partly, means: "Part of the answer is right."}
      - {value: 2, name: right, means: "The answer is right."}
"""


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        ratings: Answers with a rating. unrated: Answers without one, which are left out.
        corrected: Training conversations. skipped: Why a correction became none, and how often.
    """

    ratings: int
    unrated: int
    corrected: int
    skipped: Mapping[str, int]


def read_session(path: Path) -> SessionRecord:
    """A session that `gastrovl chat` saved.

    Raises:
        RecordError: The file is missing, no session, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a session saved as JSON")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content.get("schema") if isinstance(content, dict) else None
        if found != SCHEMA:
            raise RecordError(f"{path}: found schema {str(found)[:80]!r}, expected {SCHEMA!r}; save the session again")
        return SessionRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecordError(f"{path}: {place}: {first['msg']}; expected a session as it was saved") from error
    except GeometryError as error:
        raise RecordError(f"{path}: {error}") from error
    except RecordError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not a whole JSON file ({error}); save the session again") from error


def import_sessions(
    sessions: Sequence[Path],
    output: Path,
    *,
    rater: str,
    images: Path | None = None,
    is_replaced: bool = False,
    now: datetime | None = None,
) -> Imported:
    """Write what people said of answers into a folder.

    ratings.jsonl, questions.jsonl and rubric.yaml are for `gastrovl rate summary`. With `images`, corrections.jsonl
    holds what should have been answered, as training conversations, beside copies of their images.

    Args:
        rater: A pseudonym for whoever rated these sessions.
        images: Folder in which the images of the sessions lie, at any depth, under the names they were shown by; each
            is recognised by its pixels.

    Raises:
        RecordError: A session cannot be read, none holds a rating, or one answer is rated differently in two files.
        OutputError: As `whole_folder`.
    """
    records = [(Path(path), read_session(path)) for path in sessions]
    found = _rated(records)
    if not found:
        raise RecordError(
            f"no answer of {len(records)} sessions is rated; rate some first (`/rate` in `gastrovl chat`)"
        )
    unrated = {_identity(one.model, said) for _, one in records for said in one.exchanges} - {one.id for one in found}
    skipped: Counter[str] = Counter()
    with whole_folder(Path(output), is_replaced=is_replaced) as folder:
        write_records(folder / RATINGS, [_rating(one, rater) for one in found])
        write_records(folder / QUESTIONS, [_question(one) for one in found])
        write_text(folder / RUBRIC, _RUBRIC_TEXT)
        corrected = 0
        if images is not None:
            rows = list(_corrections(found, _by_name(Path(images)), folder, skipped))
            corrected = write_records(folder / CORRECTIONS, rows)
        write_manifest(
            folder,
            stage="rate import-session",
            config={"rater": rater, "with_images": images is not None},
            seed=None,
            inputs={f"{place}: {path.name}": sha256_file(path) for place, (path, _) in enumerate(records)},
            now=now,
        )
    return Imported(len(found), len(unrated), corrected, dict(skipped))


@dataclass(frozen=True)
class _Rated:
    """A rated answer; `is_later` says that the dialogue had words before it, which a session does not keep with it."""

    id: str
    model: str
    said: Exchange
    is_later: bool

    @property
    def task(self) -> Task:
        return TASK_OF.get(self.said.kind, Task.VQA)


def _identity(model: str, said: Exchange) -> str:
    """The same for an answer wherever it is saved, rated or not; seconds of the clock tell equal answers apart."""
    content = said.model_dump_json(exclude={"rating", "correction"}, exclude_none=True)
    return f"{SOURCE}/{hashlib.sha256(f'{model} {content}'.encode()).hexdigest()[:20]}"


def _rated(records: Iterable[tuple[Path, SessionRecord]]) -> list[_Rated]:
    """Every rated answer once, in the order of the files."""
    found: dict[str, _Rated] = {}
    for path, record in records:
        talked: set[str] = set()
        for said in record.exchanges:
            is_later = said.kind is Kind.SAY and said.image.sha256 in talked
            if said.kind is Kind.SAY:
                talked.add(said.image.sha256)
            if said.rating is None:
                continue
            one = _Rated(_identity(record.model, said), record.model, said, is_later)
            before = found.setdefault(one.id, one).said
            if (before.rating, before.correction) != (said.rating, said.correction):
                raise RecordError(
                    f"{path}: answer {said.number} is rated {said.rating!r} here and otherwise in a file before it; "
                    "give the last file of a session only"
                )
    return list(found.values())


def _rating(one: _Rated, rater: str) -> Rating:
    assert one.said.rating is not None
    return Rating(
        conversation_id=one.id,
        model=one.model,
        rater=rater,
        rubric=_TAG,
        scores={"verdict": LEVELS[one.said.rating]},
        comment=one.said.correction or "",
    )


def _question(one: _Rated) -> Conversation:
    """What was asked, without a truth: only a correction knows one, and it is written apart."""
    shown = one.said.image
    return Conversation(
        id=one.id,
        sample_id=_group(shown),
        task=one.task,
        image=ImageRef(
            path=shown.name or "unnamed", width_px=shown.width_px, height_px=shown.height_px, sha256=shown.sha256
        ),
        source=SOURCE,
        group=_group(shown),
        split=Split.TEST,
        turns=(Turn(role="user", text=one.said.asked), Turn(role="assistant", text="(no reference)")),
        target=Target(),
    )


def _group(shown: ShownImage) -> str:
    return f"{SOURCE}/{shown.sha256[:20]}"


def _by_name(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise RecordError(f"{folder}: no such folder; expected the one with the images of the sessions")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.setdefault(path.name, []).append(path)
    return found


def _corrections(
    rated: Iterable[_Rated], paths: Mapping[str, Sequence[Path]], folder: Path, skipped: Counter[str]
) -> Iterator[Conversation]:
    for one in rated:
        correction = (one.said.correction or "").strip()
        if one.said.rating == "right" or not correction:
            continue
        why, text, target = _corrected(one, correction)
        file = None if why else _file_of(one.said.image, paths)
        if not why and file is None:
            why = "the image is not in the folder"
        if why or file is None:
            skipped[why] += 1
            continue
        yield Conversation(
            id=one.id,
            sample_id=_group(one.said.image),
            task=one.task,
            image=_copied(file, one.said.image, folder),
            source=SOURCE,
            group=_group(one.said.image),
            split=Split.TRAIN,
            turns=(Turn(role="user", text=one.said.asked), Turn(role="assistant", text=text)),
            target=target,
        )


def _corrected(one: _Rated, correction: str) -> tuple[str, str, Target]:
    """Why a correction teaches nothing (or ""), the answer text it means, and its typed truth."""
    taxonomy, said = Taxonomy.load(), one.said
    if one.is_later:
        return "a later turn of a dialogue, whose earlier turns are not kept with it", "", Target()
    if said.further:
        return "several images in one dialogue", "", Target()
    if _MARK.search(correction) or _MARK.search(said.asked):
        return "a text holds a mark such as <image>, which has a meaning of its own to models", "", Target()
    meant = answers.parse_answer(one.task, correction, taxonomy)
    if isinstance(meant, answers.LabelAnswer):
        if one.task is Task.REG and (said.region is None or len(meant.terms) != 1):
            return "a box has one name", "", Target()
        boxes = () if said.region is None else (said.region,)
        return "", answers.format_labels(meant.terms, taxonomy), Target(terms=meant.terms, boxes=boxes)
    if isinstance(meant, answers.BoxAnswer):
        term = taxonomy[said.words] if said.words in taxonomy else taxonomy.find(said.words)
        if term is None:
            return "what was to be located is no term of the taxonomy", "", Target()
        return "", boxtext.encode_boxes(meant.boxes), Target(terms=(term.id,), boxes=meant.boxes)
    if isinstance(meant, answers.TextAnswer):
        return "", meant.text, Target()
    expected = "boxes as [x0,y0,x1,y1] in 0-999, or absent" if one.task is Task.REC else "names of the taxonomy"
    return f"the correction of {one.task} is not written as {expected}", "", Target()


def _file_of(shown: ShownImage, paths: Mapping[str, Sequence[Path]]) -> Path | None:
    for path in paths.get(shown.name, ()):
        try:
            if pixel_digest(open_image(path)) == shown.sha256:
                return path
        except GastroVLError:
            continue  # a file of that name that is no image is not the one
    return None


def _copied(file: Path, shown: ShownImage, folder: Path) -> ImageRef:
    digest = sha256_file(file)
    path = f"{IMAGES}/{digest[:20]}{file.suffix.lower()}"
    (folder / IMAGES).mkdir(exist_ok=True)
    shutil.copyfile(file, folder / path)
    return ImageRef(path=path, width_px=shown.width_px, height_px=shown.height_px, sha256=digest)
