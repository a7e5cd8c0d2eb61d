"""Routed experts in stacked tensors, dropless.

Shape suffixes: T tokens, k experts per token, N = T k rows sorted by expert, E experts, D model width, I expert width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from lit_core.errors import UserError
from lit_moe.functional.routing import count_experts
from lit_moe.nn.config import Activation, Backend
from lit_moe.nn.dispatch import Collect, ExpertExchange, Spread

ExpertFunction = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Activation], Tensor]
"""A backend: rows ``(N, D)`` sorted by expert, their weights ``(N,)``, the stacked ``gate_up (E, 2 I, D)`` and
``down (E, D, I)``, tokens per expert ``(E,)`` and the activation; returns the weighted outputs ``(N, D)``."""


class GroupedExperts(nn.Module):
    """Gated feed-forward experts with stacked weights, so that each parameter gets a gradient in every step.

    The gradient of an expert without tokens is zero, not None: collectives over devices would otherwise wait for it.
    Where `lit_moe.parallel.shard` has divided the experts among devices, tokens are sent to them and back.

    The weights are initialised normally with a variance of one over the number of inputs; `Decoder` initialises them
    again in its own way.

    Args:
        n_experts: Number of experts.
        d_model: Width of inputs and outputs.
        width: Hidden width of one expert.
        activation: Activation of the gate.
        backend: loop (a matrix product per expert), grouped_mm (torch's grouped product) or auto. auto takes grouped_mm
            for bfloat16 on CUDA devices that support it, and loop elsewhere; the choice on CUDA was not measured.
    """

    def __init__(
        self, n_experts: int, d_model: int, width: int, activation: Activation = "silu", backend: Backend = "auto"
    ) -> None:
        super().__init__()
        if backend != "auto" and backend not in BACKENDS:
            raise UserError(
                f'backend is "{backend}" but must be auto or one of {", ".join(BACKENDS)}; set one of them.'
            )
        self.n_experts = n_experts
        self.activation: Activation = activation
        self.backend: Backend = backend
        self.gate_up = nn.Parameter(torch.empty(n_experts, 2 * width, d_model))
        self.down = nn.Parameter(torch.empty(n_experts, d_model, width))
        nn.init.normal_(self.gate_up, std=d_model**-0.5)
        nn.init.normal_(self.down, std=width**-0.5)

    def forward(
        self, x_TD: Tensor, indices_Tk: Tensor, weights_Tk: Tensor, added: GroupedExperts | None = None
    ) -> Tensor:
        """Return the weighted sum of each token's experts.

        Args:
            x_TD: Tokens of shape ``(tokens, d_model)``.
            indices_Tk: Chosen experts of shape ``(tokens, k)``, different ones for each token.
            weights_Tk: Their weights of shape ``(tokens, k)``.
            added: More experts, whose indices follow those of these; None for none.

        Returns:
            Shape ``(tokens, d_model)``, in the input's number format or autocast's.
        """
        device = x_TD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_TD.dtype
        with torch.autocast(device, enabled=False):
            order_N = indices_Tk.reshape(-1).argsort(stable=True)
            inverse_Tk = torch.empty_like(order_N).scatter_(0, order_N, torch.arange(len(order_N), device=x_TD.device))
            inverse_Tk = inverse_Tk.view_as(indices_Tk)
            tokens_N = order_N // indices_Tk.shape[1]
            counts_E = count_experts(indices_Tk, self.n_experts + (0 if added is None else added.n_experts))
            rows_ND = Spread.apply(x_TD.to(dtype), tokens_N, inverse_Tk)
            out_ND = self._run(rows_ND, weights_Tk.reshape(-1)[order_N], counts_E, added)
            return Collect.apply(out_ND, tokens_N, inverse_Tk)

    def _run(self, rows_ND: Tensor, weights_N: Tensor, counts_E: Tensor, added: GroupedExperts | None) -> Tensor:
        """Return the weighted outputs of rows sorted by expert, wherever the experts are."""
        run = BACKENDS[self._choose(rows_ND)]
        gate_up, down = self.gate_up, self.down
        if not (isinstance(gate_up, DTensor) and isinstance(down, DTensor)):
            if added is not None:
                gate_up, down = torch.cat((gate_up, added.gate_up)), torch.cat((down, added.down))  # type: ignore[assignment]
            return run(rows_ND, weights_N, gate_up.to(rows_ND.dtype), down.to(rows_ND.dtype), counts_E, self.activation)
        exchange = ExpertExchange(counts_E, gate_up.device_mesh.get_group())
        rows_MD, weights_M = exchange.to_experts(rows_ND), exchange.to_experts(weights_N)
        own = gate_up.to_local().to(rows_ND.dtype), down.to_local().to(rows_ND.dtype)
        return exchange.back(run(rows_MD, weights_M, *own, exchange.counts, self.activation))

    @property
    def divided(self) -> bool:
        """Whether this device holds a part of the weights, so that tokens may be sent to the experts of others."""
        return isinstance(self.gate_up, DTensor)

    def _choose(self, rows_ND: Tensor) -> str:
        if self.backend == "loop":
            return "loop"
        obstacle = grouped_mm_obstacle(rows_ND.dtype, rows_ND.shape[1], self.down.shape[2])
        if self.backend == "grouped_mm":
            if obstacle:
                raise UserError(f"backend is grouped_mm but {obstacle}; set it to auto or loop.")
            return "grouped_mm"
        fast = rows_ND.is_cuda and rows_ND.dtype == torch.bfloat16 and torch.cuda.get_device_capability() >= (8, 0)
        return "grouped_mm" if fast and not obstacle else "loop"

    def extra_repr(self) -> str:
        """Return the sizes that are shown when the model is printed."""
        n_experts, d_model, width = self.down.shape
        return f"n_experts={n_experts}, d_model={d_model}, width={width}, backend={self.backend}"


def grouped_mm_obstacle(dtype: torch.dtype, d_model: int, width: int) -> str:
    """Return the reason why torch's grouped matrix product cannot be used, as a clause; empty if it can.

    Args:
        dtype: Number format of the products.
        d_model: Width of inputs and outputs.
        width: Hidden width of one expert.
    """
    if _grouped_mm is None:
        return f"torch {torch.__version__} has no grouped matrix product"
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"torch has no grouped matrix product in {dtype}"
    multiple = 16 // dtype.itemsize  # rows must start at multiples of 16 bytes
    if d_model % multiple or width % multiple:
        return f"d_model {d_model} and expert_width {width} are not both multiples of {multiple}, which {dtype} needs"
    return ""


_grouped_mm: Any = getattr(nn.functional, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


def _activate(gate: Tensor, activation: Activation) -> Tensor:
    return nn.functional.silu(gate) if activation == "silu" else nn.functional.gelu(gate)


def _activate_backward(grad: Tensor, gate: Tensor, activation: Activation) -> Tensor:
    if activation == "silu":
        return torch.ops.aten.silu_backward(grad, gate)
    return torch.ops.aten.gelu_backward(grad, gate)


def run_grouped_mm(
    rows_ND: Tensor, weights_N: Tensor, gate_up: Tensor, down: Tensor, counts_E: Tensor, activation: Activation
) -> Tensor:
    """Compute the experts by torch's grouped matrix product; the counts stay on the device."""
    ends_E = counts_E.cumsum(0).to(torch.int32)
    gate_NI, up_NI = _grouped_mm(rows_ND, gate_up.transpose(1, 2), offs=ends_E).chunk(2, dim=-1)
    hidden_NI = _activate(gate_NI, activation) * up_NI * weights_N[:, None].to(rows_ND.dtype)
    return _grouped_mm(hidden_NI, down.transpose(1, 2), offs=ends_E)


def run_loop(
    rows_ND: Tensor, weights_N: Tensor, gate_up: Tensor, down: Tensor, counts_E: Tensor, activation: Activation
) -> Tensor:
    """Compute the experts one after the other; the counts are copied to the host."""
    return _Loop.apply(rows_ND, weights_N, gate_up, down, counts_E.tolist(), activation)


BACKENDS: dict[str, ExpertFunction] = {"loop": run_loop, "grouped_mm": run_grouped_mm}
"""Implementations of the experts by name."""


class _Loop(torch.autograd.Function):
    """Experts one by one, each gradient written straight into its slice of one stacked tensor.

    Autograd would make a full-size zero gradient for every slice. A token's weight is applied before the second
    product, so that the weight's gradient needs no saved output.

    A slice may reach into the rows of the next expert, see `_slices`: what is written there is overwritten when it is
    that expert's turn, and counts as zero in the gradients of the weights.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows_ND: Tensor,
        weights_N: Tensor,
        gate_up: Tensor,
        down: Tensor,
        counts: list[int],
        activation: Activation,
    ) -> Tensor:
        hidden_N2I = rows_ND.new_empty(len(rows_ND), gate_up.shape[1])
        out_ND = torch.empty_like(rows_ND)
        scale_N1 = weights_N[:, None].to(rows_ND.dtype)
        for expert, _, rows in _slices(counts, rows_ND):
            torch.mm(rows_ND[rows], gate_up[expert].t(), out=hidden_N2I[rows])
            gate_nI, up_nI = hidden_N2I[rows].chunk(2, dim=-1)
            torch.mm(_activate(gate_nI, activation) * up_nI * scale_N1[rows], down[expert].t(), out=out_ND[rows])
        ctx.save_for_backward(rows_ND, weights_N, gate_up, down, hidden_N2I)
        ctx.counts, ctx.activation = counts, activation
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        rows_ND, weights_N, gate_up, down, hidden_N2I = ctx.saved_tensors
        grad_ND = grad_ND.contiguous()
        grad_rows_ND, grad_weights_N = torch.empty_like(rows_ND), torch.empty_like(weights_N)
        grad_gate_up, grad_down = torch.empty_like(gate_up), torch.empty_like(down)
        for expert, count in enumerate(ctx.counts):
            if count == 0:
                grad_gate_up[expert].zero_()
                grad_down[expert].zero_()
        for expert, count, rows in _slices(ctx.counts, rows_ND):
            gate_nI, up_nI = hidden_N2I[rows].chunk(2, dim=-1)
            active_nI = _activate(gate_nI, ctx.activation)
            scale_n1 = weights_N[rows, None].to(rows_ND.dtype)
            product_nI = active_nI * up_nI
            grad_nI = grad_ND[rows] @ down[expert]
            # Summed in the weights' float32: the router learns from this.
            grad_weights_N[rows] = (grad_nI * product_nI).sum(-1, dtype=weights_N.dtype)
            scaled_nI = product_nI * scale_n1
            scaled_nI[count:] = 0
            torch.mm(grad_ND[rows].t(), scaled_nI, out=grad_down[expert])
            grad_nI = grad_nI * scale_n1
            grad_gate_nI = _activate_backward(grad_nI * up_nI, gate_nI, ctx.activation)
            grad_hidden_n2I = torch.cat((grad_gate_nI, grad_nI * active_nI), dim=-1)
            grad_hidden_n2I[count:] = 0
            torch.mm(grad_hidden_n2I.t(), rows_ND[rows], out=grad_gate_up[expert])
            torch.mm(grad_hidden_n2I, gate_up[expert], out=grad_rows_ND[rows])
        return grad_rows_ND, grad_weights_N, grad_gate_up, grad_down, None, None


_FEWER_SHAPES = 32
"""Row counts are rounded up to multiples of this where each new one costs a kernel that torch's CPU library builds."""


def _slices(counts: list[int], rows_ND: Tensor) -> list[tuple[int, int, slice]]:
    """Return (expert, number of its rows, slice that starts with them) for each expert that has any.

    In 16 bits on the CPU the slice is extended to a multiple of `_FEWER_SHAPES` rows where there are so many.
    """
    multiple = _FEWER_SHAPES if rows_ND.device.type == "cpu" and rows_ND.dtype.itemsize == 2 else 1
    slices, start = [], 0
    for expert, count in enumerate(counts):
        if count:
            end = start + -(-count // multiple) * multiple
            slices.append((expert, count, slice(start, end if end <= len(rows_ND) else start + count)))
        start += count
    return slices
