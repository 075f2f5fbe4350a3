"""Questions to replies in the language model's words; those about one image share its prefix."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from gastrovl.clinical.answers import SEPARATOR
from gastrovl.clinical.taxonomy import Taxonomy
from gastrovl.core.types import Task
from gastrovl.inference.decoding.greedy import CONTEXT, Begun, greedy
from gastrovl.inference.decoding.holding import Forms, Held
from gastrovl.inference.decoding.labeltrie import LabelTrie
from gastrovl.inference.decoding.prefix import Prompt, SharedImages
from gastrovl.inference.decoding.prompts import prompt_ids
from gastrovl.inference.decoding.tokens import TokenBytes
from gastrovl.inference.question import HELD_TASKS, LABEL_TASKS, Piece, Question, Reply, SaidToken
from gastrovl.model.packed.shared_prefix import supports
from gastrovl.model.processor import GastroVLProcessor
from gastrovl.model.published.processor import ForeignProcessor

_ROWS = 128  # in one pass; more would only take more memory


@dataclass
class _Row:
    """What a reply consists of so far; `tops` are the likeliest tokens at each place."""

    ids: list[int] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    tops: list[list[tuple[int, float]]] = field(default_factory=list)

    def add(self, token: int, log: float, top: list[tuple[int, float]]) -> None:
        self.ids.append(token)
        self.logs.append(log)
        self.tops.append(top)


def shares_prefixes(model: object, processor: GastroVLProcessor) -> bool:
    """Whether a model's questions can share what they have in common: one of ours, whose layers look back freely."""
    return not isinstance(processor, ForeignProcessor) and supports(model.model.language_model)  # type: ignore[attr-defined]


class Words:
    """The language model of a checkpoint of ours."""

    def __init__(self, shared: SharedImages, forms: Forms) -> None:
        self.shared, self.forms = shared, forms
        self.processor = shared.processor
        self.end = int(self.processor.tokenizer.eos_token_id)

    def prompts(self, questions: Sequence[Question]) -> list[Prompt]:
        """Questions as rows to be read."""
        processor = self.processor
        is_gated = bool(len(self.shared.model.model.gated_blocks))
        rows = [prompt_ids(processor, one, is_gated=is_gated) for one in questions]
        keys = iter(self.shared.keys([image for question in questions for image in question.images]))
        return [
            Prompt(next(keys), ids, processor.regions(one.turns), tuple(next(keys) for _ in one.further))
            for ids, one in zip(rows, questions, strict=True)
        ]

    def states(self, questions: Sequence[Question]) -> Tensor:
        """The state in which each reply would begin, (questions, text width).

        The first question about an image not read yet is read in one pass with it, the others behind what is shared.
        """
        prompts = self.prompts(questions)
        firsts: dict[bytes, int] = {}
        for place, prompt in enumerate(prompts):
            if not self.shared.is_read(prompt.key):
                firsts.setdefault(prompt.key, place)
        first = list(firsts.values())
        others = sorted(set(range(len(prompts))) - set(first))
        parts = [self.shared.begin([prompts[place] for place in first])] if first else []
        for start in range(0, len(others), _ROWS):
            parts.append(Begun(self.shared, [prompts[place] for place in others[start : start + _ROWS]], 0).states)
        states = torch.cat(parts)
        return states[torch.tensor([*first, *others], device=states.device).argsort()]

    def replies(self, questions: Sequence[Question], limits: Sequence[int]) -> list[Reply]:
        """Greedy replies, each of so many tokens at most."""
        started = time.perf_counter()
        prompts = self.prompts(questions)
        limits = [self.forms.limit(question, most) for question, most in zip(questions, limits, strict=True)]
        # Rows of one pass should end alike: those of one limit together, then those of one image.
        order = sorted(range(len(questions)), key=lambda place: (-limits[place], prompts[place].key))
        found: dict[int, Reply] = {}
        for start in range(0, len(order), _ROWS):
            some = order[start : start + _ROWS]
            made = self._replied(
                [questions[one] for one in some], [prompts[one] for one in some], [limits[one] for one in some]
            )
            found.update(zip(some, made, strict=True))
        chances = self._probabilities(questions, prompts, found)
        seconds = (time.perf_counter() - started) / len(questions)
        return [
            replace(found[place], seconds=seconds, probabilities=chances.get(place)) for place in range(len(questions))
        ]

    def _probabilities(
        self, questions: Sequence[Question], prompts: Sequence[Prompt], replies: Mapping[int, Reply]
    ) -> dict[int, dict[str, float]]:
        """Of the questions that want them, by their places: CLS of a label being given at all, REG of each name."""
        found: dict[int, dict[str, float]] = {}
        for task in LABEL_TASKS:
            places = [place for place, one in enumerate(questions) if one.wants_probabilities and one.task is task]
            if places:
                asked = [prompts[place] for place in places]
                said = [replies[place].text.split(SEPARATOR) for place in places]
                chances = self._trie.given(asked, said) if task is Task.CLS else self._trie.whole(asked)
                for place, by_name in zip(places, chances, strict=True):
                    found[place] = {term.id: by_name[term.name] for term in Taxonomy.load().terms}
        return found

    @cached_property
    def _trie(self) -> LabelTrie:
        return LabelTrie(self.shared, self.forms.names)

    def stream(self, question: Question, limit: int) -> Generator[str, None, Reply]:
        """The pieces of a reply as they are said, which joined are its text; returns the reply."""
        limit = self.forms.limit(question, limit)
        begun = Begun(self.shared, self.prompts([question]), limit)
        held = self.forms.hold([question], CONTEXT)
        row, given, told = _Row(), "", 0
        for step in greedy(begun, held, [limit], self.end, question.top_logprobs or 0):
            row.add(step.tokens[0], step.logs[0], step.tops[0])
            text = held.text(0, row.ids)
            if question.task not in HELD_TASKS and self._stays(text) and text.startswith(given):
                if text != given:
                    yield self._piece(question, text[len(given) :], row, told)
                    told = len(row.ids)
                given = text
        if (text := held.text(0, row.ids)) != given:
            yield self._piece(question, text[len(given) :], row, told)
        return self._reply(held, 0, question, row)

    def _piece(self, question: Question, text: str, row: _Row, told: int) -> str:
        if question.top_logprobs is None:
            return text
        piece = Piece(text)
        piece.tokens = self._said(question, row, told)
        return piece

    def _said(self, question: Question, row: _Row, start: int = 0) -> tuple[SaidToken, ...]:
        """The tokens of a reply from one on."""
        return self._bytes.said(row.ids[start:], row.logs[start:], row.tops[start:], question.top_logprobs or 0)

    @cached_property
    def _bytes(self) -> TokenBytes:
        return TokenBytes(self.processor.tokenizer)

    def _stays(self, text: str) -> bool:
        """Whether what follows cannot change a text: no part of a letter at its end, no box in another coding."""
        return not text.endswith("\ufffd") and (self.processor.coding.is_plain or not set(text) & set("{<[]"))

    def _replied(self, questions: Sequence[Question], prompts: Sequence[Prompt], limits: Sequence[int]) -> list[Reply]:
        held = self.forms.hold(questions, CONTEXT)
        begun = Begun(self.shared, prompts, max(limits))
        rows = [_Row() for _ in questions]
        top = max(one.top_logprobs or 0 for one in questions)
        for step in greedy(begun, held, limits, self.end, top):
            for row, token, log, likeliest in zip(step.rows, step.tokens, step.logs, step.tops, strict=True):
                rows[row].add(token, log, likeliest)
        return [self._reply(held, place, *pair) for place, pair in enumerate(zip(questions, rows, strict=True))]

    def _reply(self, held: Held, place: int, question: Question, row: _Row) -> Reply:
        sure = min(1.0, math.exp(sum(row.logs) / len(row.logs)))
        tokens = None if question.top_logprobs is None else self._said(question, row)
        return Reply(
            held.text(place, row.ids), sure, 0.0, "end" if row.ids[-1] == self.end else "length", tokens=tokens
        )
