"""Penalty-balanced top-k routing (PBTk)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lit_core.errors import UserError
from lit_moe.nn.router import Router


class PenaltyRouter(Router):
    """Route by a softmax over all experts, then top-k, balanced by an auxiliary loss (PBTk).

    The losses are α E Σ f_i P_i, with f_i = count_i / (k T) and P_i the mean probability, and λ times the mean of
    (log Σ exp z)². Each layer's losses are added to the objective, not averaged over layers.
    Fedus et al. 2022 (arXiv 2101.03961), Zoph et al. 2022 (arXiv 2202.08906), Thérien et al. 2025 (arXiv 2503.05029).

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        balance_weight: Factor α of the balance loss, 0 or more; the loss equals it at perfect balance.
        z_weight: Factor λ of the z-loss, 0 or more.
        scope: Tokens over which the balance loss counts; micro_batch means one forward pass on one device.
        normalize_top_k: Whether the weights of a token's experts are divided by their sum; needs top_k of 2 or more.
    """

    def __init__(
        self,
        n_experts: int,
        top_k: int,
        balance_weight: float = 0.01,
        z_weight: float = 0.001,
        scope: Literal["micro_batch"] = "micro_batch",
        normalize_top_k: bool = False,
    ) -> None:
        super().__init__(n_experts, top_k, normalize_top_k)
        for name, value in (("balance_weight", balance_weight), ("z_weight", z_weight)):
            if not 0 <= value < float("inf"):
                raise UserError(f"{name} is {value} but must be 0 or a positive number; set it to 0 to switch it off.")
        if scope != "micro_batch":
            raise UserError(f'scope is "{scope}" but the balance loss counts over "micro_batch" only; set it to that.')
        self.balance_weight = balance_weight
        self.z_weight = z_weight
        self.scope = scope

    def scores(self, logits_TE: Tensor, probs_TE: Tensor) -> Tensor:
        """Return the softmax over all experts."""
        return probs_TE

    def losses(self, raw_balance: Tensor, raw_z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return both losses, scaled."""
        return self.balance_weight * raw_balance, self.z_weight * raw_z
