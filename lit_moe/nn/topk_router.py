"""Plain top-k routing, without balancing."""

from __future__ import annotations

from torch import Tensor

from lit_moe.nn.router import Router


class TopKRouter(Router):
    """Routes by a softmax over all experts, then top-k, without any balancing.

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

    def is_softmax_top_k(self) -> bool:
        """Tell whether inference is that of Hugging Face's mixtures: always."""
        return True
