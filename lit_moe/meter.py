"""Tokens, FLOPs and speed of a training run, exact over gradient accumulation, devices and resumes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor

from lit_core.files.json_files import checked_state


class _Counts(TypedDict):
    tokens: int
    flops: float | None


@dataclass
class Window:
    """Sums over the micro-batches of one optimizer step on this device."""

    scored: list[Tensor] = field(default_factory=list)
    auxiliary: list[Tensor] = field(default_factory=list)
    nats: list[Tensor] = field(default_factory=list)
    text_bytes: list[Tensor] = field(default_factory=list)
    tokens: int = 0
    flops: float = 0.0

    def sums(self) -> Tensor:
        """Return scored tokens, auxiliary loss of each, nats and bytes, each summed, of shape ``(4,)``."""
        parts = (self.scored, self.auxiliary, self.nats, self.text_bytes)
        return torch.stack([torch.stack([value.detach().float() for value in part]).sum() for part in parts])


class TrainingMeter:
    """Counts tokens and FLOPs of finished optimizer steps and measures tokens per second.

    A step counts once the trainer's step counter has passed it, so a checkpoint that lies between an optimizer step's
    hooks, or in the middle of accumulation, holds the counts of exactly the steps in its weights.
    """

    def __init__(self) -> None:
        self.window = Window()
        # float64 holds counts up to 2^53; on the device of the ranks, so that no step waits for it
        self._total = torch.zeros(2, dtype=torch.float64)
        self._pending = (-1, self._total)
        self._clock = time.perf_counter()
        self._clock_tokens = 0
        self._paused: float | None = None

    def close(self, step: int, sum_over_ranks: Callable[[Tensor], Tensor] = lambda counts: counts) -> Window:
        """End the window of the current optimizer step, just before the optimizer runs.

        Args:
            step: Optimizer steps finished before it.
            sum_over_ranks: Adds up the tokens and FLOPs of a rank, shape ``(2,)``, over all ranks; a loader may give
                each of them other numbers.

        Returns:
            The sums of the ended window on this device.
        """
        window, self.window = self.window, Window()
        counts = torch.tensor([window.tokens, window.flops], dtype=torch.float64)
        self._total, self._pending = self._counts(step), (step, sum_over_ranks(counts))
        return window

    def tokens(self, step: int) -> int:
        """Return the tokens seen in the first `step` optimizer steps, over all devices."""
        return int(self._counts(step)[0])

    def flops(self, step: int) -> float:
        """Return the floating-point operations of the first `step` optimizer steps, over all devices."""
        return float(self._counts(step)[1])

    def _counts(self, step: int) -> Tensor:
        last, pending = self._pending
        return self._total.to(pending.device) + pending if step > last >= 0 else self._total

    def start_clock(self, step: int) -> None:
        """Start the clock that measures the speed.

        Args:
            step: Optimizer steps already done.
        """
        self._clock, self._clock_tokens, self._paused = time.perf_counter(), self.tokens(step), None

    def pause_clock(self) -> None:
        """Stop the clock, for example during a validation."""
        self._paused = time.perf_counter()

    def resume_clock(self) -> None:
        """Start the clock again after a pause."""
        if self._paused is not None:
            self._clock += time.perf_counter() - self._paused
            self._paused = None

    def lap(self, tokens: int) -> float:
        """Return tokens per second of wall-clock time since the last lap.

        Args:
            tokens: All tokens seen so far.
        """
        now = time.perf_counter()
        speed = (tokens - self._clock_tokens) / max(now - self._clock, 1e-9)
        self._clock, self._clock_tokens = now, tokens
        return speed

    def state_dict(self, step: int) -> dict[str, Any]:
        """Return the counts after `step` optimizer steps; None for FLOPs that are not known."""
        flops = self.flops(step)
        return {"tokens": self.tokens(step), "flops": None if math.isnan(flops) else flops}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the counts of a checkpoint."""
        flops = state.get("flops") if isinstance(state, dict) else None
        if isinstance(flops, float) and math.isnan(flops):  # as the first checkpoints have it
            state = {**state, "flops": None}
        state = checked_state(_Counts, state, "training_meter")
        flops = math.nan if state["flops"] is None else state["flops"]
        self._total = torch.tensor([state["tokens"], flops], dtype=torch.float64)
        self._pending = (-1, self._total)
        self.window = Window()
