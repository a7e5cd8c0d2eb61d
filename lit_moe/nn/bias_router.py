"""Top-k routing balanced by a bias on the selection, without an auxiliary loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lit_core.errors import check_above, check_at_least
from lit_core.lightning.exact_buffers import ExactBuffers
from lit_moe.functional.routing import balance_bias, sequence_balance_loss
from lit_moe.nn.router import RoutedTokens, Router, sequences_known


class BiasRouter(ExactBuffers, Router):
    """Routes by a sigmoid of each logit: experts are chosen by score plus bias and weighed by the score alone.

    After each optimizer step the bias of an expert moves by a fixed amount γ, up if it got fewer tokens than the mean
    expert and down if it got more, counted over all micro-batches and devices of the step; then the mean bias is
    subtracted. So only the language loss trains the weights, and with `sequence_weight` a balance loss as well.
    Inference chooses by score plus bias too. The bias is a buffer, not a parameter: it is saved with the weights, in
    float32 under every precision. Algorithm 1 of Wang et al. 2024 (arXiv 2408.15664); DeepSeek-AI 2024 (arXiv
    2412.19437).

    `MoELanguageModel` calls `lit_moe.nn.step_routers(self)` in its ``on_before_optimizer_step``, and another
    LightningModule has to. If the weights change without that call, the next forward pass raises an error.

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        update_rate: Amount γ by which a bias moves per optimizer step, above 0; scores lie between 0 and 1.
        normalize_top_k: Whether the weights of a token's experts are divided by their sum; needs top_k of 2 or more.
        sequence_weight: Factor of a balance loss of each sequence by itself, 0 or more; 0 adds none. DeepSeek-V3 has
            0.0001. It takes the scores divided by their sum over all experts.
    """

    bias: Tensor
    exact_buffers = ("bias",)  # rounding to bfloat16 changes a bias more than a step does

    def __init__(
        self,
        n_experts: int,
        top_k: int,
        update_rate: float = 0.001,
        normalize_top_k: bool = False,
        sequence_weight: float = 0.0,
    ) -> None:
        super().__init__(n_experts, top_k, normalize_top_k)
        check_above(0, update_rate=update_rate)
        check_at_least(0, sequence_weight=sequence_weight)
        self.update_rate = update_rate
        self.sequence_weight = sequence_weight
        self.register_buffer("bias", torch.zeros(n_experts, dtype=torch.float32))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set all biases to 0."""
        self.bias.zero_()

    def scores(self, logits_TE: Tensor, probs_TE: Tensor) -> Tensor:
        """Return the sigmoid of each logit."""
        return logits_TE.sigmoid()

    def log_scores(self, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """Return the logarithm of the sigmoid of each logit."""
        return logsigmoid(logits_TE)

    def infer(self, logits_TE: Tensor, scores_TE: Tensor, mask_T: Tensor | None) -> Tensor:
        """Return the experts with the largest score plus bias; where these are equal, the larger logit decides."""
        by_logit_TE = logits_TE.argsort(dim=-1, descending=True)
        bias_E = self.bias if self.log_odds_E is None else self.bias + self.log_odds_E
        biased_TE = (scores_TE + bias_E).gather(-1, by_logit_TE)
        ranked_TE = biased_TE.argsort(dim=-1, descending=True, stable=True)
        return by_logit_TE.gather(-1, ranked_TE[:, : self.top_k])

    def more_balance(self, routed: RoutedTokens) -> Tensor | None:
        """Return the balance loss of each sequence by itself, scaled; None if its factor is 0."""
        if not self.sequence_weight:
            return None
        shares_TE = logsigmoid(routed.logits_TE).softmax(-1)  # the scores divided by their sum
        rows = sequences_known(routed.sequences, self.sequence_weight)
        return self.sequence_weight * sequence_balance_loss(shares_TE, routed.indices_Tk, rows, routed.mask_T)

    @property
    def moved_bias(self) -> Tensor:
        """The bias."""
        return self.bias

    def end_step(self, counts_E: Tensor) -> None:
        """Move the biases by γ towards an even load."""
        self.bias.copy_(balance_bias(self.bias, counts_E, self.update_rate))  # in place: others refer to it
