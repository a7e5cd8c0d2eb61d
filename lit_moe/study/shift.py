"""The shift of the training data: metrics of the routers around it, by step and by layer.

After Thérien et al. 2025, Continual Pre-training of MoEs, arXiv 2503.05029.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.files.json_files import checked_state

#: Parts of a decoder of which the paper speaks, as its layers of 24, first and last.
BANDS = ("0-2", "3-12", "13-23", "0-4", "5-23", "0-6", "7-23")


class _State(TypedDict):
    steps: list[dict[str, int | float]]


class Trace(Callback):
    """Keeps some logged metrics of each optimizer step, also in checkpoints.

    Args:
        names: Names to keep them under by metric key; a key that is not logged is left out.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = dict(names)
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep an optimizer step's metrics, at its last micro-batch."""
        if trainer.global_step > len(self.steps):
            logged = trainer.callback_metrics
            self.steps.append({name: float(logged[key]) for key, name in self.names.items() if key in logged})

    def state_dict(self) -> dict[str, Any]:
        """Return the steps so far."""
        return {"steps": list(self.steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the steps so far."""
        self.steps = checked_state(_State, state_dict, type(self).__name__)["steps"]


def around_shift(
    before: Sequence[float], after: Sequence[float], window: int, tolerance: float = 0.05, smooth: int = 5
) -> dict[str, float]:
    """Measure the spike of a value at a shift, and how long it lasts.

    The value's level is its mean over the window before the shift. The spike is the maximum over the window after the
    shift minus the maximum over the window before, so that noise alone makes none, relative to the level. It is over
    once the mean of some successive steps, at or after the largest such mean in the window, is within the tolerance.

    Args:
        before: Values of the steps before the shift, at least one window of them.
        after: Values of the steps after it.
        window: Steps before and after the shift that are compared, 1 or more.
        tolerance: Relative distance above the level that still counts as the level.
        smooth: Steps whose mean is compared with the level.

    Returns:
        ``level``; ``spike``, relative to it; ``return_steps`` until it is over, 0 if there was none, and the number of
        all steps if it is not over at their end; ``steady``, the mean over the last window.

    Example:
        >>> around_shift([1.0, 1.0], [2.0, 1.5, 1.0, 1.0], window=2, smooth=1)
        {'level': 1.0, 'spike': 1.0, 'return_steps': 2.0, 'steady': 1.0}
    """
    level = statistics.fmean(before[-window:])
    means = [statistics.fmean(after[i : i + smooth]) for i in range(max(1, len(after) - smooth + 1))]
    peak = max(range(min(window, len(means))), key=means.__getitem__)
    over = (i for i in range(peak, len(means)) if means[i] <= (1 + tolerance) * level)
    returned = 0 if means[peak] <= (1 + tolerance) * level else next(over, len(after))
    return {
        "level": level,
        "spike": (max(after[:window]) - max(before[-window:])) / level,
        "return_steps": float(returned),
        "steady": statistics.fmean(after[-window:]),
    }


def layers_of(band: str, n_layers: int) -> list[int]:
    """Return the layers of a decoder that lie where some layers of a decoder of 24 lie, by the middle of their depth.

    Args:
        band: One of `BANDS`.
        n_layers: Layers of the decoder.

    Returns:
        Numbers of layers; none where the decoder is too shallow.

    Example:
        >>> layers_of("0-2", 6), layers_of("3-12", 6)
        ([0], [1, 2])
    """
    first, last = map(int, band.split("-"))
    return [layer for layer in range(n_layers) if first <= (layer + 0.5) * 24 / n_layers < last + 1]
