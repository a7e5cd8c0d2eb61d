"""The matrix products of a mixture of experts and nothing else: what no loop over experts can go below.

Shape suffixes: D model width, I hidden width of one expert, N rows of all experts of a group, E experts.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from layers import Mixture, Weights
from torch import Tensor


class Products:
    """The six products per expert of a forward and backward pass, into buffers that are used again in each step.

    There is no routing, gathering, activation or fresh memory. The row counts are those the router gives for the input,
    so uneven experts count here as well.

    Args:
        shape: Shape of the mixture.
        weights: Its weights in float32.
        tokens: Tokens per step.
        dtype: Number format of the products.
    """

    def __init__(self, shape: Mixture, weights: Weights, tokens: int, dtype: torch.dtype) -> None:
        self.router_ED, self.top_k, self.tokens = weights.router_ED, shape.top_k, tokens
        self.routed = _Group(weights.gate_up, weights.down, tokens * shape.top_k, dtype)
        self.shared: _Group | None = None
        if shape.n_shared:
            self.shared = _Group(weights.shared_gate_up[None], weights.shared_down[None], tokens, dtype)

    def counts(self, x_TD: Tensor) -> list[int]:
        """Return the rows of each routed expert for an input ``(tokens, d_model)``."""
        chosen_Tk = (x_TD.float() @ self.router_ED.T).topk(self.top_k).indices
        return torch.bincount(chosen_Tk.flatten(), minlength=len(self.router_ED)).tolist()

    def run(self, counts: list[int]) -> None:
        """Do the products of one step, for these rows of the routed experts and all tokens of the shared ones."""
        self.routed.forward(counts)
        if self.shared is not None:
            self.shared.forward([self.tokens])
            self.shared.backward([self.tokens])
        self.routed.backward(counts)


class _Group:
    """Experts of one width. Inputs are random and stay as they are, so that no number grows from step to step."""

    def __init__(self, gate_up_E2ID: Tensor, down_EDI: Tensor, rows: int, dtype: torch.dtype) -> None:
        self.gate_up_E2ID, self.down_EDI = gate_up_E2ID.to(dtype), down_EDI.to(dtype)
        width_2I, d_model = self.gate_up_E2ID.shape[1:]
        self.x_ND, self.grad_out_ND = torch.randn(2, rows, d_model).to(dtype).unbind()
        self.hidden_NI = torch.randn(rows, width_2I // 2).to(dtype)
        self.grad_double_N2I = torch.randn(rows, width_2I).to(dtype)
        self.double_N2I, self.grad_hidden_NI = torch.empty_like(self.grad_double_N2I), torch.empty_like(self.hidden_NI)
        self.out_ND, self.grad_x_ND = torch.empty_like(self.x_ND), torch.empty_like(self.x_ND)
        self.grad_gate_up_E2ID = torch.empty_like(self.gate_up_E2ID)
        self.grad_down_EDI = torch.empty_like(self.down_EDI)

    def forward(self, counts: list[int]) -> None:
        for expert, n in _rows(counts):
            torch.mm(self.x_ND[n], self.gate_up_E2ID[expert].t(), out=self.double_N2I[n])
            torch.mm(self.hidden_NI[n], self.down_EDI[expert].t(), out=self.out_ND[n])

    def backward(self, counts: list[int]) -> None:
        for expert, n in _rows(counts):
            torch.mm(self.grad_out_ND[n], self.down_EDI[expert], out=self.grad_hidden_NI[n])
            torch.mm(self.grad_out_ND[n].t(), self.hidden_NI[n], out=self.grad_down_EDI[expert])
            torch.mm(self.grad_double_N2I[n].t(), self.x_ND[n], out=self.grad_gate_up_E2ID[expert])
            torch.mm(self.grad_double_N2I[n], self.gate_up_E2ID[expert], out=self.grad_x_ND[n])


def _rows(counts: list[int]) -> Iterator[tuple[int, slice]]:
    start = 0
    for expert, count in enumerate(counts):
        yield expert, slice(start, start + count)
        start += count
