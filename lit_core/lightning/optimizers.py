"""Optimizers and schedules from a config: callables that take the parameters and return the optimizer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lit_core.errors import UserError
from lit_core.lightning.float32_steps import LOW_BITS, for_weights_in, step_in_float32
from lit_core.lightning.parts import learning_rate_factors, say_parts, scale_steps
from lit_core.screen import rank_zero_info

OptimizerCallable = Callable[[Iterable[Any]], Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]


def build_optimizers(
    module: nn.Module,
    optimizer: OptimizerCallable,
    scheduler: SchedulerCallable | None,
    lr_factors: Mapping[str, float] | None = None,
) -> Any:
    """Make the optimizer over two groups, with and without weight decay, and its schedule.

    Weight decay applies to parameters of two or more dimensions that are not biases. Frozen parameters are in no group.
    What has a learning-rate factor is in groups of its own, behind the others. Weights in bfloat16 are trained in
    float32, see `lit_core.lightning.float32_steps`.

    Args:
        module: The module that is trained.
        optimizer: Makes the optimizer.
        scheduler: Makes the learning-rate schedule, which steps with the optimizer; None keeps the rate constant.
        lr_factors: Factors of the learning rate by pattern, see `lit_core.lightning.parts`; None for none.

    Returns:
        What ``configure_optimizers`` returns.

    Raises:
        UserError: If torch's classes refuse their arguments, the schedule does not depend on the step, a pattern
            names no parameter, or the weights are in a format in which the optimizer can't train them.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    factor_of = learning_rate_factors(module, lr_factors or {})
    say_parts(module, factor_of)
    factors, groups = [], []
    for factor in sorted({factor_of.get(name, 1.0) for name, _ in named}, key=lambda factor: (factor != 1, factor)):
        own = [(name, parameter) for name, parameter in named if factor_of.get(name, 1.0) == factor]
        decayed = [p for name, p in own if p.ndim >= 2 and not name.endswith("bias")]
        spared = [p for name, p in own if p.ndim < 2 or name.endswith("bias")]
        both: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
        groups += [group for group in both if group["params"]]
        factors += [factor for group in both if group["params"]]
    try:
        built = optimizer(groups)
        step_in_float32(built)
        schedule = None if scheduler is None else scheduler(built)
    except (TypeError, ValueError) as error:  # of torch's own classes, which check their arguments here only
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"`optimizer` or `scheduler` cannot be built: {str(error).rstrip('.')}; correct its arguments."
        ) from error
    if factor_of:
        scale_steps(built, factors)
    if schedule is None:
        return built
    if isinstance(schedule, ReduceLROnPlateau):
        raise UserError(
            f"`scheduler` is {type(schedule).__name__}, which waits for a monitored value, but the learning rate here "
            "changes with the optimizer step; choose a schedule of steps, or define `configure_optimizers` in a class "
            "of yours."
        )
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_names(module: nn.Module, optimizers: Iterable[Optimizer]) -> list[list[str]]:
    """Return the parameter names of each optimizer, in its order; a branching run matches moments by them."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [
        [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
        for optimizer in optimizers
    ]


def fitting_moments(optimizer: Optimizer, moments: Mapping[Tensor, dict[str, Any]]) -> dict[Tensor, dict[str, Any]]:
    """Return the moments that an optimizer goes on with; those of another one, or of other options, begin anew.

    Args:
        optimizer: The optimizer, as it was built.
        moments: What a checkpoint keeps of its parameters.
    """
    fitting = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter in moments and _names_of_moments(optimizer, group, parameter) <= moments[parameter].keys():
                fitting[parameter] = for_weights_in(parameter.dtype, moments[parameter])
    if len(fitting) < len(moments):
        rank_zero_info(
            f"The checkpoint's moments are not those of {type(optimizer).__name__} with its present options, so they "
            "begin anew."
        )
    return fitting


def _names_of_moments(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> set[str]:
    """Return what an optimizer keeps of a parameter, as a step on a small one of as many dimensions shows."""
    if optimizer.state.get(parameter):
        return set(optimizer.state[parameter]) - set(LOW_BITS)
    small = torch.zeros([1] * parameter.ndim, dtype=parameter.dtype, device=parameter.device, requires_grad=True)
    small.grad = torch.zeros_like(small)
    copy = object.__new__(type(optimizer))
    state: dict[Tensor, Any] = defaultdict(dict)
    vars(copy).update(vars(optimizer), state=state, param_groups=[{**group, "params": [small]}])
    try:
        type(optimizer).step(copy)  # not that of the instance, which a schedule has bound to it
    except (KeyError, TypeError, RuntimeError):  # it steps in another way, such as with a closure
        return set()
    return set(state[small]) - set(LOW_BITS)  # which begin at 0
