"""An audit report with its images to audit.html: the worst pairs side by side in one file without script or link."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from gastrovl.core.errors import ImageError, MissingExtraError
from gastrovl.core.files import write_text
from gastrovl.data.audit.drawing import Bar, Matrix, draw_bar, draw_matrix
from gastrovl.data.audit.report import BYTE_EQUAL, LEAKS, AuditedImage, AuditReport, CopyPair, report_json
from gastrovl.data.audit.verdict import percent
from gastrovl.data.images import DECODING_ERRORS, open_image

SIDE_PX = 256
MOST_BYTES = 5_000_000  # of all pictures, as they stand in the page
LISTED = 50  # rows of a list on the page; audit.json has all
A_FAMILY = 3  # pairs of one family in one section: a hundred equal frames are one finding, not five thousand
_QUALITY = 78

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Side:
    """One image of a pair: `picture` is a data: address, or "" when there is none to show."""

    id: str
    place: str
    labels: str
    picture: str
    why_none: str = ""


@dataclass(frozen=True)
class Card:
    """A pair to look at."""

    left: Side
    right: Side
    likeness: str
    how: str
    crossing: str
    is_leak: bool
    labels_differ: bool


@dataclass(frozen=True)
class Section:
    """Pairs of one kind; `count` is how many there are that no section before has shown."""

    key: str
    title: str
    words: str
    cards: list[Card]
    count: int


def write_audit(
    folder: Path,
    report: AuditReport,
    images: Sequence[AuditedImage],
    *,
    title: str = "",
    has_pictures: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Write audit.json and audit.html into a folder that exists; returns the page.

    Args:
        images: Those that the report speaks of.
        title: What was audited.
        has_pictures: Embed thumbnails of at most 256 px, about 5 MB in all; without, the page names the pairs only.
        progress: Called with (step, done, total).

    Raises:
        OutputError: The folder cannot be written to.
        MissingExtraError: jinja2 is not installed.
    """
    template = _template()
    content = _context(report, images, title, has_pictures=has_pictures, progress=progress)
    write_text(Path(folder) / "audit.json", report_json(report))
    write_text(Path(folder) / "audit.html", template.render(**content))
    return Path(folder) / "audit.html"


def _context(
    report: AuditReport, images: Sequence[AuditedImage], title: str, *, has_pictures: bool, progress: Progress | None
) -> dict[str, Any]:
    sections = _sections(report, images, has_pictures=has_pictures, progress=progress)
    return {
        "title": f"Audit of {title}" if title else "Audit for copies and leaks",
        "report": report,
        "drawing": _drawing(report),
        "percent": percent,
        "sections": sections,
        "has_pictures": has_pictures,
        "listed": LISTED,
        "a_family": A_FAMILY,
    }


def _drawing(report: AuditReport) -> Matrix | Bar:
    return draw_matrix(report) if len(report.places) > 1 else draw_bar(report)


def _sections(
    report: AuditReport, images: Sequence[AuditedImage], *, has_pictures: bool, progress: Progress | None
) -> list[Section]:
    """Leaks first; no pair stands in two sections."""
    leaks = [pair for pair in report.pairs if pair.crossing in LEAKS]
    others = [pair for pair in report.pairs if pair.crossing not in LEAKS]
    differing = sorted((pair for pair in others if pair.labels_differ), key=lambda pair: -pair.likeness)
    unsure = sorted((pair for pair in report.pairs if pair.likeness < 1), key=_likeness)
    plans = (
        ("leaks", "Leaks: the same picture on both sides", _LEAK_WORDS, leaks, 90, _count_leaks(report) - len(leaks)),
        ("labels", "Copies with different labels", _LABEL_WORDS, differing, 40, 0),
        ("unsure", "Look at these: the least certain copies", _UNSURE_WORDS, unsure, 40, 0),
        ("others", "Other copies", _OTHER_WORDS, others, 30, 0),
    )
    chosen: list[tuple[str, str, str, list[CopyPair], int]] = []
    shown: set[tuple[str, str]] = set()
    for key, name, words, pairs, most, unlisted in plans:
        left = [pair for pair in pairs if (pair.a, pair.b) not in shown]
        kept, count = _spread(left, most), len(left) + unlisted
        shown.update((pair.a, pair.b) for pair in kept)
        if kept:
            chosen.append((key, name, words, kept, count))
    album = _Album(images, has_pictures=has_pictures, total=2 * len(shown), progress=progress)
    return [Section(key, name, words, list(album.cards(kept)), count) for key, name, words, kept, count in chosen]


def _likeness(pair: CopyPair) -> float:
    return pair.likeness


def _count_leaks(report: AuditReport) -> int:
    return sum(report.pairs_by_crossing[crossing] for crossing in LEAKS)


def _spread(pairs: Iterable[CopyPair], most: int) -> list[CopyPair]:
    """The first `most` pairs, with at most A_FAMILY of one family."""
    taken: Counter[str] = Counter()
    kept: list[CopyPair] = []
    for pair in pairs:
        if len(kept) == most:
            break
        if taken[pair.family] < A_FAMILY:
            taken[pair.family] += 1
            kept.append(pair)
    return kept


class _Album:
    """Makes cards until the pictures of the page have reached MOST_BYTES; later cards go without."""

    def __init__(
        self, images: Sequence[AuditedImage], *, has_pictures: bool, total: int, progress: Progress | None
    ) -> None:
        self.images = {one.id: one for one in images}
        self.has_pictures = has_pictures
        self.has_splits = any(one.split for one in images)
        self.has_labels = any(one.labels for one in images)
        self.bytes_left = MOST_BYTES
        self.done, self.total, self.progress = 0, total, progress

    def cards(self, pairs: Iterable[CopyPair]) -> Iterator[Card]:
        for pair in pairs:
            yield Card(
                left=self._side(pair.a),
                right=self._side(pair.b),
                likeness=_in_percent(pair),
                how=pair.how,
                crossing=pair.crossing,
                is_leak=pair.crossing in LEAKS,
                labels_differ=pair.labels_differ,
            )

    def _side(self, name: str) -> Side:
        one = self.images[name]
        picture, why_none = self._picture(one.path)
        self.done += 1
        if self.progress:
            self.progress("making thumbnails", self.done, self.total)
        split = (one.split or "no split") if self.has_splits else ""
        place = " · ".join(part for part in (one.source, split) if part)
        labels = (", ".join(one.labels) or "none known") if self.has_labels else ""
        return Side(name, place, labels, picture, why_none)

    def _picture(self, path: Path) -> tuple[str, str]:
        if not self.has_pictures:
            return "", "left out"
        if self.bytes_left <= 0:
            return "", "left out: the page is full"
        try:
            address = thumbnail_uri(path)
        except ImageError:
            return "", "cannot be read any more"
        self.bytes_left -= len(address)
        return address, ""


def thumbnail_uri(path: Path) -> str:
    """A small JPEG of an image, at most SIDE_PX a side, inside a `data:` address; metadata stays behind.

    Raises:
        ImageError: It is missing or broken.
    """
    with open_image(path) as picture:
        try:
            picture.draft("RGB", (SIDE_PX, SIDE_PX))
            small = picture.convert("RGB")
        except DECODING_ERRORS as error:
            raise ImageError(f"{path}: truncated or damaged ({error}); copy it again from the source") from error
    small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    small.info.clear()
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _in_percent(pair: CopyPair) -> str:
    if pair.how == BYTE_EQUAL:
        return "100 %"
    return f"{100 * min(pair.likeness, 0.9994 if pair.likeness < 1 else 1):.1f} %"


def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise MissingExtraError(
            'jinja2 is not installed; the page of an audit needs it: pip install "gastrovl[data]"'
        ) from error
    text = (resources.files("gastrovl.data.audit") / "templates" / "audit.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text)


_LEAK_WORDS = (
    "Each pair stands in two splits, or in two of the folders. A model that has seen one side in training is not "
    "tested by the other. The most alike come first."
)
_LABEL_WORDS = "The same picture is labelled in two ways. One of the labels is wrong, or each tells half of it."
_UNSURE_WORDS = (
    "The lowest likeness that still counts as a copy. If these are different pictures, the threshold is too low and "
    "the numbers above are too high; if all are right, true copies below the threshold may be missed."
)
_OTHER_WORDS = "Copies inside one split or folder. Harmless for a test, but they count one picture several times."
