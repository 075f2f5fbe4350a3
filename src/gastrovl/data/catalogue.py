"""The packaged descriptions to a list of sources, as table rows; and the template of a private one to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gastrovl.core.errors import OutputError
from gastrovl.core.files import write_text
from gastrovl.data.source import TEMPLATE, load_source, packaged_sources

COLUMNS = ("name", "title", "images", "licence", "access", "split", "fetchable", "url")


def list_sources() -> list[dict[str, Any]]:
    """One row a packaged source, by name: what it is, its terms, and whether `gastrovl data fetch` gets it."""
    rows = []
    for name in packaged_sources():
        source, _ = load_source(name)
        rows.append(
            {
                "name": source.name,
                "title": source.title,
                "images": source.published_images,
                "licence": source.licence,
                "access": source.access,
                "split": "official" if source.official_split else "none",
                "fetchable": source.fetchable,
                "url": source.url,
                "citation": source.citation,
                "note": source.note.strip(),
                "by_hand": source.by_hand.strip(),
            }
        )
    return rows


def markdown_rows() -> str:
    """The table of docs/data_sources.md."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in list_sources():
        cells = [f"{row[key]:,}" if isinstance(row[key], int) else str(row[key] or "") for key in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_template(path: Path) -> Path:
    """Copy the commented description of a private set.

    Raises:
        OutputError: `path` is there already or cannot be written.
    """
    if path.exists():
        raise OutputError(f"{path} is there already; choose another --template")
    write_text(path, TEMPLATE.read_text(encoding="utf-8"))
    return path
