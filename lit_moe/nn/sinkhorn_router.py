"""Sinkhorn-balanced top-k routing (SBTk)."""

from __future__ import annotations

from torch import Tensor

from lit_core.errors import check_at_least
from lit_moe.functional.routing import log_sinkhorn
from lit_moe.nn.router import Router


class SinkhornRouter(Router):
    """Balances the choice of experts over the batch by Sinkhorn's algorithm, without an auxiliary loss.

    In training the experts are the top-k of the balanced matrix, but their weights come from the unbalanced logits:
    a sigmoid for one expert per token, a softmax over all experts for more. The balanced matrix carries no gradient.
    Evaluation does not balance, as one token alone cannot be balanced. Clark et al. 2022 (arXiv 2202.01169),
    Anthony et al. 2024 (arXiv 2402.01771), Thérien et al. 2025 (arXiv 2503.05029).

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        tolerance: Mean relative change of the column scale at which the balancing stops, 0 or more.
        max_iterations: Largest number of balancing iterations per call.
        normalize_top_k: Whether the weights of a token's experts are divided by their sum; needs top_k of 2 or more.
    """

    def __init__(
        self,
        n_experts: int,
        top_k: int,
        tolerance: float = 0.01,
        max_iterations: int = 20,
        normalize_top_k: bool = False,
    ) -> None:
        super().__init__(n_experts, top_k, normalize_top_k)
        check_at_least(0, tolerance=tolerance)
        check_at_least(1, max_iterations=max_iterations)
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def scores(self, logits_TE: Tensor, probs_TE: Tensor) -> Tensor:
        """Return the sigmoid for one expert per token, the softmax for more."""
        return logits_TE.sigmoid() if self.top_k == 1 else probs_TE

    def log_scores(self, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """Return the logits: a softmax is their exponentials times a factor, and one sigmoid alone rises with them."""
        return logits_TE

    def is_softmax_top_k(self) -> bool:
        """Tell whether inference is that of Hugging Face's mixtures; with one expert per token the weight is not."""
        return self.top_k > 1

    def select_in_training(self, logits_TE: Tensor, scores_TE: Tensor, mask_T: Tensor | None) -> Tensor:
        """Return the top-k of the balanced matrix; masked tokens take those of their logits."""
        # Compared as logarithms: small entries of the balanced matrix vanish in float32 and would tie.
        shares_E = None if self.log_odds_E is None else self.log_odds_E.log_softmax(-1)
        balanced_TE = log_sinkhorn(logits_TE, self.tolerance, self.max_iterations, mask_T, shares_E)
        if mask_T is None:
            return balanced_TE.topk(self.top_k, dim=-1).indices
        return balanced_TE.where(mask_T[:, None], logits_TE).topk(self.top_k, dim=-1).indices
