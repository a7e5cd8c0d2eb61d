"""Bytes of tensors that are alive while a model runs, and stand-ins for operations that take as much memory."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, while they are alive.

    Args:
        weights: Tensors that are not counted; of their copies in another number format, the bytes are counted apart.

    Attributes:
        now: Bytes alive.
        peak: The largest number of bytes alive; may be set anew.
        copies: Bytes alive of copies of weights, which are part of `now`.
    """

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = self.copies = 0
        self._weights = WeakIdKeyDictionary({weight.untyped_storage(): None for weight in weights})
        self._known = WeakIdKeyDictionary(dict(self._weights))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        is_copy = function is torch.ops.aten._to_copy.default and args[0].untyped_storage() in self._weights
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), is_copy)
        return output

    def _add(self, storage: Any, is_copy: bool) -> None:
        if storage in self._known:
            return
        self._known[storage] = None
        size = storage.nbytes()
        self._change(size, is_copy)
        weakref.finalize(storage, self._change, -size, is_copy)

    def _change(self, size: int, is_copy: bool) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)
        self.copies += size if is_copy else 0


class _Flash(torch.autograd.Function):
    """Attention that keeps what flash attention keeps: its inputs and outputs, and a float32 number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, *_ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


class _Grouped(torch.autograd.Function):
    """The matrix product of each expert with its own rows, which keeps rows and weights."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        return rows.new_empty(len(rows), weights.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        rows, weights = ctx.saved_tensors
        return torch.empty_like(rows), torch.empty_like(weights)


class StandIns(TorchFunctionMode):
    """Replaces attention and experts of torch by ones that compute nothing and keep as much for the backward pass.

    It also answers what a model asks about values: nothing is padded, and no sequence is packed.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is nn.functional.scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            query, key, value = (_cast(named[name]) for name in ("query", "key", "value"))
            return _Flash.apply(query, key, value)
        if function in _GROUPED:
            return _Grouped.apply(*args[:2])
        if function is Tensor.tolist and isinstance(args[0], torch._subclasses.FakeTensor):
            return [0] * len(args[0])
        if function in (Tensor.__bool__, Tensor.item) and args[0].dtype == torch.bool:
            return True
        return function(*args, **kwargs)


#: torch's grouped product, by its names in several versions.
_GROUPED = [
    getattr(owner, name)
    for owner, name in ((nn.functional, "grouped_mm"), (torch, "_grouped_mm"))
    if hasattr(owner, name)
]


def _cast(tensor: Tensor) -> Tensor:
    return tensor.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else tensor
