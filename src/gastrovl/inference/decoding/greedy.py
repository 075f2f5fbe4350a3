"""Prompts about encoded images to replies, token by token and greedily, each row as long as it goes on.

The language model reads what follows the shared prefix of all rows in one pass; then each pass adds one token to every
row. Rows that have ended are left out of the passes after, so that a batch costs what its replies cost and not its
longest reply times its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from gastrovl.inference.decoding.holding import RowChooser
from gastrovl.inference.decoding.prefix import Prompt, SharedImages
from gastrovl.inference.decoding.rowcache import cache_argument, growing_cache, keep_rows, layers_of, roomy_cache
from gastrovl.inference.decoding.tokens import likeliest

CONTEXT = 2  # tokens of the prompt that stand before a reply's own in what choosers see
_WORTH_PACKING = 0.75  # rows that go on, of those in a pass, from which on the others are left in


@dataclass(frozen=True)
class Step:
    """One token of every row that still goes on.

    Attributes:
        rows: Their numbers.
        tokens: What each says now.
        logs: Log-probability of each, as the model gave it before choosers changed the scores.
        tops: Of each the likeliest tokens and their log-probabilities in the same way, as many as were asked for.
    """

    rows: list[int]
    tokens: list[int]
    logs: list[float]
    tops: list[list[tuple[int, float]]]


class Begun:
    """Rows whose prompts have been read.

    Attributes:
        states: In which each reply would begin, (rows, text width).
        is_key: Which positions hold a token, (rows, positions).
        lengths: Of the prompts, (rows,).
    """

    def __init__(self, shared: SharedImages, prompts: Sequence[Prompt], room: int) -> None:
        self.model, self._trunk = shared.model, shared.model.model
        keys = [prompt.key for prompt in prompts]
        suffixes = [shared.suffix(prompt.ids) for prompt in prompts]
        longest, device = max(map(len, suffixes)), self.model.device
        pad = int(shared.processor.tokenizer.pad_token_id)
        ids = torch.tensor([[pad] * (longest - len(one)) + one for one in suffixes], device=device)
        is_said = torch.tensor([[False] * (longest - len(one)) + [True] * len(one) for one in suffixes], device=device)
        self._cache: Cache = roomy_cache(shared.layers(keys), longest + room)
        self._name = cache_argument(self._trunk.language_model)
        self._gates = shared.gates(keys)
        self.is_key = torch.cat([is_said.new_ones(len(keys), shared.length), is_said], dim=1)
        self.lengths = self.is_key.sum(dim=1)
        self.ids = ids[:, -CONTEXT:]
        embedded = shared.embedded(prompts, ids)
        earlier = torch.ones(longest, self.is_key.shape[1], dtype=torch.bool, device=device).tril(shared.length)
        positions = self.is_key.cumsum(dim=1)[:, shared.length :] - 1
        self.states = self.read(embedded, earlier & self.is_key[:, None], positions)[:, -1]

    def read(self, embedded: Tensor, is_seen: Tensor, positions: Tensor, cache: Cache | None = None) -> Tensor:
        """Run the language model on, (rows, new, width) to its states; `is_seen` is (rows, new, all positions)."""
        said: Tensor = self._trunk.language_model(
            inputs_embeds=embedded,
            attention_mask=is_seen.unsqueeze(1),
            position_ids=positions,
            use_cache=True,
            **{self._name: self._cache if cache is None else cache},
            **(self._trunk.gating(None, self._gates) if self._gates is not None else {}),
        ).last_hidden_state
        return said

    def say(self, tokens: Tensor) -> None:
        """Add one token to every row, (rows,)."""
        self.is_key = torch.nn.functional.pad(self.is_key, (0, 1), value=True)
        embedded = self.model.get_input_embeddings()(tokens.unsqueeze(1))
        self.states = self.read(embedded, self.is_key[:, None], self.lengths.unsqueeze(1))[:, -1]
        self.lengths = self.lengths + 1

    def look_ahead(self, tokens: Tensor, depths: Tensor, sees: Tensor) -> Tensor:
        """States of tokens that may follow every row, (rows, tokens, text width); nothing is said by that.

        Args:
            tokens, depths: (tokens,); a token that would come next has depth 0.
            sees: Which of them may look at which, (tokens, tokens).
        """
        rows = len(self.lengths)
        is_seen = torch.cat([self.is_key[:, None].expand(-1, len(tokens), -1), sees.expand(rows, -1, -1)], dim=2)
        embedded = self.model.get_input_embeddings()(tokens).expand(rows, -1, -1)
        cache = growing_cache(layers_of(self._cache))
        return self.read(embedded, is_seen, self.lengths.unsqueeze(1) + depths, cache)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        keep_rows(self._cache, rows)
        self.is_key, self.lengths, self.states = self.is_key[rows], self.lengths[rows], self.states[rows]
        self._gates = None if self._gates is None else self._gates[rows]


def greedy(begun: Begun, choose: RowChooser, limits: Sequence[int], end: int, top: int = 0) -> Iterator[Step]:
    """Say the likeliest token of each row, until it is `end` or the row has as many as its limit.

    Args:
        top: How many of the likeliest tokens to name at each step.
    """
    rows = list(range(len(limits)))
    ids = begun.ids
    is_done = [False] * len(rows)  # of the rows in the pass; those are not told of any more
    for step in range(1, max(limits) + 1):
        scores = begun.model.lm_head(begun.states)
        chosen = choose(ids, scores, rows).argmax(dim=-1)
        said = scores.float()
        logs = said.gather(1, chosen.unsqueeze(1)).squeeze(1) - said.logsumexp(dim=-1)
        tokens = chosen.tolist()
        on = [place for place, done in enumerate(is_done) if not done]
        values = logs.tolist()
        tops = likeliest(said, top)
        yield Step(
            [rows[one] for one in on],
            [tokens[one] for one in on],
            [values[one] for one in on],
            [tops[one] for one in on],
        )
        is_done = [
            done or token == end or step >= limits[row] for done, token, row in zip(is_done, tokens, rows, strict=True)
        ]
        if all(is_done):
            return
        ids = torch.cat([ids, chosen.unsqueeze(1)], dim=1)
        left = [place for place, done in enumerate(is_done) if not done]
        if len(left) <= _WORTH_PACKING * len(rows):
            kept = torch.tensor(left, device=ids.device)
            begun.keep(kept)
            ids, chosen, rows, is_done = ids[kept], chosen[kept], [rows[one] for one in left], [False] * len(left)
        begun.say(chosen)
