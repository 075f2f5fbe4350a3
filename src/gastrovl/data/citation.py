"""Sources to BibTeX entries, as far as what they state about themselves can be read."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gastrovl.core.frontmatter import PAPER
from gastrovl.data.source import SourceDescription

_DOI = re.compile(r"\b10\.\d{4,9}/[^\s,;\"{}]+")
_ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})\b", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:19|20)\d{2}\b")
_FIRST_AUTHOR = re.compile(r"^([^,.]+) et al\.")
_SPECIAL = re.compile(r"([&%$#_])")


def bibtex(descriptions: Iterable[SourceDescription]) -> str:
    """An entry a source, then the paper whose task format this is.

    What cannot be told apart in a source's citation is not guessed at: the citation stands in `note` as it is written.
    """
    return "\n\n".join([*(_entry(description) for description in descriptions), PAPER])


def _entry(description: SourceDescription) -> str:
    citation = " ".join(description.citation.split())
    fields = {"title": f"{{{_plain(description.title)}}}"}
    if author := _FIRST_AUTHOR.match(citation):
        fields["author"] = f"{_plain(author[1])} and others"
    doi, arxiv = _DOI.search(citation), _ARXIV.search(citation)
    # The numbers of a DOI or of arXiv look like years.
    if years := _YEAR.findall(_ARXIV.sub("", _DOI.sub("", citation))):
        fields["year"] = years[-1]
    if doi:
        fields["doi"] = doi[0].rstrip(".)")
    if arxiv:
        fields |= {"eprint": arxiv[1], "archiveprefix": "arXiv"}
    if description.url:
        fields["url"] = description.url
    fields["note"] = _plain(citation)
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{description.name},\n{lines}\n}}"


def _plain(text: str) -> str:
    """Text without braces, its special signs escaped."""
    return _SPECIAL.sub(r"\\\1", text.replace("{", "(").replace("}", ")").replace("\\", "/"))
