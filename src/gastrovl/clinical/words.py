"""words.yaml to findings that are no terms of the taxonomy: their wordings, and which terms make them true."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field

from gastrovl.core.config import Config, load_config

WORD = "word:"  # begins the id of a word that is no term of the taxonomy


class Word(Config):
    """A word of words.yaml and the terms that make it, or its denial, true.

    Attributes:
        words: Its wordings; plurals need none of their own.
        allowed_by: Terms, or terms above them, that make the word true.
        denied_by: Terms that make its denial true.
        apart: Of its wordings, those that facts keep apart from the others, under ids of their own.
        term: The term that it means, where it means one.
    """

    id: str
    words: tuple[str, ...]
    allowed_by: tuple[str, ...]
    denied_by: tuple[str, ...] = ()
    apart: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    term: str | None = None


class Words(Config):
    """The whole of words.yaml."""

    words: tuple[Word, ...]


@cache
def known_words() -> tuple[Word, ...]:
    """What ships with the package; read once."""
    return load_config(Path(__file__).with_name("words.yaml"), Words).words


@cache
def further_wordings() -> dict[str, str]:
    """The words as `find_mentions` takes them."""
    return {wording: WORD + word.id for word in known_words() for wording in word.words}


@cache
def words_by_id() -> dict[str, Word]:
    """Each word by the id that `further_wordings` gives it."""
    return {WORD + word.id: word for word in known_words()}


@cache
def word_facts() -> dict[str, str]:
    """Each wording with what it states: the id of a word, or of a part of it, or of a term."""
    found = {}
    for word in known_words():
        for wording in word.words:
            parts = [part for part, wordings in word.apart.items() if wording in wordings]
            found[wording] = parts[0] if parts else (word.term or word.id)
    return found
