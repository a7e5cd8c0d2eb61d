"""`UnmovedWeights`, which logs the share of weights that an optimizer step did not change."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_core.errors import check_at_least
from lit_core.lightning.float32_steps import stored_bits
from lit_core.lightning.internals import logs_this_step
from lit_core.lightning.step_logging import ratio, sum_over_ranks


class UnmovedWeights(Callback):
    """Logs the share of trained weights that an optimizer step did not change, such as by rounding.

    Near 0, each step reaches each weight. Near 1, the steps are smaller than the number format of the weights can hold,
    as at low learning rates in bfloat16, or most weights have no gradient, such as embeddings of words that do not
    occur. It is measured at the logged steps, over all devices; at others nothing is held.

    ==========================  ========  =========================================
    key                         unit      moment
    ==========================  ========  =========================================
    ``train/unmoved_weights``   0 to 1    logged step
    ==========================  ========  =========================================

    Args:
        at_most: Largest number of weights of a device that are compared, which are evenly spaced; a device with fewer
            compares all.
    """

    def __init__(self, at_most: int = 2**20) -> None:
        check_at_least(1, at_most=at_most)
        self.at_most = at_most
        self._before: list[tuple[Optimizer, list[list[Tensor]]]] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Copy the weights that are compared, if the step is logged."""
        if logs_this_step(trainer) and getattr(pl_module, "is_trained", True):
            self._before.append((optimizer, list(self._compared(optimizer))))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare them and log the share, after the step."""
        if not self._before:
            return
        sums = torch.zeros(2, dtype=torch.float64)
        for optimizer, before in self._before:
            weights = sum(stored_bits(optimizer, parameter)[0].numel() for parameter in _trained(optimizer))
            pairs = list(zip(before, self._compared(optimizer), strict=True))
            unmoved, compared = sum(_equal(*pair) for pair in pairs), sum(len(old[0]) for old, _ in pairs)
            sums += torch.tensor([weights * unmoved / max(1, compared), weights])
        self._before = []
        unmoved_weights, all_weights = sum_over_ranks(trainer, sums).tolist()
        pl_module.log("train/unmoved_weights", ratio(unmoved_weights, all_weights))

    def _compared(self, optimizer: Optimizer) -> Iterator[list[Tensor]]:
        """Yield copies of every n-th weight on this device, by parameter, of each tensor that holds a part of it."""
        parameters = _trained(optimizer)
        total = sum(stored_bits(optimizer, parameter)[0].numel() for parameter in parameters)
        every = -(-total // self.at_most)
        every += every > 1 and every % 2 == 0  # odd: a power of two would take the same columns of each matrix
        passed = 0
        for parameter in parameters:
            tensors = stored_bits(optimizer, parameter)
            yield [tensor.reshape(-1)[-passed % every :: every].clone() for tensor in tensors]
            passed += tensors[0].numel()


def _trained(optimizer: Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad]


def _equal(before: list[Tensor], after: list[Tensor]) -> int:
    """Count the weights whose tensors are all as before; lower bits that were not there were 0."""
    same = torch.ones_like(after[0], dtype=torch.bool)
    for old, new in zip_longest(before, after):
        same &= new == (0 if old is None else old)
    return int(same.sum())
