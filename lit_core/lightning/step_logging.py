"""Logging of optimizer steps, and sums and rows over all ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lit_core.lightning.internals import logs_this_step


def log_step(
    module: LightningModule, optimizer: Optimizer, window: Sequence[Tensor], score: str | None = "accuracy"
) -> None:
    """Log an optimizer step over its whole global batch, if Lightning logs this step.

    The keys are ``train/loss``, ``train/{score}``, ``train/learning_rate`` and ``train/gradient_norm``, before
    clipping.

    Args:
        module: The module; every rank calls this in its ``on_before_optimizer_step``.
        optimizer: Its optimizer.
        window: Sum of the losses, sum of the scores, such as the number of correct predictions, and number of samples,
            shape ``(3,)``, of each micro-batch of the step on this rank.
        score: Name of the score; None logs none.
    """
    if not logs_this_step(module.trainer):
        return
    loss, right, samples = sum_over_ranks(module.trainer, torch.stack(list(window)).sum(0)).tolist()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    module.log("train/loss", ratio(loss, samples), prog_bar=True)
    if score is not None:
        module.log(f"train/{score}", ratio(right, samples), prog_bar=True)
    module.log("train/learning_rate", float(optimizer.param_groups[0]["lr"]))
    module.log("train/gradient_norm", nn.utils.get_total_norm(gradients))


def ratio(total: float, count: float) -> float:
    """Return a mean from a sum; NaN if there is nothing to average.

    Lightning would repeat the value of an earlier step in place of one that is not logged.
    """
    return total / count if count else math.nan


def sum_over_ranks(trainer: Trainer, values: Tensor) -> Tensor:
    """Add up values over all ranks, in one collective that every rank must reach.

    Args:
        trainer: The trainer of all ranks.
        values: Numbers of any shape, the same shape on each rank.

    Returns:
        The sums in float64, on the CPU.
    """
    if trainer.world_size == 1:
        return values.detach().cpu().double()
    local = values.detach().to(trainer.strategy.root_device).double()
    return trainer.strategy.reduce(local, reduce_op="sum").cpu()


def sum_on_device(trainer: Trainer, values: Tensor) -> Tensor:
    """Add up values over all ranks without waiting for a GPU, in one collective that every rank must reach.

    Args:
        trainer: The trainer of all ranks.
        values: Numbers of any shape and type, the same on each rank; they may be changed in place.

    Returns:
        The sums, on the device of the rank; with one rank, ``values``.
    """
    if trainer.world_size == 1:
        return values
    values = values.to(trainer.strategy.root_device, non_blocking=True)
    dist.all_reduce(values)
    return values


def rows_of_all_ranks(trainer: Trainer, rows: Tensor) -> Tensor:
    """Gather rows from all ranks, which may have different numbers of them; every rank must call it.

    Args:
        trainer: The trainer of all ranks.
        rows: Rows of this rank, ``(n, ...)``; only n may differ between ranks.

    Returns:
        The rows of all ranks, ordered by rank, on the device of ``rows``.
    """
    if trainer.world_size == 1:
        return rows
    device = trainer.strategy.root_device
    sizes = torch.zeros(trainer.world_size, dtype=torch.int64, device=device)
    sizes[trainer.global_rank] = len(rows)
    dist.all_reduce(sizes)
    padded = torch.zeros((int(sizes.max()), *rows.shape[1:]), dtype=rows.dtype, device=device)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(trainer.world_size)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes.tolist(), strict=True)]).to(rows.device)
