"""Learning-rate schedules for training that goes on: re-warmed cosine and the infinite schedules.

All of them are closed forms of the optimizer step, so a resumed run has exactly the rates of one that was never
stopped. ``docs/img/schedules.py`` draws them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_core.errors import UserError


class StepSchedule(LRScheduler):
    """Base of the schedules: a learning rate as a function of the step and of the group's own maximum.

    The maximum is the learning rate the optimizer was made with. The state is the step alone: phase lengths and rates
    are those of the present config, also on resume.

    Args:
        optimizer: Optimizer whose learning rates are set.
        total_steps: Optimizer steps of the whole run, at least 1.
        phases: Length of each phase but the last as a fraction of `total_steps`, by argument name.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, phases: dict[str, float]) -> None:
        if total_steps < 1:
            raise UserError(f"`total_steps` is {total_steps}, but it must be at least 1; give trainer.max_steps.")
        for name, fraction in phases.items():
            if not 0 <= fraction <= 1:
                raise UserError(
                    f"`{name}` is {fraction}, but it is a fraction of total_steps; give a number from 0 to 1."
                )
        if sum(phases.values()) > 1 + 1e-9:
            names = " + ".join(f"`{name}`" for name in phases)
            raise UserError(
                f"{names} is {sum(phases.values()):g}, but the phases share the whole run; let their sum be at most 1."
            )
        self.total_steps = total_steps
        self.lengths = [round(fraction * total_steps) for fraction in phases.values()]
        super().__init__(optimizer)

    def rate(self, step: int, peak: float) -> float:
        """Return the learning rate of a step.

        Args:
            step: Optimizer steps already done.
            peak: Maximum learning rate of the parameter group.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rate.")

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of each parameter group at the current step."""
        return [self.rate(self.last_epoch, float(base)) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the step, and what PyTorch keeps beside it."""
        return {name: getattr(self, name) for name in ("last_epoch", "_step_count", "_last_lr")}


class WarmupCosine(StepSchedule):
    """Linear warm-up and cosine decay; from a decayed checkpoint it re-warms and re-decays.

    The rate rises from 0 to the optimizer's learning rate, then falls along half a cosine to `min_lr`
    (`Ibrahim et al. 2024 <https://arxiv.org/abs/2403.08763>`_).

    Args:
        optimizer: Optimizer whose learning rate is the maximum.
        total_steps: Optimizer steps of the whole run, as in trainer.max_steps.
        warmup: Length of the warm-up, as a fraction of total_steps from 0 to 1.
        min_lr: Learning rate at the last step, from 0 to the optimizer's learning rate.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.01, min_lr: float = 0.0) -> None:
        _check_order(optimizer, {"min_lr": min_lr})
        self.min_lr = min_lr
        super().__init__(optimizer, total_steps, {"warmup": warmup})

    def rate(self, step: int, peak: float) -> float:
        """Return the learning rate of a step."""
        (warmup,) = self.lengths
        if step < warmup:
            return peak * step / warmup
        progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        return _half_cosine(peak, self.min_lr, progress)


class CosineInf(StepSchedule):
    """Infinite schedule with a cosine cooldown: warm-up, cooldown, constant phase, exponential annealing.

    A checkpoint of the constant phase can be trained on without re-warming: a run that branches from it sets `warmup`
    and `cooldown` to 0 and starts flat at `const_lr`. Annealing takes the steps that the other phases leave
    (`Thérien et al. 2025 <https://arxiv.org/abs/2503.05029>`_).

    Args:
        optimizer: Optimizer whose learning rate is the maximum.
        total_steps: Optimizer steps of the whole run, as in trainer.max_steps.
        const_lr: Learning rate of the constant phase, at most the optimizer's learning rate.
        min_lr: Learning rate at the end of the annealing, above 0 and at most const_lr.
        warmup: Length of the warm-up, as a fraction of total_steps from 0 to 1.
        cooldown: Length of the cooldown, as a fraction of total_steps from 0 to 1.
        constant: Length of the constant phase, as a fraction of total_steps from 0 to 1.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        const_lr: float,
        min_lr: float,
        warmup: float = 0.01,
        cooldown: float = 0.7,
        constant: float = 0.1,
    ) -> None:
        _check_order(optimizer, {"min_lr": min_lr, "const_lr": const_lr})
        if min_lr <= 0:
            raise UserError(f"`min_lr` is {min_lr}, but exponential annealing never reaches 0; give a small number.")
        peak = max(_peaks(optimizer))
        if warmup > 0 and cooldown == 0 and const_lr < peak:
            raise UserError(
                f"`warmup` is {warmup} and `cooldown` is 0, so the learning rate would jump from {peak:g} to const_lr, "
                f"{const_lr:g}; set warmup to 0 to start flat at const_lr, or give a cooldown."
            )
        self.const_lr = const_lr
        self.min_lr = min_lr
        super().__init__(optimizer, total_steps, {"warmup": warmup, "cooldown": cooldown, "constant": constant})

    def rate(self, step: int, peak: float) -> float:
        """Return the learning rate of a step."""
        warmup, cooldown, constant = self.lengths
        if step < warmup:
            return peak * step / warmup
        step -= warmup
        if step < cooldown:
            return self.cool(peak, step / cooldown)
        step -= cooldown
        if step < constant:
            return self.const_lr
        annealing = self.total_steps - warmup - cooldown - constant
        progress = min(1.0, (step - constant) / annealing) if annealing > 0 else 0.0
        return self.const_lr * (self.min_lr / self.const_lr) ** progress

    def cool(self, peak: float, progress: float) -> float:
        """Return the learning rate of the cooldown.

        Args:
            peak: Learning rate at its start.
            progress: Done part of the cooldown, from 0 to 1.
        """
        return _half_cosine(peak, self.const_lr, progress)


class InvSqrtInf(CosineInf):
    """Infinite schedule with an inverse-square-root cooldown; the other phases are those of `CosineInf`.

    The cooldown falls by g(u) / g(1), u from 0 to 1, with g(u) = (1 + s u)^(-1/2) - 1 and the timescale s.

    Args:
        optimizer: Optimizer whose learning rate is the maximum.
        total_steps: Optimizer steps of the whole run, as in trainer.max_steps.
        const_lr: Learning rate of the constant phase, at most the optimizer's learning rate.
        min_lr: Learning rate at the end of the annealing, above 0 and at most const_lr.
        warmup: Length of the warm-up, as a fraction of total_steps from 0 to 1.
        cooldown: Length of the cooldown, as a fraction of total_steps from 0 to 1.
        constant: Length of the constant phase, as a fraction of total_steps from 0 to 1.
        timescale: How steeply the cooldown falls at its start, above 0; 10 falls by 60 % of the way in the first fifth.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        const_lr: float,
        min_lr: float,
        warmup: float = 0.01,
        cooldown: float = 0.7,
        constant: float = 0.1,
        timescale: float = 10.0,
    ) -> None:
        if timescale <= 0:
            raise UserError(f"`timescale` is {timescale}, but it must be above 0; 10 is usual.")
        self.timescale = timescale
        super().__init__(optimizer, total_steps, const_lr, min_lr, warmup, cooldown, constant)

    def cool(self, peak: float, progress: float) -> float:
        """Return the learning rate of the cooldown."""
        fall = (1 + self.timescale * progress) ** -0.5 - 1
        whole = (1 + self.timescale) ** -0.5 - 1
        return peak + (self.const_lr - peak) * fall / whole


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * progress))


def _peaks(optimizer: Optimizer) -> list[float]:
    # A scheduler made before has moved "lr" and left the rate the optimizer was made with in "initial_lr".
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


def _check_order(optimizer: Optimizer, rates: dict[str, float]) -> None:
    """Check that rates rise from 0 to the optimizer's own."""
    below, bound = "0", 0.0
    for name, rate in rates.items():
        if rate < bound:
            raise UserError(f"`{name}` is {rate:g}, but it must be at least {below}; give {bound:g} or more.")
        below, bound = name, rate
    if bound > min(_peaks(optimizer)):
        raise UserError(
            f"`{below}` is {bound:g}, but the optimizer's learning rate, the maximum, is {min(_peaks(optimizer)):g}; "
            f"lower {below} or raise the optimizer's lr."
        )
