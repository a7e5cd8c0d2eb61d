"""`FiniteLoss`, which stops training at a loss that is not finite."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_core.errors import RunFailure


class FiniteLoss(Callback):
    """Ends a run whose loss is NaN or infinite before that reaches the weights; the last checkpoint stays good."""

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss of each micro-batch."""
        if not bool(loss.isfinite()):
            raise RunFailure(
                f"The loss became {loss.item()} at step {trainer.global_step}, before it reached the weights; resume "
                "from the last checkpoint with a lower learning rate, a smaller gradient_clip_val or higher precision."
            )
