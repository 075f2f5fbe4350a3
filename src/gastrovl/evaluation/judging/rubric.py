"""A YAML file to a rubric: criteria with levels in plain words, the same for a judge model and for people."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from gastrovl.core.config import Config, load_config
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Task

_PACKAGED = Path(__file__).parent / "rubrics"


class Level(Config):
    """One step of a criterion: its number, its name, and when it is given."""

    value: int = Field(ge=0)
    name: str = Field(min_length=1)
    means: str = Field(min_length=1)


class Criterion(Config):
    """One thing that is rated.

    Attributes:
        ask: The question a rater answers by a level.
        higher_is: Whether a high level is "better" or "worse".
        source: Key of the rubric's `sources`: where the scale comes from.
        levels: From 0 upwards, without gaps.
    """

    name: str = Field(pattern="^[a-z][a-z_]*$")
    ask: str = Field(min_length=1)
    higher_is: Literal["better", "worse"]
    source: str
    levels: tuple[Level, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        values = [level.value for level in self.levels]
        if values != list(range(len(values))):
            raise ValueError(f"levels are {values}; expected 0, 1, 2 ... without gaps")
        return self

    @property
    def most(self) -> int:
        """The highest level."""
        return self.levels[-1].value

    @property
    def span(self) -> str:
        """The allowed levels, e.g. "0-4"."""
        return f"0-{self.most}"


class Rubric(Config):
    """Criteria for the replies to some tasks.

    Attributes:
        version: Raised with every change of a word, for ratings by two versions do not mix.
        about: What is rated, and what it should be like.
        sources: Where scales come from, by key.
    """

    name: str = Field(pattern="^[a-z][a-z0-9_]*$")
    version: int = Field(ge=1)
    tasks: tuple[Task, ...] = Field(min_length=1)
    about: str = Field(min_length=1)
    sources: dict[str, str]
    criteria: tuple[Criterion, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [one.name for one in self.criteria]
        if len(set(names)) != len(names) or {"reason", "better"} & set(names):
            raise ValueError(f"criteria are {names}; expected different names, none of them 'reason' or 'better'")
        unknown = [one.source for one in self.criteria if one.source not in self.sources]
        if unknown:
            raise ValueError(f"criteria name the sources {unknown}; expected keys of `sources`: {list(self.sources)}")
        return self

    @property
    def tag(self) -> str:
        """Name and version, as records carry them."""
        return f"{self.name}/{self.version}"

    def criterion(self, name: str) -> Criterion:
        """The criterion of that name; KeyError if there is none."""
        return {one.name: one for one in self.criteria}[name]


def packaged_rubrics() -> list[str]:
    """Names of the rubrics that come with the package."""
    return sorted(path.stem for path in _PACKAGED.glob("*.yaml"))


def load_rubric(name: str) -> Rubric:
    """A packaged rubric by its name, or one of your own by the path of its YAML file.

    Raises:
        ConfigError: There is none, or it is malformed.
    """
    if name.endswith((".yaml", ".yml")):
        return load_config(Path(name), Rubric)
    if name not in packaged_rubrics():
        known = ", ".join(packaged_rubrics())
        raise ConfigError(f"rubric {name!r} is not packaged; take one of {known}, or the path of a .yaml file")
    return _packaged(name)


def rubrics_of(own: tuple[Rubric, ...], tasks: Collection[Task]) -> dict[Task, Rubric]:
    """The rubric of each of these tasks; `own` rubrics go before the packaged ones.

    Raises:
        ConfigError: There is none for a task, or they differ in criteria or levels, so that they fit no common sheet.
    """
    known: dict[Task, Rubric] = {}
    for rubric in (*(_packaged(name) for name in packaged_rubrics()), *own):
        known |= dict.fromkeys(rubric.tasks, rubric)
    if missing := sorted(set(tasks) - known.keys()):
        raise ConfigError(
            f"no rubric for the task {missing[0]} (REC is decided by boxes, not by words); leave it out, or write a "
            f"rubric with `tasks: [{missing[0]}]`"
        )
    found = {task: known[task] for task in sorted(tasks)}
    shapes = {one.tag: str([(c.name, c.most, c.higher_is) for c in one.criteria]) for one in found.values()}
    if len(set(shapes.values())) > 1:
        raise ConfigError(
            f"rubrics have different criteria or levels {shapes}; give every rubric the same ones, for one sheet and "
            "one table hold them all"
        )
    return found


@cache
def _packaged(name: str) -> Rubric:
    return load_config(_PACKAGED / f"{name}.yaml", Rubric)
