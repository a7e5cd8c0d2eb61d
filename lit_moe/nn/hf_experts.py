"""Experts of transformers' mixtures, divided among devices: tokens are sent to their experts and back.

Shape suffixes: T tokens, k experts per token, N = T k rows sorted by expert, M rows that reach this device, E experts,
D model width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lit_moe.functional.routing import count_experts
from lit_moe.nn.dispatch import Collect, ExpertExchange, Spread
from lit_moe.nn.hf_gates import is_model

#: What transformers calls a module, in its plans for several devices, that is given tokens, experts and their weights.
_DISPATCHED, _STACKED = "ep_dispatch_experts", "grouped_gemm"

Experts = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The forward pass of experts: tokens ``(T, D)``, chosen experts and their weights ``(T, k)``; returns ``(T, D)``."""


def stacked_experts(network: nn.Module) -> list[nn.Module]:
    """Return the modules of transformers' models whose experts can be divided, as transformers' own plans say.

    Each has ``num_experts``, parameters whose first dimension counts experts, and a forward pass of the kind `Experts`.

    Args:
        network: A module that may hold models of transformers at any depth.
    """
    found: dict[nn.Module, None] = {}
    for model in filter(is_model, network.modules()):
        plan: dict[str, str] = getattr(model, "ep_plan", None) or {}
        for name, module in model.named_modules():
            kind = re.sub(r"\.\d+(?=\.|$)", ".*", name)
            stacks = [plan.get(f"{kind}.{parameter}") == _STACKED for parameter, _ in module.named_parameters()]
            if plan.get(kind) == _DISPATCHED and stacks and all(stacks):
                found[module] = None
    return list(found)


def send_tokens(experts: nn.Module, group: dist.ProcessGroup) -> None:
    """Let experts send tokens to the devices that hold their experts, in place.

    Args:
        experts: One of `stacked_experts`, of whose parameters each device holds its own whole experts.
        group: The devices among which the experts are divided.
    """
    run: Experts = experts.forward
    whole = int(experts.num_experts)  # type: ignore[arg-type]
    experts.num_experts = whole // group.size()  # type: ignore[assignment]  # of which the forward pass knows

    def forward(x_TD: Tensor, indices_Tk: Tensor, weights_Tk: Tensor) -> Tensor:
        order_N = indices_Tk.reshape(-1).argsort(stable=True)
        inverse_Tk = order_N.argsort().view_as(indices_Tk)
        tokens_N = order_N // indices_Tk.shape[1]
        exchange = ExpertExchange(count_experts(indices_Tk, whole), group)
        rows_MD = exchange.to_experts(Spread.apply(x_TD, tokens_N, inverse_Tk))
        weights_M = exchange.to_experts(weights_Tk.reshape(-1)[order_N])
        with _own_parameters(experts):
            out_MD = _run(run, rows_MD, exchange.counts, weights_M)
        return Collect.apply(exchange.back(out_MD), tokens_N, inverse_Tk)

    experts.forward = forward


def _run(run: Experts, rows_MD: Tensor, counts_E: Tensor, weights_M: Tensor) -> Tensor:
    """Run this device's experts on rows that are sorted by expert; a device without rows takes part in the graph."""
    if not len(rows_MD):
        first = counts_E.new_zeros(1, 1)
        return run(rows_MD.sum(0, keepdim=True), first, weights_M.sum().view(1, 1))[:0]
    experts_M = torch.arange(len(counts_E), device=counts_E.device).repeat_interleave(
        counts_E, output_size=len(rows_MD)
    )
    return run(rows_MD, experts_M[:, None], weights_M[:, None])


@contextmanager
def _own_parameters(module: nn.Module) -> Iterator[None]:
    """Let a module compute with this device's parts of its parameters."""
    divided = {name: one for name, one in module.named_parameters(recurse=False) if isinstance(one, DTensor)}
    module._parameters.update({name: one.to_local() for name, one in divided.items()})  # type: ignore[misc]
    try:
        yield
    finally:
        module._parameters.update(divided)
