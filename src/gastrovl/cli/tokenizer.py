"""`gastrovl tokenizer`: a domain corpus to a small tokenizer, as the shipped one was made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer


def tokenizer(
    conversations: Annotated[list[Path], typer.Argument(help="JSONL files of conversations: the corpus.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write the tokenizer to.")],
    vocabulary: Annotated[int, typer.Option(min=300, help="Number of tokens at most.")] = 2048,
) -> None:
    """Train a byte-level BPE tokenizer on all wordings of CONVERSATIONS and all names of the taxonomy."""
    from gastrovl.clinical.taxonomy import Taxonomy
    from gastrovl.core.records import read_records
    from gastrovl.core.types import Conversation
    from gastrovl.model.tokenizer import train_tokenizer

    def corpus() -> Iterator[str]:
        for path in conversations:
            for conversation in read_records(path, Conversation):
                for turn in conversation.turns:
                    yield from (turn.text, *turn.alternatives)
        for term in Taxonomy.load().terms:
            yield from (term.name, *term.synonyms)

    trained = train_tokenizer(corpus(), vocabulary)
    trained.save_pretrained(output)
    typer.echo(f"tokenizer of {len(trained)} tokens in {output}")
