"""`ExactBuffers`, a base of modules with buffers and parameters that keep their dtype in a lower precision."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

import torch
from torch import Tensor, nn

Self = TypeVar("Self", bound="ExactBuffers")


class ExactBuffers(nn.Module):
    """Base of modules some of whose buffers keep dtype and values when the module is converted to another dtype.

    A subclass whose parameters do so too, or that keeps other ones in each dtype, overrides `exact_in`.
    """

    @property
    def exact_buffers(self) -> Collection[str]:
        """Names of these buffers, as in ``named_buffers``; a subclass sets a class attribute or a property."""
        raise NotImplementedError(f"{type(self).__name__} must define exact_buffers.")

    def exact_in(self, dtype: torch.dtype) -> Collection[str]:
        """Return the names of buffers and parameters that keep their dtype; by default `exact_buffers`.

        Args:
            dtype: The dtype to which the module is converted.
        """
        return self.exact_buffers

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # moves and converts
        tensors = dict(self.named_parameters(remove_duplicate=False)) | dict(self.named_buffers(remove_duplicate=False))
        names = set().union(*(self.exact_in(dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)))
        exact = {name: tensors[name].data for name in names}
        super()._apply(fn, recurse)
        for name, data in exact.items():
            path, _, leaf = name.rpartition(".")
            converted = getattr(self.get_submodule(path), leaf)
            if converted.dtype == data.dtype or name not in self.exact_in(converted.dtype):
                continue
            if isinstance(converted, nn.Parameter):
                converted.data = data.to(converted.device)
            else:
                setattr(self.get_submodule(path), leaf, data.to(converted.device))
        return self
