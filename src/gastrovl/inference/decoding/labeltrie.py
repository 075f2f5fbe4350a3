"""Prompts about encoded images to the exact probability of every name as what a reply says, in one pass over all names.

The names form a tree of tokens. The language model reads the whole tree behind a prompt at once, each token seeing the
prompt and its own ancestors and standing at the position that its depth says (tree attention, as SpecInfer has it; Miao
et al., ASPLOS 2024). A name's probability is the product of its tokens' and of what ends it, so it is the one that
decoding token by token would find.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gastrovl.inference.decoding.greedy import Begun
from gastrovl.inference.decoding.labelnames import LabelNames, Node
from gastrovl.inference.decoding.prefix import Prompt, SharedImages

_ROWS = 8  # prompts in one pass: a pass reads them times all tokens of the tree
_SCORES = 2**24  # of the vocabulary that are held at once
LEAST_REACH = 1e-3  # further labels are looked at while a reply comes so far with this probability


@dataclass(frozen=True)
class FlatTrie:
    """A tree of names with its tokens in one row, parents before children.

    Attributes:
        tokens, depths: Of each token, (tokens,); the first of a name has depth 0.
        parents: Place of the token before, -1 for a first one, (tokens,).
        sees: Which token may look at which: its ancestors and itself, (tokens, tokens).
        names: The names, and `ends`: the place of the last token of each.
    """

    tokens: Tensor
    depths: Tensor
    parents: Tensor
    sees: Tensor
    names: tuple[str, ...]
    ends: Tensor


@dataclass(frozen=True)
class NameLogs:
    """Log-probabilities of names in float64, each (prompts, names).

    Attributes:
        said: Of a name's tokens.
        ended, followed: Behind them, of the reply's end, and of a separator.
    """

    said: Tensor
    ended: Tensor
    followed: Tensor

    @property
    def whole(self) -> Tensor:
        """That a reply is this name and nothing else."""
        return self.said + self.ended

    @property
    def begun(self) -> Tensor:
        """That a reply goes on with this label, whether or not more follow."""
        return self.said + torch.logaddexp(self.ended, self.followed)


def flat_trie(root: Node) -> FlatTrie:
    """The tokens below a node, depth first."""
    tokens, depths, parents, ends = list[int](), list[int](), list[int](), list[int]()
    names: list[str] = []
    waiting = [(token, child, -1, 0) for token, child in reversed(root.following.items())]
    while waiting:
        token, node, parent, depth = waiting.pop()
        place = len(tokens)
        tokens.append(token)
        depths.append(depth)
        parents.append(parent)
        if node.name is not None:
            names.append(node.name)
            ends.append(place)
        waiting += [(after, child, place, depth + 1) for after, child in reversed(node.following.items())]
    sees = torch.eye(len(tokens), dtype=torch.bool)
    for place, parent in enumerate(parents):
        if parent >= 0:
            sees[place] |= sees[parent]
    return FlatTrie(
        torch.tensor(tokens), torch.tensor(depths), torch.tensor(parents), sees, tuple(names), torch.tensor(ends)
    )


class LabelTrie:
    """Probabilities of a taxonomy's names, for prompts about encoded images."""

    def __init__(self, shared: SharedImages, names: LabelNames) -> None:
        self.shared, self._names = shared, names
        self.first, self.later = flat_trie(names.first), flat_trie(names.later)
        self._separators = torch.tensor(sorted(names.later.following))

    def logs(self, prompts: Sequence[Prompt], trie: FlatTrie) -> NameLogs:
        """Of every name of `trie` behind each prompt; a prompt may end in the beginning of a reply."""
        parts = [self._logs(prompts[start : start + _ROWS], trie) for start in range(0, len(prompts), _ROWS)]
        return NameLogs(*(torch.cat([getattr(part, what) for part in parts]) for what in ("said", "ended", "followed")))

    def whole(self, prompts: Sequence[Prompt]) -> list[dict[str, float]]:
        """Of each prompt, the probability of every name as the whole reply, given that it is one of them: sum 1."""
        logs = self.logs(prompts, self.first).whole
        return [dict(zip(self.first.names, row, strict=True)) for row in logs.softmax(dim=1).tolist()]

    def given(self, prompts: Sequence[Prompt], said: Sequence[Sequence[str]]) -> list[dict[str, float]]:
        """Of each prompt, the probability that a name is among the labels that a reply held to names gives.

        A reply is a list; all lists cannot be looked at. Counted are those that begin with the name and those that
        begin with the first labels of the greedy reply (`said`) and go on with it: never more than the truth, and less
        only by lists that leave the greedy one before they come to the name.
        """
        found: list[dict[str, float]] = [{} for _ in prompts]
        reach = [1.0] * len(prompts)
        begun = list(prompts)
        on = list(range(len(prompts)))
        trie, depth = self.first, 0
        while on:
            logs = self.logs([begun[row] for row in on], trie)
            total = logs.begun.logsumexp(dim=1, keepdim=True)
            chances = (logs.begun - total).exp().tolist()
            goes_on = (logs.said + logs.followed - total).exp().tolist()
            left = []
            for place, row in enumerate(on):
                earlier = set(said[row][:depth])
                for name, chance in zip(trie.names, chances[place], strict=True):
                    if name not in earlier:
                        found[row][name] = min(1.0, found[row].get(name, 0.0) + reach[row] * chance)
                if depth + 1 < len(said[row]):
                    name = said[row][depth]
                    reach[row] *= goes_on[place][trie.names.index(name)]
                    if reach[row] >= LEAST_REACH:
                        prompt = begun[row]
                        begun[row] = Prompt(prompt.key, [*prompt.ids, *self._names.ids(name, depth)], prompt.regions)
                        left.append(row)
            on, trie, depth = left, self.later, depth + 1
        return found

    def _logs(self, prompts: Sequence[Prompt], trie: FlatTrie) -> NameLogs:
        begun = Begun(self.shared, prompts, 0)
        device = begun.states.device
        tokens, parents, ends = (one.to(device) for one in (trie.tokens, trie.parents, trie.ends))
        ahead = begun.look_ahead(tokens, trie.depths.to(device), trie.sees.to(device))
        states = torch.cat([begun.states.unsqueeze(1), ahead], dim=1)  # the prompt's last token comes first
        after = _logs_after(begun.model.lm_head, states, parents + 1, tokens)
        steps = after.double()
        said = torch.zeros_like(steps)
        for place, parent in enumerate(trie.parents.tolist()):
            said[:, place] = steps[:, place] + (said[:, parent] if parent >= 0 else 0.0)
        last = states[:, ends + 1]
        ended, followed = _ends_after(begun.model.lm_head, last, self._names.end, self._separators.to(device))
        return NameLogs(said[:, ends].cpu(), ended.cpu(), followed.cpu())


def _logs_after(head: nn.Linear, states: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each of `tokens` behind the state at its place, (rows, tokens).

    Args:
        states: (rows, places, width).
        places, tokens: (tokens,).
    """
    found = states.new_zeros(len(states), len(tokens), dtype=torch.float32)
    for start, scores, total in _scored(head, states):
        is_here = (places >= start) & (places < start + scores.shape[1])
        here = places[is_here] - start
        found[:, is_here] = scores[:, here, tokens[is_here]] - total[:, here]
    return found


def _ends_after(head: nn.Linear, states: Tensor, end: int, separators: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the end and of any separator behind each state, both (rows, places), float64."""
    ended, followed = [], []
    for _, scores, total in _scored(head, states):
        ended.append(scores[..., end] - total)
        followed.append(scores[..., separators].logsumexp(dim=-1) - total)
    return torch.cat(ended, dim=1).double(), torch.cat(followed, dim=1).double()


def _scored(head: nn.Linear, states: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Parts of (rows, places, width): where each begins, its scores, and their total as a logarithm."""
    step = max(1, _SCORES // (len(states) * head.out_features))
    for start in range(0, states.shape[1], step):
        scores = head(states[:, start : start + step]).float()
        yield start, scores, scores.logsumexp(dim=-1)
