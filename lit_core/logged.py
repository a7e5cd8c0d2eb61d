"""Which training steps are logged, and sums over the ranks for those that are."""

from __future__ import annotations

from lightning.pytorch import Trainer
from torch import Tensor


def logs_this_step(trainer: Trainer) -> bool:
    """Tell, at any moment of an optimizer step, whether its metrics go to the loggers; the same on every rank."""
    # private: the public log_every_n_steps counts on an axis of its own, which a resume shifts
    return bool(trainer._logger_connector.should_update_logs) or bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def sum_over_ranks(trainer: Trainer, values: Tensor) -> Tensor:
    """Add up values over all ranks, in one collective that every rank must reach.

    Args:
        trainer: Knows the ranks.
        values: Numbers of any shape, the same shape on each rank.

    Returns:
        The sums in float64, on the CPU.
    """
    if trainer.world_size == 1:
        return values.detach().cpu().double()
    local = values.detach().to(trainer.strategy.root_device).double()
    return trainer.strategy.reduce(local, reduce_op="sum").cpu()
