"""The three-level vocabulary: from the text of a label or an id to a term, its ancestors and its distances."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from gastrovl.core.config import Config, load_config
from gastrovl.core.errors import LabelError

Level = Literal[1, 2, 3]
_FILES = ("anatomy.yaml", "findings.yaml")
_APOSTROPHES = re.compile("['’‘`´]")
_SEPARATORS = re.compile(r"[\s_‐-―-]+")
_ID = re.compile("[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Term:
    """One entry of the vocabulary.

    Attributes:
        id: snake_case, stable over versions.
        name: The answer text: bare, lower-case, unique, without ";".
        level: 1, 2 or 3, as in Table 3 of He et al. 2025.
        parent: Id of the term one level up; None at level 1.
        synonyms: Other wordings that `Taxonomy.find` accepts.
        site: "esophagus", "stomach" or "duodenum" (level-2 ids), or None when the term does not say.
        source: Where the term comes from, as citations joined by "; ".
        note: What a reader would otherwise get wrong.
    """

    id: str
    name: str
    level: Level
    parent: str | None
    synonyms: tuple[str, ...]
    site: str | None
    source: str
    note: str = ""


class _Entry(Config):
    id: str
    name: str
    level: Level
    parent: str | None = None
    synonyms: tuple[str, ...] = ()
    site: str | None = None
    source: tuple[str, ...]
    note: str = ""


class _TermFile(Config):
    version: str
    sources: dict[str, str]
    terms: tuple[_Entry, ...]


class Taxonomy:
    """Terms in a fixed order, checked once on construction.

    Raises:
        LabelError: An id, name or synonym is used twice, a parent is not one level up or not listed before, a site is
            no level-2 term, or a name cannot serve as answer text.
    """

    def __init__(self, version: str, terms: Sequence[Term]) -> None:
        self.version = version
        self.terms = tuple(terms)
        self._by_id: dict[str, Term] = {}
        self._by_text: dict[str, Term] = {}
        for term in self.terms:
            self._check_place(term)
            self._check_wording(term)
            self._by_id[term.id] = term
        for term in self.terms:
            if term.site is not None and (term.site not in self._by_id or self._by_id[term.site].level != 2):
                raise LabelError(f"term {term.id!r}: site {term.site!r} is no level-2 term; expected e.g. 'stomach'")
        self._order = {term.id: place for place, term in enumerate(self.terms)}

    @classmethod
    def load(cls) -> Taxonomy:
        """The taxonomy that ships with this package; read once, then shared."""
        return _load_packaged()

    def __getitem__(self, term_id: str) -> Term:
        """The term of an id.

        Raises:
            LabelError: There is none; the message names the nearest id.
        """
        try:
            return self._by_id[term_id]
        except KeyError:
            raise LabelError(self._unknown(term_id)) from None

    def __contains__(self, term_id: object) -> bool:
        return term_id in self._by_id

    def find(self, text: str) -> Term | None:
        """The term whose name or synonym `text` is, whatever its case, hyphens, apostrophes, spaces or full stop."""
        return self._by_text.get(normalise(text))

    def ancestors(self, term_id: str) -> tuple[str, ...]:
        """Ids above a term, nearest first; empty at level 1."""
        found = []
        parent = self[term_id].parent
        while parent is not None:
            found.append(parent)
            parent = self._by_id[parent].parent
        return tuple(found)

    def at_level(self, term_id: str, level: int) -> Term:
        """The term itself or its ancestor at `level`.

        Raises:
            LabelError: The id is unknown, or the term stands above `level`.
        """
        for candidate in (term_id, *self.ancestors(term_id)):
            if self._by_id[candidate].level == level:
                return self._by_id[candidate]
        raise LabelError(
            f"term {term_id!r} stands at level {self[term_id].level}, so it has no ancestor at level {level}"
        )

    def distance(self, a: str, b: str) -> int:
        """Edges between two terms; the level-1 terms hang on one common root, so siblings are 2 apart.

        Raises:
            LabelError: An id is unknown.
        """
        up_from_a = (a, *self.ancestors(a))
        up_from_b = (b, *self.ancestors(b))
        shared = len(set(up_from_a) & set(up_from_b))
        return len(up_from_a) + len(up_from_b) - 2 * shared

    def order(self, term_id: str) -> int:
        """Place of a term in the taxonomy, counted from 0.

        Raises:
            LabelError: The id is unknown.
        """
        return self._order[self[term_id].id]

    def _check_place(self, term: Term) -> None:
        if not _ID.fullmatch(term.id):
            raise LabelError(f"term id {term.id!r} is not snake_case; expected e.g. 'gastric_ulcer'")
        if term.id in self._by_id:
            raise LabelError(f"term id {term.id!r} is listed twice; ids are unique over all files")
        if term.level == 1:
            if term.parent is not None:
                raise LabelError(f"term {term.id!r} stands at level 1 but has parent {term.parent!r}; expected none")
            return
        parent = self._by_id.get(term.parent or "")
        if parent is None:
            raise LabelError(f"term {term.id!r}: parent {term.parent!r} is not listed before it; list parents first")
        if parent.level != term.level - 1:
            raise LabelError(
                f"term {term.id!r} stands at level {term.level} and its parent {parent.id!r} at level {parent.level}; "
                f"expected a parent at level {term.level - 1}"
            )

    def _check_wording(self, term: Term) -> None:
        if term.name != term.name.strip().lower() or not term.name or any(sign in term.name for sign in ";[]\n"):
            raise LabelError(
                f"term {term.id!r}: name {term.name!r} cannot be answer text; expected lower-case words without "
                "';', '[', ']' or surrounding spaces"
            )
        for wording in (term.name, *term.synonyms):
            key = normalise(wording)
            if not key:
                raise LabelError(f"term {term.id!r} has an empty wording {wording!r}; remove it")
            if key in self._by_text:
                raise LabelError(
                    f"{wording!r} is a wording of both {self._by_text[key].id!r} and {term.id!r} (case, hyphens and "
                    "apostrophes do not matter); give it to one term only, once"
                )
            self._by_text[key] = term

    def _unknown(self, term_id: str) -> str:
        nearest = difflib.get_close_matches(str(term_id), self._by_id, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}?" if nearest else "see `gastrovl.clinical.taxonomy.Taxonomy.load().terms`"
        return f"{term_id!r} is no term of taxonomy {self.version}; {hint}"


def normalise(text: str) -> str:
    """The form in which wordings are compared: lower case, no apostrophes, no final full stop, single spaces."""
    plain = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).casefold())
    return _SEPARATORS.sub(" ", plain.strip().removesuffix(".")).strip()


def read_taxonomy(paths: Sequence[Path]) -> Taxonomy:
    """A taxonomy from YAML files, in their order.

    Raises:
        ConfigError: A file is missing or malformed.
        LabelError: The files carry different versions, a source key is not explained, or the terms contradict
            each other.
    """
    files = [(path, load_config(path, _TermFile)) for path in paths]
    versions = {str(path): file.version for path, file in files}
    if len(set(versions.values())) != 1:
        raise LabelError(f"taxonomy files carry different versions {versions}; raise them together")
    terms = [_term(entry, file.sources, path) for path, file in files for entry in file.terms]
    return Taxonomy(files[0][1].version, terms)


def _term(entry: _Entry, sources: dict[str, str], path: Path) -> Term:
    unexplained = [key for key in entry.source if key not in sources]
    if unexplained or not entry.source:
        raise LabelError(
            f"{path}: term {entry.id!r} has source keys {list(entry.source)}; expected at least one, "
            f"each explained under `sources` ({', '.join(sources)})"
        )
    fields = entry.model_dump(exclude={"source"})
    return Term(**fields, source="; ".join(sources[key] for key in entry.source))


@cache
def _load_packaged() -> Taxonomy:
    return read_taxonomy([Path(__file__).with_name(name) for name in _FILES])
