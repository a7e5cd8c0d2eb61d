"""What we add to Lightning: checkpoints, loggers, TensorBoard pages, optimizers, schedules and device helpers."""

from lit_core.lightning.schedules import WarmupCosine

__all__ = ["WarmupCosine"]
