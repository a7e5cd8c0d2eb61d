"""`GateRouter`, which measures the routing that a foreign gate has done and adds losses to it."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_core.errors import check_above
from lit_moe.functional.routing import count_experts
from lit_moe.nn.gate_scores import probabilities
from lit_moe.nn.hf_bias import SelectionBias
from lit_moe.nn.penalty_router import PenaltyRouter
from lit_moe.nn.router import RoutedTokens, RouterStats


class GateRouter(PenaltyRouter):
    """Router of a foreign gate, which chooses and weighs the experts itself; it only measures and adds losses.

    The losses are those of `PenaltyRouter`. Their probabilities are the gate's scores divided by their sum over all
    experts, and they count the experts that the tokens were sent to, chosen with a selection bias or within groups as
    the gate does it. The z-loss is that of the logits, whatever the scores are.

    Args:
        n_experts: Number of columns of the gate's logits.
        top_k: Experts per token.
        balance_weight: Factor of the balance loss of a micro-batch, 0 or more; 0 adds none.
        z_weight: Factor of the z-loss, 0 or more; 0 adds none.
        sequence_weight: Factor of the balance loss of each sequence by itself, 0 or more; 0 adds none.
        global_weight: Factor of the balance loss of the optimizer step so far on all devices, 0 or more; 0 adds none.
        bias: The gate's selection bias, which is moved after each optimizer step; None moves none.
        bias_rate: Amount by which the bias moves per optimizer step, above 0.
    """

    def __init__(
        self,
        n_experts: int,
        top_k: int,
        balance_weight: float = 0.0,
        z_weight: float = 0.0,
        sequence_weight: float = 0.0,
        global_weight: float = 0.0,
        bias: SelectionBias | None = None,
        bias_rate: float = 0.001,
    ) -> None:
        super().__init__(
            n_experts, top_k, balance_weight, z_weight, sequence_weight=sequence_weight, global_weight=global_weight
        )
        check_above(0, bias_rate=bias_rate)
        self.bias = bias
        self.bias_rate = bias_rate
        self.counts_steps = global_weight > 0 or bias is not None

    @property
    def has_losses(self) -> bool:
        """Whether a factor of a loss is not 0."""
        return any((self.balance_weight, self.z_weight, self.sequence_weight, self.global_weight))

    def read(
        self,
        logits_TE: Tensor,
        indices_Tk: Tensor,
        mask_T: Tensor | None,
        sequences: int | None = None,
        score: str | None = "softmax",
    ) -> RouterStats:
        """Return the statistics of a routing that a gate has done.

        Args:
            logits_TE: The gate's logits, shape ``(tokens, experts)``.
            indices_Tk: Experts that the tokens were sent to, shape ``(tokens, k)``.
            mask_T: True for tokens that count; None for all.
            sequences: Number of sequences that the tokens make up; None if it is not known.
            score: How the gate scores experts, a key of `lit_moe.nn.gate_scores.LOG_SCORES`; None if it is not known,
                so that the balance is not either.
        """
        logits_TE = logits_TE if logits_TE.dtype == torch.float64 else logits_TE.float()
        probs_TE = torch.full_like(logits_TE, torch.nan) if score is None else probabilities(score, logits_TE)
        counts_E = count_experts(indices_Tk, self.n_experts, mask_T)
        return self._stats(RoutedTokens(logits_TE, probs_TE, indices_Tk, counts_E, mask_T, sequences), counts_E)

    def losses(self, raw_balance: Tensor, raw_z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the losses that are switched on, scaled."""
        balance, z = super().losses(raw_balance, raw_z)
        return balance if self.balance_weight else None, z if self.z_weight else None

    @property
    def moved_bias(self) -> Tensor | None:
        """The gate's selection bias if it is moved."""
        return None if self.bias is None else self.bias.whole

    def end_step(self, counts_E: Tensor) -> None:
        """Move the selection bias towards an even load, where it is to be moved."""
        if self.bias is not None:
            self.bias.move(counts_E, self.bias_rate)
