"""What we add to Lightning: checkpoints, loggers, TensorBoard pages, optimizers, schedules and device helpers."""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_core.lightning.schedules import WarmupCosine

__all__ = ["WarmupCosine"]
__getattr__, __dir__ = exports(__name__)
