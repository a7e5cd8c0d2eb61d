"""`ExactBuffers`, a base of modules with buffers that keep their dtype in a lower precision."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from torch import Tensor, nn

Self = TypeVar("Self", bound="ExactBuffers")


class ExactBuffers(nn.Module):
    """Base of modules some of whose buffers keep dtype and values when the module is converted to another dtype."""

    @property
    def exact_buffers(self) -> Collection[str]:
        """Names of these buffers, as in ``named_buffers``; a subclass sets a class attribute or a property."""
        raise NotImplementedError(f"{type(self).__name__} must define exact_buffers.")

    def _apply(self: Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # moves and converts
        exact = {name: self.get_buffer(name) for name in self.exact_buffers}
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            path, _, leaf = name.rpartition(".")
            converted = self.get_buffer(name)
            if converted.dtype != buffer.dtype:
                setattr(self.get_submodule(path), leaf, buffer.to(converted.device))
        return self
