"""Optimizer steps in float32 on weights in bfloat16, so that no step is rounded away."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import LBFGS, Optimizer

from lit_core.errors import UserError

#: States with the bits 8 to 15 and 0 to 7 of a weight; not one int16, which collectives do not send.
LOW_BITS = ("low_bits_8", "low_bits_0")
#: Weights that torch's own optimizers, which treat each alone, change at once.
AT_ONCE = 2**24


def step_in_float32(optimizer: Optimizer) -> None:
    """Let an optimizer step in float32 on the weights in bfloat16 that it trains, in place; others are not changed.

    A weight in bfloat16 has 8 significant bits, so a step below 1/512 of it would be lost. Here it is the upper half of
    a float32 number, rounded, whose lower half is in the optimizer's state. The optimizer sees the float32 number, and
    its moments are float32.

    Args:
        optimizer: The optimizer, before a schedule is built for it.

    Raises:
        UserError: If a weight is float16, or the optimizer is LBFGS and a weight is bfloat16.
    """
    dtypes = {parameter.dtype for group in optimizer.param_groups for parameter in group["params"]}
    if torch.float16 in dtypes:
        raise UserError(
            "`trainer.precision` is 16-true, but in float16 small gradients become 0 and large sums infinite; set it "
            "to bf16-mixed or bf16-true."
        )
    if torch.bfloat16 not in dtypes:
        return
    if isinstance(optimizer, LBFGS):
        raise UserError(
            "`optimizer` is LBFGS, whose many small steps bfloat16 would round away; set `trainer.precision` to "
            "bf16-mixed or 32-true."
        )
    optimizer.__class__ = _class_for(type(optimizer))  # type: ignore[arg-type]  # mypy takes the class for an instance


def stored_bits(optimizer: Optimizer, parameter: nn.Parameter) -> list[Tensor]:
    """Return the tensors that together hold this device's part of a weight: its own, and its lower bits if any.

    Args:
        optimizer: The optimizer that trains it.
        parameter: The weight.
    """
    state = optimizer.state.get(parameter, {})
    return [_local(parameter.detach()), *(_local(state[name]) for name in LOW_BITS if name in state)]


def for_weights_in(dtype: torch.dtype, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of a weight without the lower bits of bfloat16 if it has another dtype.

    Args:
        dtype: Its dtype.
        state: Its states by name.
    """
    return {name: value for name, value in state.items() if dtype == torch.bfloat16 or name not in LOW_BITS}


class _Float32Steps(Optimizer):
    """Methods that `step_in_float32` puts before those of an optimizer's class."""

    @Optimizer.profile_hook_step
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        inherited: Any = super().step
        once = inherited.__wrapped__ if getattr(inherited, "hooked", False) else inherited.__func__  # without hooks
        at_once = AT_ONCE if inherited.__module__.startswith("torch.optim.") else None
        for parts in _parts([group["params"] for group in self.param_groups], at_once):
            with self._joined(parts):
                once(self)
        return loss

    step.hooked = True  # type: ignore[attr-defined]  # or torch would call the hooks twice

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        whole = [group["params"] for group in self.param_groups]
        kinds = {
            p: torch.empty(0, dtype=torch.float32, device=p.device) if _is_low(p) else p for ps in whole for p in ps
        }
        for group, parameters in zip(self.param_groups, whole, strict=True):
            group["params"] = [kinds[parameter] for parameter in parameters]  # torch casts states to their dtype
        try:
            super().load_state_dict(state_dict)
        finally:
            for group, parameters in zip(self.param_groups, whole, strict=True):
                group["params"] = parameters
        for parameter, kind in kinds.items():
            if kind is not parameter and kind in self.state:
                state = self.state[parameter] = self.state.pop(kind)
                for name, dtype in zip(LOW_BITS, (torch.int8, torch.uint8), strict=True):
                    if name in state:
                        state[name] = state[name].to(dtype)

    @contextmanager
    def _joined(self, parts: list[list[Tensor]]) -> Iterator[None]:
        """Let each group hold only the given parameters, those in bfloat16 as float32 numbers."""
        held = [group["params"] for group in self.param_groups]
        whole: dict[Tensor, Tensor] = {}
        for group, parameters in zip(self.param_groups, parts, strict=True):
            whole |= {p: self._join(p) for p in parameters if _is_low(p) and p.grad is not None}
            group["params"] = [whole.get(parameter, parameter) for parameter in parameters]
        try:
            yield
        finally:
            for parameter, number in whole.items():
                self._divide(parameter, number)
            for group, parameters in zip(self.param_groups, held, strict=True):
                group["params"] = parameters

    def _join(self, parameter: Tensor) -> Tensor:
        number = parameter.detach().float()
        state = self.state.pop(parameter, {})
        low = [_local(state.pop(name)) for name in LOW_BITS if name in state]
        if low:
            bits = _local(number).view(torch.int32)
            bits.add_(low[0].int() << 8).add_(low[1])
        assert parameter.grad is not None
        number.grad = parameter.grad.float()
        if state:  # some optimizers make it beforehand, in the format of the weight
            self.state[number] = {name: value.float() if _is_low(value) else value for name, value in state.items()}
        return number

    def _divide(self, parameter: Tensor, number: Tensor) -> None:
        own, bits = _local(parameter.detach()), _local(number).view(torch.int32)
        upper = (bits + 0x8000) >> 16  # rounded to the nearest, so that the rest fits into 16 bits
        own.copy_(upper.to(torch.int16).view(torch.bfloat16))
        rest = bits - (upper << 16)
        state = self.state[parameter] = self.state.pop(number, {})
        for name, values in zip(LOW_BITS, ((rest >> 8).to(torch.int8), (rest & 0xFF).to(torch.uint8)), strict=True):
            state[name] = torch.empty_like(parameter, dtype=values.dtype, requires_grad=False)
            _local(state[name]).copy_(values)


@cache
def _class_for(kind: type[Optimizer]) -> type[Optimizer]:
    return type(kind.__name__, (_Float32Steps, kind), {"__module__": kind.__module__})


def _is_low(value: Any) -> bool:
    return torch.is_tensor(value) and value.dtype == torch.bfloat16


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _parts(groups: list[list[Tensor]], at_once: int | None) -> Iterator[list[list[Tensor]]]:
    """Divide the parameters of all groups into parts of at least so many weights; None makes one part."""
    part: list[list[Tensor]] = [[] for _ in groups]
    size = 0
    for index, parameters in enumerate(groups):
        for parameter in parameters:
            part[index].append(parameter)
            size += _local(parameter).numel()
            if at_once is not None and size >= at_once:
                yield part
                part, size = [[] for _ in groups], 0
    if any(part):
        yield part
