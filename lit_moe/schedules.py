"""Infinite learning-rate schedules for continual training; ``docs/img/schedules.py`` draws them."""

from __future__ import annotations

from torch.optim import Optimizer

from lit_core.errors import UserError, check_above
from lit_core.lightning.schedules import StepSchedule, WarmupCosine, check_order, half_cosine, peak_rates

__all__ = ["CosineInf", "InvSqrtInf", "StepSchedule", "WarmupCosine"]


class CosineInf(StepSchedule):
    """Infinite schedule with a cosine cooldown: warm-up, cooldown, constant phase, exponential annealing.

    A checkpoint of the constant phase can be trained on without re-warming: a run that branches from it sets `warmup`
    and `cooldown` to 0 and starts flat at `const_lr`. Annealing takes the steps that the other phases leave;
    if their fractions add up to 1, the run ends in the constant phase
    (`Thérien et al. 2025 <https://arxiv.org/abs/2503.05029>`_).

    Args:
        optimizer: Optimizer whose learning rate is the maximum.
        total_steps: Optimizer steps of the whole run, as in trainer.max_steps.
        const_lr: Learning rate of the constant phase, at most the optimizer's learning rate.
        min_lr: Learning rate at total_steps, just after the last step of the annealing; above 0 and at most const_lr.
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
        check_order(optimizer, {"min_lr": min_lr, "const_lr": const_lr})
        const_lr, min_lr, warmup, cooldown = float(const_lr), float(min_lr), float(warmup), float(cooldown)
        if min_lr <= 0:
            raise UserError(f"`min_lr` is {min_lr}, but exponential annealing never reaches 0; give a small number.")
        peak = max(peak_rates(optimizer))
        if warmup > 0 and cooldown == 0 and const_lr < peak:
            raise UserError(
                f"`warmup` is {warmup} and `cooldown` is 0, so the learning rate would jump from {peak:g} to const_lr, "
                f"{const_lr:g}; set warmup to 0 to start flat at const_lr, or give a cooldown."
            )
        self.const_lr = const_lr
        self.min_lr = min_lr
        phases = {"warmup": warmup, "cooldown": cooldown, "constant": constant}
        super().__init__(optimizer, total_steps, phases, last="annealing")

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
        return half_cosine(peak, self.const_lr, progress)


class InvSqrtInf(CosineInf):
    """Infinite schedule with an inverse-square-root cooldown; the other phases are those of `CosineInf`.

    The cooldown falls by g(u) / g(1), u from 0 to 1, with g(u) = (1 + s u)^(-1/2) - 1 and the timescale s.

    Args:
        optimizer: Optimizer whose learning rate is the maximum.
        total_steps: Optimizer steps of the whole run, as in trainer.max_steps.
        const_lr: Learning rate of the constant phase, at most the optimizer's learning rate.
        min_lr: Learning rate at total_steps, just after the last step of the annealing; above 0 and at most const_lr.
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
        check_above(0, timescale=timescale)
        self.timescale = timescale
        super().__init__(optimizer, total_steps, const_lr, min_lr, warmup, cooldown, constant)

    def cool(self, peak: float, progress: float) -> float:
        """Return the learning rate of the cooldown."""
        fall = (1 + self.timescale * progress) ** -0.5 - 1
        whole = (1 + self.timescale) ** -0.5 - 1
        return peak + (self.const_lr - peak) * fall / whole
