"""Dispatch of tokens to their experts and back: on one device, and between devices that hold different experts.

Shape suffixes: T tokens, k experts per token, N = T k rows sorted by expert, M rows that reach this device, E experts,
D model width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class Spread(torch.autograd.Function):
    """Copies each token to its k rows. Its transpose is :class:`Collect`, so that neither needs a scatter.

    A scatter adds in no fixed order on many threads. A gather followed by a sum has a fixed order, so runs repeat bit
    for bit.
    """

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, tokens_N: Tensor, inverse_Tk: Tensor) -> Tensor:
        """Return the rows ``(N, D)``."""
        ctx.save_for_backward(tokens_N, inverse_Tk)
        return x_TD[tokens_N]

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        """Sum the gradients of a token's rows."""
        return Collect.apply(grad_ND, *ctx.saved_tensors), None, None


class Collect(torch.autograd.Function):
    """Sums the k rows of each token."""

    @staticmethod
    def forward(ctx: Any, rows_ND: Tensor, tokens_N: Tensor, inverse_Tk: Tensor) -> Tensor:
        """Return the sums ``(T, D)``."""
        ctx.save_for_backward(tokens_N, inverse_Tk)
        if inverse_Tk.shape[1] == 1:
            return rows_ND[inverse_Tk[:, 0]]
        return torch.nn.functional.embedding_bag(inverse_Tk, rows_ND, mode="sum")

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor | None, ...]:
        """Copy the gradient of a token to its rows."""
        return Spread.apply(grad_TD, *ctx.saved_tensors), None, None


class Shares(NamedTuple):
    """How many rows an exchange sends and receives.

    Attributes:
        received_E: Received rows by device and expert of this one, shape ``(experts of the layer,)``.
        sent: Rows to each device.
        received: Rows from each device.
    """

    received_E: Tensor
    sent: list[int]
    received: list[int]


_KEEPING: ContextVar[list[Shares] | None] = ContextVar("keeping", default=None)
_KEPT: ContextVar[Iterator[Shares] | None] = ContextVar("kept", default=None)


def keep_shares() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts of a forward pass and of its recomputation, for ``torch.utils.checkpoint.checkpoint``.

    The recomputation sends as many rows as the forward pass did, so it neither asks the other devices for their number
    nor waits for its own device.
    """
    kept: list[Shares] = []

    @contextmanager
    def forward() -> Iterator[None]:
        token = _KEEPING.set(kept)
        try:
            yield
        finally:
            _KEEPING.reset(token)

    @contextmanager
    def recomputation() -> Iterator[None]:
        token = _KEPT.set(iter(kept))
        try:
            yield
        finally:
            _KEPT.reset(token)

    return forward(), recomputation()


def _shares(counts_E: Tensor, group: dist.ProcessGroup) -> Shares:
    """Return what an exchange sends and receives; the host reads it once, or not at all in a recomputation."""
    kept, keeping = _KEPT.get(), _KEEPING.get()
    if kept is not None:
        return next(kept)
    received_E = torch.empty_like(counts_E)
    dist.all_to_all_single(received_E, counts_E, group=group)
    sent, received = torch.stack((counts_E, received_E)).view(2, group.size(), -1).sum(-1).tolist()
    shares = Shares(received_E, sent, received)
    if keeping is not None:
        keeping.append(shares)
    return shares


class ExpertExchange:
    """Sends rows to the devices that hold their experts, and the results back; gradients are sent in the same way.

    Each device of a group holds the same number of experts, in the order of their indices. All devices must call every
    method equally often, also a device that receives no row.

    Args:
        counts_E: Number of rows of this device for each expert of the layer, shape ``(experts,)``.
        group: The devices among which the experts are divided.

    Attributes:
        counts: Rows that reach each expert of this device, from all devices of the group, ``(experts of a device,)``.
    """

    def __init__(self, counts_E: Tensor, group: dist.ProcessGroup) -> None:
        self.group = group
        received_E, self._sent, self._received = _shares(counts_E, group)
        by_source = received_E.view(group.size(), -1)
        self.counts = by_source.sum(0)
        # rows arrive device by device, each sorted by expert; they are computed expert by expert
        experts = torch.arange(by_source.shape[1], device=counts_E.device).repeat(group.size())
        rows = sum(self._received)  # a size that the host does not read again
        self._order_M = experts.repeat_interleave(received_E, output_size=rows).argsort(stable=True)
        self._inverse_M = self._order_M.argsort()

    def to_experts(self, rows: Tensor) -> Tensor:
        """Send rows ``(N, ...)``, sorted by expert; return the received rows ``(M, ...)``, sorted by own expert."""
        arrived = _AllToAll.apply(rows, self._sent, self._received, self.group)
        return Spread.apply(arrived, self._order_M, self._inverse_M[:, None])

    def back(self, rows: Tensor) -> Tensor:
        """Send the results ``(M, ...)`` back; return those of this device's own rows ``(N, ...)``."""
        by_source = Spread.apply(rows, self._inverse_M, self._order_M[:, None])
        return _AllToAll.apply(by_source, self._received, self._sent, self.group)


class _AllToAll(torch.autograd.Function):
    """Send a block of rows to each device of a group and get one from each."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup) -> Tensor:
        ctx.reverse = received, sent, group
        arrived = rows.new_empty(sum(received), *rows.shape[1:])
        dist.all_to_all_single(arrived, rows.contiguous(), received, sent, group=group)
        return arrived

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _AllToAll.apply(grad, *ctx.reverse), None, None, None
