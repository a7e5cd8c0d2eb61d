"""Penalty-balanced top-k routing (PBTk)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_moe.functional.routing import balance_loss, jitter, masked_mean, sequence_balance_loss
from lit_moe.nn.router import RoutedTokens, Router, recomputing, sequences_known, sum_over_devices


class PenaltyRouter(Router):
    """Routes by a softmax over all experts, then top-k, balanced by an auxiliary loss (PBTk).

    The losses are α E Σ f_i P_i, with f_i = count_i / (k T) and P_i the mean probability, and λ times the mean of
    (log Σ exp z)². Each layer's losses are added to the objective, not averaged over layers. Balance losses of several
    scopes can be added: that of `balance_weight`, and those of `sequence_weight` and `global_weight`. A sequence is a
    row of the batch.

    With the scope ``micro_batch``, f_i counts the tokens of one forward pass on one device. With ``global_batch`` it
    counts, in training, those of this optimizer step so far, on all devices: without accumulation the losses average to
    that of the whole batch, if each device has as many tokens. With accumulation the first micro-batches count the
    least. With 4 of 1,024 tokens the loss was 0.3 % off the whole batch's, against 1.1 % for ``micro_batch``, but the
    routers' gradient 13 % against 5 % (measured by `benchmarks/balance_scope.py`): choose it for many devices, not for
    long accumulation. `MoELanguageModel` ends the steps; another LightningModule calls
    `lit_moe.nn.step_routers(self)` in its ``on_before_optimizer_step``.

    Fedus et al. 2022 (arXiv 2101.03961), Zoph et al. 2022 (arXiv 2202.08906), Thérien et al. 2025 (arXiv 2503.05029).

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        balance_weight: Factor α of the balance loss, 0 or more; the loss equals it at perfect balance.
        z_weight: Factor λ of the z-loss, 0 or more.
        scope: Tokens that the balance loss counts: micro_batch, one forward pass on one device; or global_batch, the
            optimizer step so far on all devices.
        jitter: Largest relative change of the router's input by random factors in training, from 0 to below 1; 0 for
            none. The experts get the input unchanged.
        normalize_top_k: Whether the weights of a token's experts are divided by their sum; needs top_k of 2 or more.
        sequence_weight: Factor of a further balance loss of each sequence by itself, averaged over the sequences
            (DeepSeek-AI 2024, arXiv 2412.19437), 0 or more.
        global_weight: Factor of a further balance loss of the scope global_batch, 0 or more.
    """

    def __init__(
        self,
        n_experts: int,
        top_k: int,
        balance_weight: float = 0.01,
        z_weight: float = 0.001,
        scope: Literal["micro_batch", "global_batch"] = "micro_batch",
        jitter: float = 0.0,
        normalize_top_k: bool = False,
        sequence_weight: float = 0.0,
        global_weight: float = 0.0,
    ) -> None:
        super().__init__(n_experts, top_k, normalize_top_k)
        check_at_least(0, balance_weight=balance_weight, z_weight=z_weight)
        check_at_least(0, sequence_weight=sequence_weight, global_weight=global_weight)
        if scope not in ("micro_batch", "global_batch"):
            raise UserError(f'scope is "{scope}" but must be micro_batch or global_batch; set one of them.')
        if not 0 <= jitter < 1:
            raise UserError(f"jitter is {jitter} but must be from 0 to below 1; set it to 0 to switch it off.")
        self.balance_weight = balance_weight
        self.z_weight = z_weight
        self.scope = scope
        self.jitter = jitter
        self.sequence_weight = sequence_weight
        self.global_weight = global_weight
        self.counts_steps |= scope == "global_batch" or global_weight > 0
        self._counts_of_all: Tensor | None = None

    def perturb(self, x_TD: Tensor) -> Tensor:
        """Return the tokens with jitter in training."""
        return jitter(x_TD, self.jitter) if self.training and self.jitter else x_TD

    def scores(self, logits_TE: Tensor, probs_TE: Tensor) -> Tensor:
        """Return the softmax over all experts."""
        return probs_TE

    def log_scores(self, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """Return the logits: a softmax differs from their exponentials by a factor per token."""
        return logits_TE

    def is_softmax_top_k(self) -> bool:
        """Tell whether inference is that of Hugging Face's mixtures: always."""
        return True

    def balance_counts(self, counts_E: Tensor) -> Tensor:
        """Return the tokens per expert in the scope of the balance loss."""
        return self._step_counts(counts_E) if self.scope == "global_batch" else counts_E

    def _step_counts(self, counts_E: Tensor) -> Tensor:
        """Return the tokens per expert of this step so far on all devices; outside of training those given."""
        if self.step_counts is None or not self.training:
            return counts_E
        # A recomputation must find what the forward pass found, and waits for no other device.
        if self._counts_of_all is None or not recomputing():
            self._counts_of_all = sum_over_devices(self.step_counts)
        return self._counts_of_all

    def more_balance(self, routed: RoutedTokens) -> Tensor | None:
        """Return the balance losses of `sequence_weight` and `global_weight`, where one is not 0."""
        losses = []
        if self.sequence_weight:
            rows = sequences_known(routed.sequences, self.sequence_weight)
            of_rows = sequence_balance_loss(routed.probs_TE, routed.indices_Tk, rows, routed.mask_T)
            losses.append(self.sequence_weight * of_rows)
        if self.global_weight:
            step_E = self._step_counts(routed.counts_E)
            mean_E = masked_mean(routed.probs_TE, routed.mask_T)
            losses.append(self.global_weight * balance_loss(mean_E, step_E, step_E.sum() // self.top_k, self.top_k))
        return torch.stack(losses).sum() if losses else None

    def losses(self, raw_balance: Tensor, raw_z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return both losses, scaled."""
        return self.balance_weight * raw_balance, self.z_weight * raw_z
