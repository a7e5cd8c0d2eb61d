"""Learning-rate schedules as functions of the optimizer step alone.

So a resumed run has exactly the learning rates of an uninterrupted one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_core.errors import UserError, check_at_least
from lit_core.screen import rank_zero_warn

#: Optimizer steps of a checkpoint that are replayed at most, which takes minutes.
_MOST_STEPS = 10_000_000


class StepSchedule(LRScheduler):
    """Base of the schedules: a learning rate as a function of the step and of the group's own maximum.

    The maximum is the learning rate the optimizer was made with. The state is the step alone: phase lengths and rates
    are those of the present config, also on resume.

    Each phase takes its fraction of the run, rounded to whole steps. A phase that is given but gets no step is refused,
    and so are phases that take more steps than the run has, or leave none for the last. A warm-up without a step, which
    changes only the start, is a warning, and so is each of these in a run with fewer steps than there are phases.

    Args:
        optimizer: Optimizer whose learning rates are set.
        total_steps: Optimizer steps of the whole run, at least 1.
        phases: Length of each phase but the last as a fraction of `total_steps`, by argument name; the first is the
            warm-up.
        last: What the last phase is called, which takes the remaining steps.

    Attributes:
        lengths: Steps of each phase but the last.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, phases: dict[str, float], last: str = "decay") -> None:
        check_at_least(1, total_steps=total_steps)
        total_steps, phases = int(total_steps), {name: float(fraction) for name, fraction in phases.items()}
        for name, fraction in phases.items():
            if not 0 <= fraction <= 1:
                raise UserError(
                    f"`{name}` is {fraction}, but it is a fraction of total_steps; give a number from 0 to 1."
                )
        if sum(phases.values()) > 1 + 1e-9:
            names = " + ".join(f"`{name}`" for name in phases)
            raise UserError(
                f"{names} is {sum(phases.values()):g}, but the phases are parts of the run; give fractions whose "
                "sum is at most 1."
            )
        self.total_steps = total_steps
        self.lengths: list[int] = []
        for fraction in phases.values():  # rounded up, several may exceed the run by a step or two; the end is cut
            self.lengths.append(min(round(fraction * total_steps), total_steps - sum(self.lengths)))
        self._check_lengths(phases, last)
        super().__init__(optimizer)

    def _check_lengths(self, phases: dict[str, float], last: str) -> None:
        """Check the phases in the steps that they get."""
        total = self.total_steps
        say = _refuse if total > len(phases) else rank_zero_warn
        for name, fraction, length in zip(phases, phases.values(), self.lengths, strict=True):
            if fraction > 0 and not length:
                # without its warm-up a schedule is as it would be, except for its start
                (rank_zero_warn if name == next(iter(phases)) else say)(
                    f"`{name}` is {fraction:g}, which is none of {total} steps; give {1 / total:.2g} for one step, or "
                    "0 for none."
                )
        names, steps = " + ".join(f"`{name}`" for name in phases), " + ".join(map(str, self.lengths))
        if sum(self.lengths) == total and sum(phases.values()) < 1 - 1e-9:
            say(
                f"{names} take {steps} steps of {total}, so no step is left for the {last}; lower one of them, or let "
                "their sum be 1 for a run without it."
            )

    def rate(self, step: int, peak: float) -> float:
        """Return the learning rate of a step.

        Args:
            step: Optimizer steps already done.
            peak: Maximum learning rate of the parameter group.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rate.")

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of each parameter group at the current step."""
        return [float(self.rate(self.last_epoch, float(base))) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the step, and PyTorch's own step count and last rates."""
        return {name: getattr(self, name) for name in ("last_epoch", "_step_count", "_last_lr")}


class WarmupCosine(StepSchedule):
    """Linear warm-up and cosine decay; from a decayed checkpoint it re-warms and re-decays.

    The rate rises from 0 to the optimizer's learning rate, then falls along half a cosine to `min_lr`
    (`Ibrahim et al. 2024 <https://arxiv.org/abs/2403.08763>`_).

    Args:
        optimizer: Optimizer whose learning rate is the maximum.
        total_steps: Optimizer steps of the whole run, as in trainer.max_steps.
        warmup: Length of the warm-up, as a fraction of total_steps from 0 to 1.
        min_lr: Learning rate at total_steps, just after the last step, from 0 to the optimizer's learning rate.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.01, min_lr: float = 0.0) -> None:
        check_order(optimizer, {"min_lr": min_lr})
        self.min_lr = min_lr
        super().__init__(optimizer, total_steps, {"warmup": warmup})

    def rate(self, step: int, peak: float) -> float:
        """Return the learning rate of a step."""
        (warmup,) = self.lengths
        if step < warmup:
            return peak * step / warmup
        progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        return half_cosine(peak, self.min_lr, progress)


def _refuse(problem: str) -> None:
    raise UserError(problem)


def half_cosine(start: float, end: float, progress: float) -> float:
    """Return the rate at a progress from 0 to 1 on half a cosine from `start` to `end`."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))


def peak_rates(optimizer: Optimizer) -> list[float]:
    """Return the learning rate that each parameter group was made with."""
    # an earlier scheduler has changed "lr" and stored the rate that the optimizer was made with in "initial_lr"
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


def check_order(optimizer: Optimizer, rates: dict[str, float]) -> None:
    """Check that rates do not fall from one to the next and do not exceed the optimizer's learning rate.

    Args:
        optimizer: The optimizer.
        rates: Learning rates by argument name, in ascending order.

    Raises:
        UserError: If a rate is NaN, negative, below the one before, or above the optimizer's smallest learning rate.
    """
    below, bound = "0", 0.0
    for name, rate in ((name, float(rate)) for name, rate in rates.items()):
        if not rate >= bound:
            raise UserError(f"`{name}` is {rate:g}, but it must be at least {below}; give {bound:g} or more.")
        below, bound = name, rate
    least = min(peak_rates(optimizer))
    if bound > least:
        raise UserError(
            f"`{below}` is {bound:g}, but the optimizer's learning rate, the maximum, is {least:g}; "
            f"lower {below} or raise the optimizer's lr."
        )


def check_step(step: Any, owner: str) -> int:
    """Return the step at which a part of a run is in a checkpoint, up to which it may be replayed.

    Args:
        step: The step.
        owner: Name of the part, for the message.

    Raises:
        UserError: If it is none, or one that no run reaches.
    """
    if not isinstance(step, int) or not 0 <= step <= _MOST_STEPS:
        raise UserError(
            f"The {owner} in --ckpt_path is at step {step}, but must be at a whole number from 0 to {_MOST_STEPS}; "
            "give another checkpoint."
        )
    return step
