"""What a checkpoint of others may build: no more than its weights fill, however many layers it describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode

from lit_core.errors import UserError
from lit_core.trust import is_own

#: Modules, parameters and buffers that a model has at most for each tensor that is saved, and those of any model.
_PER_TENSOR, _PARTS = 20, 10_000
#: Numbers that a model holds in memory at most for each byte that is saved, and those of any model.
_PER_BYTE, _NUMBERS = 4, 1 << 24
#: Functions of torch that make a tensor of any size from no other tensor.
_MAKERS = {
    *(torch.arange, torch.empty, torch.empty_strided, torch.eye, torch.full, torch.linspace, torch.logspace),
    *(torch.ones, torch.rand, torch.randint, torch.randn, torch.randperm, torch.tril_indices, torch.triu_indices),
    torch.zeros,
}

_limit: ContextVar[_Limit | None] = ContextVar("limit", default=None)


@contextmanager
def sized_as(checkpoint: Mapping[str, Any], path: Any, argument: str) -> Iterator[None]:
    """Refuse to build, within the block, a model that the weights of a checkpoint cannot fill.

    Args:
        checkpoint: The content of the checkpoint; one that the user's commands wrote may build anything.
        path: The file, for messages.
        argument: Name of the argument that gave the path, for messages.

    Raises:
        UserError: Within the block, as soon as more is built.
    """
    with _within(None if is_own(checkpoint) else _Limit(checkpoint, f"{argument} is {path}")):
        yield


@contextmanager
def sized_by_itself() -> Iterator[None]:
    """Let the block build what another file holds, which is compared with that file."""
    with _within(None):
        yield


@contextmanager
def _within(limit: _Limit | None) -> Iterator[None]:
    token = _limit.set(limit)
    try:
        with ExitStack() as stack:
            if limit is not None:
                stack.enter_context(_Made())
                stack.callback(register_module_module_registration_hook(_count).remove)
                stack.callback(register_module_parameter_registration_hook(_count).remove)
                stack.callback(register_module_buffer_registration_hook(_count).remove)
            try:
                yield
            except Exception as error:
                if (
                    limit is not None and limit.refusal is not None
                ):  # which jsonargparse may have put into its own words
                    raise limit.refusal from error
                raise
    finally:
        _limit.reset(token)


class _Limit:
    """What may still be built.

    Args:
        checkpoint: The content of the checkpoint.
        where: How messages begin.
    """

    def __init__(self, checkpoint: Mapping[str, Any], where: str) -> None:
        state = checkpoint.get("state_dict") or {}
        tensors = [value for value in state.values() if isinstance(value, Tensor)]
        stored = {
            one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors if not one.is_meta
        }
        held = sum(stored.values()) + sum(one.numel() * one.itemsize for one in tensors if one.is_meta)
        self.where, self.held, self.bytes = where, len(tensors), held
        self.refusal: UserError | None = None
        self.parts = _PARTS + _PER_TENSOR * len(tensors)
        self.numbers = _NUMBERS + _PER_BYTE * held

    def take(self, parts: int, numbers: int) -> None:
        """Count what was built, or is about to be.

        Raises:
            UserError: If it is too much.
        """
        self.parts, self.numbers = self.parts - parts, self.numbers - numbers
        if self.parts < 0 or self.numbers < 0:
            self.refusal = UserError(
                f"{self.where}, which was not written by you and describes a larger model than its weights fill, which "
                f"are {self.held} tensors of {self.bytes:,} bytes; give another checkpoint."
            )
            raise self.refusal


class _Made(TorchFunctionMode):
    """Compares a tensor with the limit before it is made."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        limit, options = _limit.get(), kwargs or {}
        device = torch.device(options.get("device") or torch.get_default_device())
        if limit is not None and func in _MAKERS and device.type != "meta":
            shaping = {key: value for key, value in options.items() if key not in ("generator", "out", "pin_memory")}
            made = func(*args, **{**shaping, "device": "meta"})
            if made.numel() > limit.numbers:
                limit.take(0, made.numel())
        return func(*args, **options)


def _count(module: nn.Module, name: str, part: nn.Module | Tensor | None) -> None:
    """Count what a module registers, as torch calls it."""
    limit = _limit.get()
    if limit is not None:
        limit.take(1, part.numel() if isinstance(part, Tensor) and not part.is_meta else 0)
