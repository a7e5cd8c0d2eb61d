"""A resumed run trains with the optimizer's arguments as they are given now."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.lightning.schedules import StepSchedule


class PresentOptimizer(Callback):
    """Lets the present learning rate, weight decay and the like win over those of the checkpoint that is resumed.

    Lightning restores them with the optimizer's moments. Where they have not changed, nothing does. An optimizer whose
    learning rate is set by a schedule that is no `StepSchedule` keeps what it had, since the schedule's state may lie
    in it.
    """

    def __init__(self) -> None:
        self._given: list[list[dict[str, Any]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the arguments before the checkpoint's take their place."""
        self._given = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put them back, with the rate that the present schedule has at this step."""
        schedules = {id(config.scheduler.optimizer): config.scheduler for config in trainer.lr_scheduler_configs}
        for optimizer, given in zip(trainer.optimizers, self._given, strict=True):
            schedule = schedules.get(id(optimizer))
            if schedule is not None and not isinstance(schedule, StepSchedule):
                continue
            for group, arguments in zip(optimizer.param_groups, given, strict=True):
                group.update(arguments)
            if schedule is not None:
                rates = schedule.get_lr()
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate
                schedule._last_lr = list(rates)
