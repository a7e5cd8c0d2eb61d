"""Buffers that keep their dtype when a module is converted to a lower precision."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def keep_exact(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Give buffers back the values that a change of the module's dtype rounded, on the device where they are now.

    To be called in ``_apply``, through which a module is moved and converted.

    Args:
        module: The module, which has been converted.
        buffers: The buffers before, by their names in the module.
    """
    for name, buffer in buffers.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        if getattr(owner, leaf).dtype != buffer.dtype:
            setattr(owner, leaf, buffer.to(getattr(owner, leaf).device))
