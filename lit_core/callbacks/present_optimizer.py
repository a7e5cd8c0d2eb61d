"""`PresentOptimizer`, which lets a resumed run use the optimizer and schedule arguments of its present config."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, TypedDict

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_core.files.json_files import checked
from lit_core.lightning.optimizers import fitting_moments
from lit_core.lightning.schedules import StepSchedule, check_step
from lit_core.screen import rank_zero_info, rank_zero_warn

#: What `ReduceLROnPlateau` has seen so far, beside its arguments.
_SEEN = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")


class _Group(TypedDict):
    params: list[int]


class _State(TypedDict):
    state: dict[int, dict[str, Any]]
    param_groups: list[_Group]


class PresentOptimizer(Callback):
    """Gives the optimizer and schedule arguments of the present config precedence over those of a resumed checkpoint.

    Lightning restores arguments such as learning rate, weight decay and ``T_max`` with the optimizer's moments and the
    schedule's step. This callback sets them to the present values, and a schedule of torch to the step that it was at.
    If the learning rate then differs from that of the checkpoint, both are printed. Moments of another optimizer begin
    anew.

    `ReduceLROnPlateau` depends on what it has seen, so its learning rate is that of the checkpoint. A schedule with a
    ``step`` of its own keeps all values of the checkpoint, since it may store its state in them.

    It warns before a run that is longer than its schedule, says where a shorter one ends, and warns when the learning
    rate comes to 0 for good.
    """

    def __init__(self) -> None:
        self._given: list[list[dict[str, Any]]] = []
        self._fresh: list[dict[str, Any]] = []
        self._saved: list[dict[str, Any]] = []
        self._idle = 0
        self._has_warned = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep the states of the optimizers, which are built and restored later, and check the steps of schedules."""
        self._saved = checkpoint.get("optimizer_states", [])
        where, remedy = "The checkpoint's state of", "give another checkpoint"
        checked(list[_State], self._saved, f"{where} optimizer_states", remedy)
        for state in checked(list[dict[str, Any]], checkpoint.get("lr_schedulers", []), f"{where} schedules", remedy):
            check_step(state.get("last_epoch", 0), "schedule")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Store the arguments before Lightning restores those of the checkpoint, and drop what does not fit."""
        for optimizer, saved in zip(trainer.optimizers, self._saved, strict=False):  # Lightning compares the numbers
            _keep_fitting_moments(optimizer, saved)
        self._saved = []
        self._given = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]
        self._fresh = [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the stored arguments, with the learning rate of the present schedule at this step."""
        schedules = {
            id(config.scheduler.optimizer): (config.scheduler, fresh)
            for config, fresh in zip(trainer.lr_scheduler_configs, self._fresh, strict=True)
        }
        for optimizer, given in zip(trainer.optimizers, self._given, strict=True):
            schedule, fresh = schedules.get(id(optimizer), (None, {}))
            before = _rate(optimizer)
            if schedule is None or _is_of_torch(schedule):
                for group, arguments in zip(optimizer.param_groups, given, strict=True):
                    group.update(arguments)
            if isinstance(schedule, ReduceLROnPlateau):
                seen = {key: value for key, value in schedule.state_dict().items() if key in _SEEN}
                schedule.load_state_dict(fresh | seen)
                for group, rate in zip(optimizer.param_groups, seen["_last_lr"], strict=True):
                    group["lr"] = rate
            elif isinstance(schedule, StepSchedule):
                _set_rates(schedule, optimizer)
                self._check_length(schedule, trainer)
            elif schedule is not None and _is_of_torch(schedule):
                _replay(schedule, fresh)
            after = _rate(optimizer)
            if trainer.global_step and not math.isclose(before, after, rel_tol=1e-6, abs_tol=1e-30):
                rank_zero_info(
                    f"The learning rate goes on at {after:.4g}, as it is configured now; in the checkpoint it was "
                    f"{before:.4g}."
                )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Warn if the learning rate is 0 for two steps in succession; the first step of a warm-up may have it.

        A module that no gradient trains, such as a detector that is fitted to features, has no rate.
        """
        if not getattr(pl_module, "is_trained", True):
            return
        is_idle = all(float(group["lr"]) == 0 for group in optimizer.param_groups)
        self._idle = self._idle + 1 if is_idle else 0
        if self._idle == 2 and not self._has_warned:
            rank_zero_warn(
                f"The learning rate is 0 since step {trainer.global_step - 1}, so nothing is learned; lengthen the "
                "schedule or stop the run."
            )

    def _check_length(self, schedule: StepSchedule, trainer: Trainer) -> None:
        """Warn if the run goes on after the end of its schedule, and say where it ends before that."""
        last, total = trainer.estimated_stepping_batches, schedule.total_steps
        if not math.isfinite(last) or last <= trainer.global_step or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        rate = schedule.rate(int(last) - 1, float(schedule.base_lrs[0]))
        if last < total:
            rank_zero_info(
                f"The run ends after {last} of the {total} steps of its schedule, at a learning rate of {rate:.4g}."
            )
        if last <= total:
            return
        self._has_warned = True
        whole = f"${{trainer.max_steps}}, or {last}" if last == trainer.max_steps else last
        rank_zero_warn(
            f"`total_steps` of the schedule is {total}, but the run has {last} steps: the last "
            f"{last - max(total, trainer.global_step)} steps are trained at a learning rate of {rate:.4g}; give "
            f"total_steps as {whole}."
        )


def _keep_fitting_moments(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Replace moments in the state of a checkpoint that do not fit by those that the optimizer begins with."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    state = saved["state"]
    found = {
        parameter: number for parameter, number in zip(parameters, numbers, strict=False) if number in state
    }  # Lightning compares how many there are
    fitting = fitting_moments(optimizer, {parameter: state[number] for parameter, number in found.items()})
    for parameter, moments in fitting.items():
        state[found[parameter]] = moments
    for parameter in found.keys() - fitting.keys():
        del state[found[parameter]]
        if optimizer.state.get(parameter):
            state[found[parameter]] = optimizer.state[parameter]


def _rate(optimizer: Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _is_of_torch(schedule: Any) -> bool:
    """Return whether the steps of a schedule are counted by torch's own code."""
    return type(schedule).step.__module__ == "torch.optim.lr_scheduler"


def _set_rates(schedule: StepSchedule, optimizer: Optimizer) -> None:
    rates = schedule.get_lr()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = list(rates)


def _replay(schedule: Any, fresh: dict[str, Any]) -> None:
    """Bring a schedule from its start to the step that it is at; its optimizer has the values of the start."""
    counted = schedule
    while not hasattr(counted, "last_epoch"):  # several in one
        counted = counted._schedulers[0]
    steps = check_step(counted.last_epoch, "schedule")
    schedule.load_state_dict(copy.deepcopy(fresh))
    with warnings.catch_warnings():  # torch expects a step of the optimizer before each
        warnings.simplefilter("ignore")
        for _ in range(steps):
            schedule.step()
