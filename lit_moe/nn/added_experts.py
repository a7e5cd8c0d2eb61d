"""Experts that ``lit-moe grow`` has added to a trained mixture, and the odds at which they take part.

Shape suffixes: T tokens, E routed experts, A added ones among them, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_moe.nn.config import Activation, Backend
from lit_moe.nn.experts import GroupedExperts
from lit_moe.nn.router import CountsSteps
from lit_moe.nn.router_linear import RouterLinear

#: Added to a logit at an odds of 0: finite, since differences of infinities are none, and its exponential is 0.
LOG_ZERO = -1e4


class AddedExperts(GroupedExperts, CountsSteps):
    """Experts with a gate of their own, which take part by and by.

    The odds of an added expert are multiplied by t / W after t of W optimizer steps: its logit has log(t / W) added to
    it. So a mixture computes at the first step what it computed before it grew, and nothing jumps later. They have
    weights of their own, so that ``lr_factors`` can slow down all others.

    Args:
        n_added: Number of added experts.
        d_model: Width of inputs and outputs.
        width: Hidden width of one expert.
        warmup: Optimizer steps W, 0 or more; with 0 they take part at once.
        activation: Activation of the experts' gates.
        backend: Implementation, as of `GroupedExperts`.

    Attributes:
        gate: Projection to the logits of these experts.
        waits: Whether tokens of training have been routed since the last step was counted.
        steps: Optimizer steps since they were added, an int64 scalar; a buffer, since the function depends on it.
    """

    steps: Tensor

    def __init__(
        self,
        n_added: int,
        d_model: int,
        width: int,
        warmup: int,
        activation: Activation = "silu",
        backend: Backend = "auto",
    ) -> None:
        super().__init__(n_added, d_model, width, activation, backend)
        self.warmup = warmup
        self.waits = False
        self.gate = RouterLinear(d_model, n_added)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def log_odds(self, n_others: int) -> Tensor:
        """Return what is added to the logits of all experts of the layer, ``(experts,)``, float32.

        Args:
            n_others: Number of the experts that are not added.
        """
        share = (self.steps / self.warmup).clamp(max=1.0) if self.warmup else self.steps.new_ones(()).float()
        log_odds = share.log().clamp(min=LOG_ZERO)
        return torch.cat((log_odds.new_zeros(n_others), log_odds.expand(self.n_experts)))

    def count_step(self) -> None:
        """Count an optimizer step; called by `step_routers`."""
        self.steps += 1
        self.waits = False
