"""The description of a source: licence, citation, formats, label map, groups and official split, from one YAML file."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator, model_validator

from gastrovl.core.config import Config, load_config, parse_config
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Split, Task
from gastrovl.data.annotation import Annotation
from gastrovl.data.formats import FORMATS
from gastrovl.data.images import ImageFile, ImageFolder

PACKAGED = Path(__file__).parent / "sources"
TEMPLATE = PACKAGED / "template.yaml"  # for a private set; a file to copy, not a source
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class LabelRule(Config):
    """What a source label means here: a term of the taxonomy, or the reason for leaving it out.

    Attributes:
        term: Term id, or None when excluded.
        exclude: The reason, or None when mapped.
        site, grade: Term id of the site and the grade, where the label itself says them.
        tasks: The tasks that images with this label may serve; None means all.
    """

    term: str | None = None
    exclude: str | None = None
    site: str | None = None
    grade: str | None = None
    tasks: tuple[Task, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"term": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> LabelRule:
        if (self.term is None) == (self.exclude is None):
            raise ValueError("expected a term id, `{term: ...}` or `{exclude: reason}`, and exactly one of them")
        return self


class GroupRule(Config):
    """How a path tells which frames belong together (patient, exam, video).

    Attributes:
        pattern: Regular expression on the image's name; its groups make the key. A group called `number` counts frames.
        series: Cut the frames numbered by `number` into runs of this many at most, where neighbours look least alike.
    """

    pattern: str
    series: int | None = Field(default=None, ge=2)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from error
        return value

    @model_validator(mode="after")
    def _check(self) -> GroupRule:
        if self.series and "number" not in re.compile(self.pattern).groupindex:
            raise ValueError("`series` needs a group (?P<number>...) in `pattern`")
        return self


class MaskRule(Config):
    """Where a source has masks of what it boxes: 0 or dark is nothing, white is everything of a label in the image.

    Attributes:
        files: Path below the source's root, e.g. "masks/{stem}_{label}.png": {stem} is the image's file name without
            folder and suffix, {name} the same with its folders, {label} the source's own label.
        labels: The labels that have masks; needed where the path does not name the label. Empty: all.
        threshold: A pixel brighter than this (0-255) is white.
    """

    files: str
    labels: tuple[str, ...] = ()
    threshold: int = Field(default=127, ge=0, le=254)

    @model_validator(mode="after")
    def _check(self) -> MaskRule:
        slots = {slot for _, slot, _, _ in string.Formatter().parse(self.files) if slot is not None}
        if not slots & {"stem", "name"} or slots - {"stem", "name", "label"}:
            raise ValueError(f"files: {self.files!r} needs {{stem}} or {{name}}, may have {{label}}, and nothing else")
        if "label" not in slots and not self.labels:
            raise ValueError(f"files: {self.files!r} names no {{label}}; say in `labels` of which labels the masks are")
        return self

    def file_of(self, image: ImageFile, label: str) -> str:
        """Path of the mask of a label, relative to the source's root."""
        return self.files.format(stem=image.stem, name=image.key, label=label)


class SplitTable(Config):
    """A published CSV table of images with their split.

    Attributes:
        file: Relative to the source's root; its first row names the columns.
        image: Column of the image's file name.
        folder: Column of the folder that holds the image, where file names alone are not unique.
        column: Column of the split or fold, in the source's own words; or
        split: the split of all rows.
        delimiter: Between columns.
    """

    file: str
    image: str
    folder: str | None = None
    column: str | None = None
    split: Split | None = None
    delimiter: str = Field(default=",", min_length=1, max_length=1)

    @model_validator(mode="after")
    def _check(self) -> SplitTable:
        if (self.column is None) == (self.split is None):
            raise ValueError("expected either `column`, which names the split of a row, or `split`, that of all rows")
        return self


class OfficialSplit(Config):
    """The split that a source publishes.

    Attributes:
        lists: Text files of image names, one name a line, for each split.
        tables: CSV tables of image names with splits or folds.
        pattern: Regular expression on the image's name with a group `split`.
        names: The source's own words for the splits, e.g. {validation: val}; "train", "val" and "test" need no entry.
    """

    lists: dict[Split, str] = Field(default_factory=dict)
    tables: tuple[SplitTable, ...] = ()
    pattern: str | None = None
    names: dict[str, Split] = Field(default_factory=dict)


class Download(Config):
    """One file that a publisher offers.

    Attributes:
        url: https; http only to this machine itself.
        to: Where it ends below the output folder: a file, or the folder that an archive is unpacked to.
        sha256: Of the file, lower-case hex; null when the publisher gives none, which `note` must then say.
        bytes: Exact size, or null when it is not known.
        stated_size: The size as the publisher states it, e.g. "3.9 GB".
        unpack: What kind of archive it is; "none" keeps the file as it is.
        strip: Leading folders of the archive's paths that are left out.
        note: What a user should know, e.g. that there is no checksum.
    """

    url: str
    to: str
    sha256: str | None = Field(pattern="^[0-9a-f]{64}$")
    bytes: int | None = Field(default=None, gt=0)
    stated_size: str = ""
    unpack: Literal["zip", "tar", "none"] = "none"
    strip: int = Field(default=0, ge=0)
    note: str = ""

    @property
    def file(self) -> str:
        """The file name at the end of the url."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    @field_validator("url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        check_url(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> Download:
        if not self.file:
            raise ValueError(f"url {self.url!r} ends in no file name")
        place = PurePosixPath(self.to)
        if not place.parts or place.is_absolute() or ".." in place.parts or "\\" in self.to or place.parts[0][0] == ".":
            raise ValueError(f"to: {self.to!r} is no relative path below the output folder")
        if self.sha256 is None and not self.note:
            raise ValueError("sha256 is null; say in `note` why")
        return self


def check_url(url: str) -> None:
    """Refuse what is neither https nor http to this machine itself.

    Raises:
        ValueError: With what is expected.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme != "http" or parts.hostname not in LOOPBACK:
        raise ValueError(f"url {url!r}: expected https:// (http:// only to 127.0.0.1 or localhost)")


class SourceDescription(Config):
    """One source of images.

    Attributes:
        name: Short name, used in ids and paths.
        access: "public" or "private", a column of Table 2.
        published_images: Number of images as its authors state it, or null.
        downloads: Files that `gastrovl data fetch` gets.
        by_hand: What it cannot get, where that is, and where to put it.
        images: Globs of the images, relative to the source's root; all begin with the same folder.
        annotations: Each has a `format` and that format's own keys (`gastrovl.data.formats`).
        masks: Where masks lie, of what the annotations box; one that is not there is counted, and no error.
        labels_by_name: A label without an entry under `labels` that is a term's name or synonym means that term.
        exhaustive: Source labels that are boxed wherever they are seen, so that silence means absence; `true` for all.
    """

    name: str = Field(pattern="^[a-z0-9_]+$")
    title: str
    url: str = ""
    licence: str
    citation: str
    access: Literal["public", "private"] = "public"
    note: str = ""
    published_images: int | None = Field(default=None, gt=0)
    downloads: tuple[Download, ...] = ()
    by_hand: str = ""
    images: tuple[str, ...] = Field(min_length=1)
    annotations: tuple[dict[str, Any], ...] = Field(min_length=1)
    masks: MaskRule | None = None
    labels: dict[str, LabelRule] = Field(default_factory=dict)
    labels_by_name: bool = False
    exhaustive: bool | tuple[str, ...] = False
    group: GroupRule | None = None
    official_split: OfficialSplit | None = None

    @property
    def fetchable(self) -> Literal["yes", "in part", "no"]:
        """Whether `gastrovl data fetch` gets all of it, or the rest must be got by hand."""
        if not self.downloads:
            return "no"
        return "in part" if self.by_hand else "yes"

    def exhaustive_labels(self) -> tuple[str, ...]:
        """Source labels whose absence may be concluded from the absence of a box."""
        if isinstance(self.exhaustive, bool):
            return tuple(self.labels) if self.exhaustive else ()
        return self.exhaustive


def packaged_sources() -> list[str]:
    """Names of the descriptions that come with the package, sorted; the template is none."""
    return sorted(file.stem for file in PACKAGED.glob("*.yaml") if file != TEMPLATE)


def load_source(name_or_path: str, *, beside: Path | None = None) -> tuple[SourceDescription, Path]:
    """The description called `name_or_path` and its file: a packaged name, or a YAML path (relative to `beside`).

    Raises:
        ConfigError: There is none, or it is wrong.
    """
    path = PACKAGED / f"{name_or_path}.yaml"
    if name_or_path.endswith((".yaml", ".yml")):
        path = (beside or Path()) / name_or_path
    elif not path.is_file():
        known = ", ".join(packaged_sources())
        raise ConfigError(
            f"source {name_or_path!r} is not packaged; expected one of {known}, or the path of a YAML file"
        )
    description = load_config(path, SourceDescription)
    unknown = [label for label in description.exhaustive_labels() if label not in description.labels]
    if unknown:
        raise ConfigError(f"{path}: exhaustive: found {', '.join(unknown)}; expected labels listed under `labels`")
    masked = description.masks.labels if description.masks else ()
    if unknown := [label for label in masked if label not in description.labels]:
        raise ConfigError(f"{path}: masks.labels: found {', '.join(unknown)}; expected labels listed under `labels`")
    for index, options in enumerate(description.annotations):
        _parse_options(options, f"{path}: annotations.{index}")
    return description, path


def read_annotations(description: SourceDescription, root: Path, images: ImageFolder) -> Iterator[Annotation]:
    """What all annotation files of a source say, one after the other.

    Raises:
        ConfigError, SourceError: As the formats do.
    """
    for index, content in enumerate(description.annotations):
        options = _parse_options(content, f"{description.name}: annotations.{index}")
        yield from FORMATS[content["format"]].read(root, options, images)


def _parse_options(content: dict[str, Any], where: str) -> Config:
    kind = content.get("format")
    if kind not in FORMATS:
        raise ConfigError(f"{where}.format: found {kind!r}, expected one of {', '.join(sorted(FORMATS))}")
    rest = {key: value for key, value in content.items() if key != "format"}
    return parse_config(rest, FORMATS[kind].options, where=f"{where} ({kind})")
