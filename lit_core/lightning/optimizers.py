"""Optimizers and schedules from a config: callables that take the parameters and return the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_core.errors import UserError

OptimizerCallable = Callable[[Iterable[Any]], Optimizer]
SchedulerCallable = Callable[[Optimizer], LRScheduler]


def build_optimizers(module: nn.Module, optimizer: OptimizerCallable, scheduler: SchedulerCallable | None) -> Any:
    """Make the optimizer over two groups, with and without weight decay, and its schedule.

    Weight decay applies to parameters of two or more dimensions that are not biases.

    Args:
        module: The module that is trained.
        optimizer: Makes the optimizer.
        scheduler: Makes the learning-rate schedule, which steps with the optimizer; None keeps the rate constant.

    Returns:
        What ``configure_optimizers`` returns.

    Raises:
        UserError: If torch's classes refuse their arguments.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    decayed = [p for name, p in named if p.ndim >= 2 and not name.endswith("bias")]
    spared = [p for name, p in named if p.ndim < 2 or name.endswith("bias")]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    try:
        built = optimizer([group for group in groups if group["params"]])
        schedule = None if scheduler is None else scheduler(built)
    except (TypeError, ValueError) as error:  # of torch's own classes, which check their arguments here only
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"`optimizer` or `scheduler` cannot be built: {str(error).rstrip('.')}; correct its arguments."
        ) from error
    if schedule is None:
        return built
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_names(module: nn.Module, optimizers: Iterable[Optimizer]) -> list[list[str]]:
    """Return the parameter names of each optimizer, in its order; a branching run matches moments by them."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [
        [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
        for optimizer in optimizers
    ]
