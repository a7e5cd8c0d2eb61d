"""Feed-forward layers: dense, and a mixture of experts.

Shape suffixes: B batch, S sequence, T = B S tokens, D model width, E experts, k experts per token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_moe.nn.added_experts import AddedExperts
from lit_moe.nn.config import Activation, MoEConfig
from lit_moe.nn.experts import GroupedExperts
from lit_moe.nn.gates import WatchedGate, gate_of
from lit_moe.nn.router import RouterCallable, RouterStats, recomputing
from lit_moe.nn.router_linear import RouterLinear


class FeedForward(nn.Module):
    """Gated feed-forward layer, down(activation(gate(x)) * up(x)), without biases.

    Args:
        d_model: Width of inputs and outputs.
        width: Hidden width.
        activation: Activation of the gate.
    """

    def __init__(self, d_model: int, width: int, activation: Activation = "silu") -> None:
        super().__init__()
        self.gate = nn.Linear(d_model, width, bias=False)
        self.up = nn.Linear(d_model, width, bias=False)
        self.down = nn.Linear(width, d_model, bias=False)
        self.activation = nn.SiLU() if activation == "silu" else nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Transform ``(..., d_model)`` to the same shape."""
        return self.down(self.activation(self.gate(x)) * self.up(x))


class MoEFeedForward(nn.Module):
    """Mixture-of-experts feed-forward layer: the weighted sum of each token's routed experts, plus shared experts.

    With T tokens, E routed experts and k experts per token, a forward pass takes these steps:

    1. The input ``(..., d_model)`` is flattened to tokens ``(T, d_model)``.
    2. The gate, a linear layer in float32, computes logits ``(T, E)``. A router may perturb the tokens that the gate
       reads (`Router.perturb`); the experts get them unchanged.
    3. The router chooses experts ``(T, k)`` and weights ``(T, k)`` from the logits. Its statistics become `stats`.
    4. Each token is copied to k rows, and the T k rows are sorted by expert. Each expert transforms its rows
       ``(n, d_model)``, scaled by their weights. The k rows of each token are summed: ``(T, d_model)``. Where the
       experts are divided among devices, the rows are sent to the devices of their experts and back.
       Experts that ``lit-moe grow`` has added have weights of their own, and take part by and by; see `AddedExperts`.
    5. Shared experts, if any, transform all tokens: one gated feed-forward layer of width n_shared × expert_width. With
       ``shared_gate`` its output is multiplied by a sigmoid ``(T, 1)`` of the token. It is added to the routed output.
    6. The sum is reshaped to the shape of the input.

    Args:
        d_model: Width of inputs and outputs.
        config: Shape of the mixture.
        router: Makes the router from the number of experts and of experts per token.
        activation: Activation of the experts' gates.

    Attributes:
        stats: Statistics of the router in the last forward pass; None before the first. A plain attribute, not
            buffers: data-parallel training would overwrite buffers by those of the first device, and checkpoints would
            hold them.
    """

    def __init__(
        self, d_model: int, config: MoEConfig, router: RouterCallable, activation: Activation = "silu"
    ) -> None:
        super().__init__()
        first = config.n_experts - config.n_added
        self.gate = RouterLinear(d_model, first)
        self.router = router(config.n_experts, config.top_k)
        self.router.normalize_top_k |= config.normalize_top_k
        self.experts = GroupedExperts(first, d_model, config.expert_width, activation, config.backend)
        self.added: AddedExperts | None = None
        if config.n_added:
            sizes = (config.n_added, d_model, config.expert_width, config.added_warmup)
            self.added = AddedExperts(*sizes, activation, config.backend)
        self.shared: FeedForward | None = None
        self.shared_gate: nn.Linear | None = None
        if config.n_shared:
            self.shared = FeedForward(d_model, config.n_shared * config.expert_width, activation)
        if config.shared_gate:
            self.shared_gate = nn.Linear(d_model, 1, bias=False)
        self.stats: RouterStats | None = None
        self._version = 0

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Transform tokens.

        Args:
            x: Tokens of shape ``(..., d_model)``.
            mask: True for real tokens, shape ``(...)``; None for all. Other tokens enter no count, loss or balancing.

        Returns:
            The same shape as the input.
        """
        x_TD = x.reshape(-1, x.shape[-1])
        counts = self.router.counts_steps or self.added is not None
        if counts and self.training and not torch.compiler.is_compiling():
            self._check_steps()
        logits_TE = self._logits(self.router.perturb(x_TD))
        sequences = len(x) if x.dim() == 3 else None
        indices_Tk, weights_Tk, stats = self.router(logits_TE, None if mask is None else mask.reshape(-1), sequences)
        if not recomputing():
            self.stats = stats
        out_TD = self.experts(x_TD, indices_Tk, weights_Tk, self.added)
        if self.shared is not None:
            shared_TD = self.shared(x_TD)
            out_TD = out_TD + (shared_TD if self.shared_gate is None else self.shared_gate(x_TD).sigmoid() * shared_TD)
        return out_TD.reshape(x.shape)

    def _logits(self, x_TD: Tensor) -> Tensor:
        if self.added is None:
            logits_TE: Tensor = self.gate(x_TD)
            return logits_TE
        self.added.waits |= self.training and not recomputing()
        self.router.log_odds_E = self.added.log_odds(self.experts.n_experts)
        return torch.cat((self.gate(x_TD), self.added.gate(x_TD)), dim=-1)

    def _check_steps(self) -> None:
        """Raise an error if the weights have changed since the last forward pass without `step_routers`."""
        version = self.gate.weight._version  # counts changes in place, such as an optimizer's
        waits = self.added is not None and self.added.waits
        if (self.router.step_counts is not None or waits) and version != self._version:
            idle = "The added experts cannot take part" if waits else f"{type(self.router).__name__} cannot balance"
            raise UserError(
                f"{idle}, since an optimizer step ended without a call of step_routers; call "
                "lit_moe.nn.step_routers(self) in on_before_optimizer_step of the LightningModule."
            )
        self._version = version

    def __getstate__(self) -> dict[str, Any]:
        # The statistics hold an autograd graph, which can be neither copied nor pickled.
        return {**self.__dict__, "stats": None}


MoELayer = MoEFeedForward | WatchedGate
"""An object with a `router` and the `stats` of its last call: a layer of lit_moe, or a watched foreign gate."""


def moe_layers(model: nn.Module) -> dict[str, MoELayer]:
    """Return the mixture-of-experts layers of any model by name, in order.

    These are the layers of lit_moe, the gates whose logits transformers' models record, and the gates given to
    `watch_gates`. A gate of transformers is watched from the first call that returns it.

    Args:
        model: A module that may hold such layers at any depth.
    """
    layers: dict[str, MoELayer] = {}
    for name, module in model.named_modules():
        layer = module if isinstance(module, MoEFeedForward) else gate_of(module, name)
        if layer is not None:
            layers[name] = layer
    return layers


def auxiliary_losses(model: nn.Module) -> Tensor:
    """Sum the scaled auxiliary losses of the last forward pass over all mixture-of-experts layers.

    Args:
        model: A module that may hold such layers at any depth.

    Returns:
        A float32 scalar with its graph; 0 if no layer has a loss.

    Raises:
        UserError: If a foreign gate has losses, but has never run.
    """
    first = next(model.parameters(), None)
    total = torch.zeros((), device=None if first is None else first.device)
    for layer in moe_layers(model).values():
        if layer.stats is not None:
            for loss in (layer.stats.balance_loss, layer.stats.z_loss):
                total = total if loss is None else total + loss
        elif isinstance(layer, WatchedGate) and layer.router.has_losses:
            raise layer.never_ran()
    return total
