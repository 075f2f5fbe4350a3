"""Phrase files to wordings, and exchanges to conversations in those words."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from gastrovl.core.config import Config, load_config
from gastrovl.core.errors import ConfigError
from gastrovl.core.types import Conversation, Kind, Sample, Split, Task, Turn
from gastrovl.data.exchanges import Exchange

# The slots of each question; its file is `phrasing/<key in small letters>.yaml`.
SLOTS: dict[str, tuple[str, ...]] = {
    Task.CLS: (),
    Task.REC: ("label",),
    Task.REG: ("box",),
    Task.CAP: (),
    Kind.STATION: (),
    Kind.PRESENCE: ("label",),
    Kind.COUNT: ("label",),
    Kind.COMPARE_KIND: ("first", "second"),
    Kind.COMPARE_SIZE: ("first", "second"),
    Kind.COMPARE_LEFT: ("first", "second"),
    Kind.COMPARE_UP: ("first", "second"),
    "then_where": (),
    "then_locate": ("label",),
    "then_other": (),
    "then_inside": ("box",),
    "then_summarise": (),
}
MIN_WORDINGS = 5  # of a question in training; fewer would teach the wording instead of the question
MIN_HELD_OUT = 3
_PACKAGED = Path(__file__).parent / "phrasing"


class _PhrasingFile(Config):
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Phrasing:
    """Equally good wordings of each question, by the keys of `SLOTS`; a slot such as {label} is filled each time.

    `held_out` wordings are for `val_reworded.jsonl` and `test_reworded.jsonl` alone: no training turn has them.
    """

    wordings: Mapping[str, tuple[str, ...]]
    held_out: Mapping[str, tuple[str, ...]]

    @classmethod
    def load(cls, folder: Path | None = None) -> Phrasing:
        """The wordings in the YAML files of `folder`; by default those of the package.

        Raises:
            ConfigError: A file is missing, has too few wordings, the same one twice, or a wrong slot; or a held-out
                wording stands among the wordings of any file.
        """
        return _load_packaged() if folder is None else _read_phrasing(folder)


@cache
def _load_packaged() -> Phrasing:
    return _read_phrasing(_PACKAGED)


def _read_phrasing(folder: Path) -> Phrasing:
    files = {key: Path(folder) / f"{key.lower()}.yaml" for key in SLOTS}
    found = {key: load_config(path, _PhrasingFile) for key, path in files.items()}
    for key, path in files.items():
        _check(found[key].wordings, MIN_WORDINGS, SLOTS[key], f"{path}: wordings")
        _check(found[key].held_out, MIN_HELD_OUT, SLOTS[key], f"{path}: held_out")
    trained = {plain(wording): files[key] for key in SLOTS for wording in found[key].wordings}
    for key, path in files.items():
        for wording in found[key].held_out:
            if plain(wording) in trained:
                raise ConfigError(
                    f"{path}: held_out: {wording!r} is a training wording of {trained[plain(wording)]}; expected one "
                    "that training never shows. Word it differently"
                )
    return Phrasing(
        {key: found[key].wordings for key in SLOTS},
        {key: found[key].held_out for key in SLOTS},
    )


def plain(wording: str) -> str:
    """The form in which wordings are compared: small letters, without punctuation."""
    return " ".join(re.findall(r"[\w{}]+", wording.casefold()))


def _check(wordings: Sequence[str], least: int, slots: tuple[str, ...], where: str) -> None:
    if len(wordings) < least:
        raise ConfigError(f"{where}: found {len(wordings)}, expected at least {least}; add some")
    forms = [plain(wording) for wording in wordings]
    twice = [wording for wording, form in zip(wordings, forms, strict=True) if forms.count(form) > 1]
    if twice:
        raise ConfigError(f"{where}: {twice[0]!r} is listed twice; remove one")
    for wording in wordings:
        _check_slots(wording, slots, where)


def _check_slots(wording: str, slots: tuple[str, ...], where: str) -> None:
    try:
        names = tuple(name for _, name, _, _ in string.Formatter().parse(wording) if name is not None)
    except ValueError as error:
        raise ConfigError(f"{where}: {wording!r} has an unpaired brace ({error}); remove it") from error
    if names != slots:
        expected = " ".join(f"{{{name}}}" for name in slots) or "no slot"
        raise ConfigError(f"{where}: {wording!r} has slots {list(names)}, expected {expected}, once")


class Writer:
    """Words the questions of one sample: all wordings in training, one seeded wording in evaluation.

    Args:
        is_reworded: Take the held-out wordings; answers and targets stay.
    """

    def __init__(self, sample: Sample, phrasing: Phrasing, seed: int, *, is_reworded: bool = False) -> None:
        if is_reworded and sample.split is Split.TRAIN:
            raise ValueError(f"{sample.id} stands in the training split, which never shows a held-out wording")
        self.sample = sample
        self._is_reworded = is_reworded
        self._wordings = phrasing.held_out if is_reworded else phrasing.wordings
        self._seed = seed

    def generator(self, purpose: str) -> np.random.Generator:
        """Randomness that depends on seed, sample and purpose only, so that no question disturbs another."""
        digest = hashlib.sha256(f"{self._seed}\n{self.sample.id}\n{purpose}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def write(self, name: str, exchanges: Sequence[Exchange], kind: Kind | None = None) -> Conversation:
        """Conversation `name` of the sample, a turn for each question and answer; its task is that of the last."""
        sample, last = self.sample, exchanges[-1]
        turns = [turn for place, exchange in enumerate(exchanges) for turn in self._turns(name, place, exchange)]
        return Conversation(
            id=f"{sample.id}#{name}",
            sample_id=sample.id,
            task=last.task,
            kind=kind,
            image=sample.image,
            source=sample.source,
            group=sample.group,
            split=sample.split,
            turns=tuple(turns),
            target=last.target,
        )

    def _turns(self, name: str, place: int, exchange: Exchange) -> tuple[Turn, Turn]:
        is_training = self.sample.split is Split.TRAIN
        wordings = [wording.format(**exchange.slots) for wording in self._wordings[exchange.phrasing]]
        purpose = f"{name} wording" + (f" of turn {place}" if place else "") + (", held out" * self._is_reworded)
        question = wordings.pop(int(self.generator(purpose).integers(len(wordings))))
        answer, *others = exchange.answers
        return (
            Turn(role="user", text=question, alternatives=tuple(wordings) if is_training else ()),
            Turn(role="assistant", text=answer, alternatives=tuple(others) if is_training else ()),
        )
