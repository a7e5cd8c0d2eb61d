"""`PresentOptimizer`, which lets a resumed run use the optimizer arguments of its present config."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.lightning.schedules import StepSchedule


class PresentOptimizer(Callback):
    """Gives the optimizer arguments of the present config precedence over those of the checkpoint that is resumed.

    Lightning restores arguments such as learning rate and weight decay with the optimizer's moments. This callback sets
    them to the present values. An optimizer with a schedule other than a `StepSchedule` keeps the checkpoint's values,
    since such a schedule may store its state in them.
    """

    def __init__(self) -> None:
        self._given: list[list[dict[str, Any]]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the arguments before Lightning restores those of the checkpoint."""
        self._given = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the stored arguments, with the learning rate of the present schedule at this step."""
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
