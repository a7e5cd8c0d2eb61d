"""`FiniteLoss`, which stops training at a loss that is not finite."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_core.errors import RunFailure


class FiniteLoss(Callback):
    """Ends a run at a loss that is NaN or infinite, before the weights are updated; the last checkpoint stays valid."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check the loss of each micro-batch.

        Raises:
            RunFailure: If the loss is not finite.
        """
        if not bool(loss.isfinite()):
            raise RunFailure(
                f"The loss became {loss.item()} at step {trainer.global_step}; the weights were not updated. Resume "
                "from the last checkpoint with a lower learning rate, a smaller gradient_clip_val or higher precision."
            )
