"""Scores and ids of tokens to what is told of them: the likeliest ones, and the bytes that each stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gastrovl.inference.question import SaidToken

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def likeliest(scores: Tensor, count: int) -> list[list[tuple[int, float]]]:
    """The best tokens of each row and their log-probabilities, best first; `scores` are logits, (rows, vocabulary)."""
    if not count:
        return [[] for _ in scores]
    best = scores.topk(min(count, scores.shape[-1]), dim=-1)
    logs = best.values - scores.logsumexp(dim=-1, keepdim=True)
    pairs = zip(best.indices.tolist(), logs.tolist(), strict=True)
    return [list(zip(tokens, values, strict=True)) for tokens, values in pairs]


class TokenBytes:
    """The tokens of one tokenizer as bytes, which joined are the bytes of what they say."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.end = tokenizer, int(tokenizer.eos_token_id)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        is_bytewise = backend is not None and "ByteLevel" in repr(backend.decoder)
        self._alphabet = _alphabet() if is_bytewise else None
        self._added = {number: one.content for number, one in tokenizer.added_tokens_decoder.items()}

    def of(self, token: int) -> bytes:
        """What a token stands for; a part of a letter is no text by itself."""
        if token in self._added:
            return self._added[token].encode()
        written = str(self._tokenizer.convert_ids_to_tokens(token))
        if self._alphabet is not None:
            return bytes(self._alphabet[letter] for letter in written)
        if found := _BYTE.fullmatch(written):
            return bytes([int(found[1], 16)])
        return written.replace("\u2581", " ").encode()  # how SentencePiece writes a space

    def said(
        self, ids: Sequence[int], logs: Sequence[float], tops: Sequence[Sequence[tuple[int, float]]], count: int
    ) -> tuple[SaidToken, ...]:
        """Tokens with their log-probabilities and `count` of the likeliest ones, up to the one that ends a reply."""
        return tuple(
            SaidToken(self.of(token), log, tuple((self.of(other), chance) for other, chance in top[:count]))
            for token, log, top in zip(ids, logs, tops, strict=True)
            if token != self.end
        )


def _alphabet() -> dict[str, int]:
    """The letters by which byte-level BPE (Radford et al. 2019) writes bytes: printable ones stay, others move up."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
