"""attributes.yaml to wordings with the attribute that each states."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from gastrovl.core.config import Config, load_config
from gastrovl.core.errors import LabelError

Group = Literal["colour", "shape", "surface", "margin", "extent", "bleeding", "view", "place", "wall"]


class Attribute(Config):
    """An entry of the vocabulary; the file explains its keys."""

    id: str
    name: str
    group: Group
    source: tuple[str, ...] = Field(min_length=1)
    synonyms: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    qualities: tuple[str, ...] = ()

    @property
    def wordings(self) -> tuple[str, ...]:
        """Every wording, those of its parts and qualities included."""
        said = [
            wording
            for part in self.parts
            for quality in self.qualities
            for wording in (f"{quality} {part}", f"{part} is {quality}", f"{_many(part)} are {quality}")
        ]
        return (self.name, *self.synonyms, *said)


class Attributes(Config):
    """The whole file."""

    version: str
    sources: dict[str, str]
    no_attribute: tuple[str, ...]
    attributes: tuple[Attribute, ...]


@cache
def known_attributes() -> Attributes:
    """What ships with the package; read once.

    Raises:
        LabelError: An id is listed twice, or an entry's source is not explained.
    """
    path = Path(__file__).with_name("attributes.yaml")
    read = load_config(path, Attributes)
    seen: set[str] = set()
    for one in read.attributes:
        if one.id in seen:
            raise LabelError(f"{path}: attribute {one.id!r} is listed twice; expected one entry an id")
        seen.add(one.id)
        if unexplained := [key for key in one.source if key not in read.sources]:
            raise LabelError(f"{path}: attribute {one.id!r} has sources {unexplained}; expected {list(read.sources)}")
    return read


@cache
def attributes_by_id() -> dict[str, Attribute]:
    """Each attribute by its id."""
    return {one.id: one for one in known_attributes().attributes}


@cache
def attribute_wordings() -> dict[str, str]:
    """Each wording with its attribute's id; with "" for what looks like one and states none."""
    read = known_attributes()
    stated = {wording: one.id for one in read.attributes for wording in one.wordings}
    return stated | dict.fromkeys(read.no_attribute, "")


def _many(part: str) -> str:
    return part[:-1] + "ies" if part.endswith("y") else part + "s"
