"""Free replies held to a JSON schema by llguidance: at each step only tokens that can still lead to valid JSON.

A reply that ends is valid JSON of the schema; one that the length limit cuts is not, and its `stop_reason` says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gastrovl.core.errors import MissingExtraError, ModelInputError


class JsonGrammars:
    """Schemas to what a reply may say next, for one tokenizer; making it takes about a second."""

    def __init__(self, tokenizer: Any) -> None:
        """
        Raises:
            MissingExtraError: llguidance is not installed.
        """
        self._library = _llguidance()
        import llguidance.hf

        self.end = int(tokenizer.eos_token_id)
        self._tokenizer = llguidance.hf.from_tokenizer(tokenizer, n_vocab=len(tokenizer), eos_token=self.end)

    def matcher(self, schema: Mapping[str, Any]) -> Any:
        """What follows one reply.

        Raises:
            ModelInputError: The schema is none, is no JSON (NaN, half a letter, nested without end), or needs what
                llguidance does not know.
        """
        matcher = self._library.LLMatcher
        try:
            text = json.dumps(schema, allow_nan=False)
            said = matcher.grammar_from_json_schema(text, defaults={"whitespace_flexible": False})
        except (ValueError, TypeError, RecursionError) as error:
            raise _unusable(str(error)) from error
        found = matcher(self._tokenizer, said, log_level=0)  # it would write to standard error
        check(found)
        return found


class HeldToJson:
    """Changes the scores of a batch's replies so that each with a schema becomes JSON of it; used once a batch."""

    def __init__(self, grammars: JsonGrammars, prompt_length: int, schemas: Sequence[Mapping[str, Any] | None]) -> None:
        self.prompt_length, self.end = prompt_length, grammars.end
        self._matchers = [None if schema is None else grammars.matcher(schema) for schema in schemas]
        self._read = [0] * len(schemas)  # tokens that each matcher has been told of

    def __call__(self, input_ids: Tensor, scores: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """New scores, (replies, vocabulary), minus infinity where a token may not follow.

        Raises:
            ModelInputError: A schema turns out to have no end, or to be too large to follow.
        """
        changed = scores.clone()
        for row, number in enumerate(range(len(scores)) if rows is None else rows):
            matcher = self._matchers[number]
            if matcher is not None:
                allowed = torch.from_numpy(self._next(matcher, number, input_ids[row, self.prompt_length :].tolist()))
                kept = scores[row, allowed]
                changed[row] = float("-inf")
                changed[row, allowed] = kept
        return changed

    def _next(self, matcher: Any, number: int, ids: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
        if self.end in ids:
            return np.array([self.end])
        for token in ids[self._read[number] :]:
            matcher.consume_token(token)
        self._read[number] = len(ids)
        check(matcher)
        if matcher.is_stopped():
            return np.array([self.end])
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        check(matcher)
        allowed = np.flatnonzero(bits)
        return allowed if len(allowed) else np.array([self.end])


def check(matcher: Any) -> None:
    """Raises:
    ModelInputError: A matcher has given up: its schema is none, or has no end. The reply so far is no JSON then.
    """
    if matcher.is_error():
        raise _unusable(matcher.get_error().partition("\n<state>")[0])  # behind it stands the reply so far


def _unusable(why: str) -> ModelInputError:
    return ModelInputError(f"the JSON schema cannot be used ({why.strip()}); expected one of JSON Schema 2020-12")


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtraError(
            "a reply held to a JSON schema needs the library llguidance, which is not installed; "
            'install it with `pip install "gastrovl[structured]"`, or ask without a schema'
        ) from error
    return llguidance
