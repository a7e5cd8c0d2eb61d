"""Modules that are built without their weights, which each device reads later, and only its own part of them.

Parameters are on the meta device, where they take no memory. Buffers are made as always, since many are computed from a
config and are in no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

_later: ContextVar[bool] = ContextVar("weights_come_later", default=False)


@contextmanager
def weights_come_later(wanted: bool = True) -> Iterator[None]:
    """Ask the modules that are built in the block to leave out their weights; those that know of it do.

    Args:
        wanted: Whether to ask for it.
    """
    token = _later.set(wanted)
    try:
        yield
    finally:
        _later.reset(token)


def come_later() -> bool:
    """Tell whether a module that is built now is to leave out its weights."""
    return _later.get()


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Move each parameter of the modules that are built in the block to the meta device, one by one."""
    hook = register_module_parameter_registration_hook(_on_meta)  # type: ignore[arg-type]  # it may replace a parameter
    try:
        yield
    finally:
        hook.remove()


def _on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
    if parameter is None or parameter.is_meta:  # such as one that two modules share
        return None
    return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)


def lacks_weights(module: nn.Module) -> bool:
    """Tell whether a module was built without weights that it has not got yet."""
    return any(parameter.is_meta for parameter in module.parameters())


def make_room(module: nn.Module, device: torch.device) -> None:
    """Give a module NaN in place of the weights that it lacks, in place, so that a checkpoint can be loaded into it.

    Args:
        module: The module; of a weight that is divided over devices, only this device's part takes memory.
        device: This process's device.
    """
    made: dict[nn.Parameter, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter.is_meta:
                if parameter not in made:
                    values: Tensor = torch.full_like(parameter, torch.nan, device=device)
                    made[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
                setattr(owner, name, made[parameter])
