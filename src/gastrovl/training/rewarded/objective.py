"""Log-probabilities of sampled tokens, and what their replies gained, to the loss whose slope is the policy's gradient.

Every optimiser step samples its own replies, so the policy that sampled is the one that learns: their ratio, which
PPO and GRPO clip, is always 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """Sums over all tokens: the loss with its gradient, and the divergence from the reference without."""

    loss: Tensor
    divergence: Tensor


def policy_loss(said: Tensor, gained: Tensor, reference: Tensor | None, kl: float) -> PolicyLoss:
    """The summed loss of sampled tokens.

    Its slope is that of minus each reply's log-probability times what the reply gained, plus kl times the divergence;
    no length divides it, as in Dr. GRPO (arXiv:2503.20783). What is gained adds up to nothing in each group, so it adds
    nothing to the loss's value here either: that is kl times the divergence. The divergence of a token is
    exp(r) - r - 1 with r the reference's log-probability minus the policy's: never negative, and without bias for
    KL(policy || reference) ("k3", Schulman 2020, http://joschu.net/blog/kl-approx.html).

    Args:
        said: The policy's log-probability of each token, (tokens,).
        gained: The advantage of the reply that each token belongs to, (tokens,).
        reference: The reference's log-probability of each token, (tokens,); None leaves the divergence out.
        kl: Its weight.
    """
    loss = -(gained * (said - said.detach())).sum()
    if reference is None:
        return PolicyLoss(loss, torch.zeros((), device=said.device))
    apart = reference - said
    divergence = (apart.exp() - apart - 1.0).sum()
    return PolicyLoss(loss + kl * divergence, divergence.detach())
