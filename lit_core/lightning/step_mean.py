"""The loss of an optimizer step as the mean over all that it scores, over its micro-batches and devices."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lit_core.lightning.internals import steps_after_batch, trainer_of
from lit_core.lightning.step_logging import sum_on_device


class StepMean:
    """Makes the gradient of an optimizer step that of the mean loss over its scored tokens or samples.

    Lightning averages the losses of the A micro-batches of a step, and a strategy averages the gradients of W ranks.
    That is another mean where micro-batches score different numbers n of tokens. So, with N tokens in the whole step
    and n' per rank, on average, in its first micro-batch:

    1. The loss of each micro-batch is multiplied by n / n'.
    2. After the last backward pass of the step, the gradients are multiplied by A W n' / N. An incomplete last step of
       an epoch is exact too, though Lightning divides by A as in a complete one.

    If all micro-batches score the same number, both factors are exactly 1. Each step takes two sums of one number over
    all ranks.
    """

    def __init__(self) -> None:
        self._first: Tensor | None = None  # scored in the first micro-batch of the step, over all ranks
        self._scored = torch.zeros((), dtype=torch.int64)  # in the step so far, on this rank

    def loss(self, module: LightningModule, mean: Tensor, scored: Tensor) -> Tensor:
        """Return the loss of a micro-batch, to be returned by ``training_step``; every rank must call it.

        Args:
            module: The module that is trained; without a trainer, nothing is changed.
            mean: Mean loss over the tokens or samples that the micro-batch scores, 0 if there are none.
            scored: Their number, an int64 scalar.
        """
        trainer = trainer_of(module)
        if trainer is None:
            return mean
        if self._first is None:
            self._first = sum_on_device(trainer, scored.clone()).clamp(min=1)
            self._scored = torch.zeros_like(scored)
        self._scored = self._scored + scored
        return mean * (scored * trainer.world_size / self._first)

    def scale_gradients(self, module: LightningModule) -> None:
        """Scale the gradients if the optimizer steps next; to be called in ``on_after_backward``, on every rank."""
        if self._first is None or not steps_after_batch(module.trainer):
            return
        total = sum_on_device(module.trainer, self._scored.clone()).clamp(min=1)
        scale_gradients(module.parameters(), self._first * module.trainer.accumulate_grad_batches / total)
        self._first = None


def scale_gradients(parameters: Iterable[nn.Parameter], factor: Tensor) -> None:
    """Multiply all gradients by a number, in place.

    Args:
        parameters: Parameters; some may have no gradient, and their gradients may be divided over devices.
        factor: The number, a scalar.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    own = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    with torch.no_grad():
        torch._foreach_mul_(own, factor)
