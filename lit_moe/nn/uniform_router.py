"""Routing that ignores the logits, for benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_moe.nn.router import Router


class UniformRouter(Router):
    """Assigns the experts to the tokens in turn, so that every expert gets the same load; for benchmarks.

    The weights are the softmax of the logits, so that the router has a gradient.

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        normalize_top_k: Whether the weights of a token's experts are divided by their sum; needs top_k of 2 or more.
    """

    def scores(self, logits_TE: Tensor, probs_TE: Tensor) -> Tensor:
        """Return the softmax over all experts."""
        return probs_TE

    def log_scores(self, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """Return the logits: a softmax differs from their exponentials by a factor per token."""
        return logits_TE

    def infer(self, logits_TE: Tensor, scores_TE: Tensor, mask_T: Tensor | None) -> Tensor:
        """Return the experts t k, t k + 1, … modulo their number for the t-th token that counts."""
        if mask_T is None:
            turn_T = torch.arange(len(logits_TE), device=logits_TE.device)
        else:
            turn_T = mask_T.long().cumsum(0) - 1
        slots_k = torch.arange(self.top_k, device=logits_TE.device)
        return (turn_T[:, None] * self.top_k + slots_k) % self.n_experts
