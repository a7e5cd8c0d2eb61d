"""`ResumeStream`, a callback that resumes a stream exactly, also mid-epoch and on another number of devices."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lit_core.data.loader import StreamLoader
from lit_core.data.stream import Stream
from lit_core.errors import UserError
from lit_core.lightning.internals import set_logged_step

_COUNTERS = ("ready", "started", "processed", "completed")


class ResumeStream(Callback):
    """Changes training so that a resumed run equals an uninterrupted one, bit for bit on the same layout.

    1. It counts the consumed samples at optimizer-step boundaries and saves the counts in checkpoints. A checkpoint
       written between two micro-batches of a step, as after an exception, is reset to the preceding boundary.
    2. On resume it sets the start position of the training `StreamLoader`.
    3. Before each micro-batch it seeds torch, NumPy and Python from the stream's seed, the index of the micro-batch and
       the rank, so that dropout needs no saved state.

    With any other training loader it does nothing.

    Attributes:
        step: Optimizer steps done.
        consumed: Samples consumed by source name.
    """

    def __init__(self) -> None:
        self.step = 0
        self._given: dict[str, int] = {}  # samples consumed, as long as there is no stream
        self._stream: Stream | None = None
        self._saved: dict[str, Any] | None = None
        self._first_batch = True
        self._seen = 0  # micro-batches since training began, in units of the present layout
        self._before = 0  # batches that Lightning had processed when this counter stood at 0
        self._global_step = 0

    @property
    def consumed(self) -> dict[str, int]:
        """Samples consumed by source name."""
        return dict(self._given) if self._stream is None else self._stream.consumed(self.step)

    def branch(self, consumed: Mapping[str, int]) -> None:
        """Begin a new run, at step 0, after the samples that another run consumed.

        Args:
            consumed: Samples by source name; must be called before training starts.
        """
        self._begin(0, consumed)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the start position of the training loader.

        Raises:
            UserError: If trainer and stream do not match, or the checkpoint is of another stream.
        """
        loader = trainer.train_dataloader
        if not isinstance(loader, StreamLoader) or not isinstance(loader.stream, Stream):
            return
        stream = loader.stream
        _check_trainer(trainer, stream)
        if self._saved is not None:
            _check_same_stream(stream, self._saved)
            self._saved = None
        elif trainer.global_step and self._stream is None:
            raise UserError(
                "The checkpoint to resume from does not say which samples were consumed, since ResumeStream was not "
                "among the callbacks; give it to --branch_from instead."
            )
        stream.start_at(self.step, self.consumed)
        self._stream = stream
        loader.position = lambda: (self.step, self.consumed)
        self._first_batch = True
        self._seen = self.step * stream.accumulation
        progress = trainer.fit_loop.epoch_loop.batch_progress.total.state_dict()
        self._before = progress["processed"] - self._seen
        self._global_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the random number generators for the micro-batch."""
        if self._stream is None:
            return
        if self._first_batch:  # Lightning's own count, the x axis of its loggers, is not exact after a resume
            set_logged_step(trainer, self.step)
            self._first_batch = False
        digest = hashlib.blake2b(f"{self._stream.seed}\0{self._seen}\0{self._stream.rank}".encode(), digest_size=8)
        seed = int.from_bytes(digest.digest(), "little")
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the micro-batch; batches that were only read ahead are not counted."""
        if self._stream is None:
            return
        self._seen += 1
        if trainer.global_step != self._global_step:
            self._global_step = trainer.global_step
            self.step = self._seen // self._stream.accumulation

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the state, and reset Lightning's counters to the last optimizer-step boundary."""
        if self._stream is None:
            return
        # the optimizer may have stepped in a batch that did not end, since another callback failed
        step = self.step + (trainer.global_step != self._global_step)
        checkpoint["callbacks"][self.state_key] = {
            "step": step,
            "consumed": self._stream.consumed(step),
            "samples": {name: len(source) for name, source in self._stream.sources.items()},
            "global_batch_size": self._stream.global_batch_size,
            "batches_per_step": self._stream.accumulation,
            "seed": self._stream.seed,
        }
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        surplus = batches["total"]["processed"] - self._before - step * self._stream.accumulation
        for counters in (batches["total"], batches["current"]):
            counters["processed"] -= surplus
            counters["completed"] = min(counters["completed"] - max(surplus, 0), counters["processed"])

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct Lightning's counters before it reads them."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self._saved = checkpoint["callbacks"].get(self.state_key)
        if self._saved is None:
            return
        self._begin(self._saved["step"], self._saved["consumed"])
        fit_loop = checkpoint["loops"]["fit_loop"]
        batches, epochs = fit_loop["epoch_loop.batch_progress"], fit_loop["epoch_progress"]
        old, new = self._saved["batches_per_step"], trainer.accumulate_grad_batches
        for counters in (batches["total"], batches["current"]):
            incomplete = counters["processed"] - counters["completed"]
            counters["processed"] = counters["processed"] // old * new
            counters["ready"] = counters["started"] = counters["processed"]  # unfinished batches are not counted
            counters["completed"] = counters["processed"] - incomplete
        epoch_ended = epochs["total"]["processed"] == epochs["total"]["ready"]
        batch_ended = batches["total"]["processed"] == batches["total"]["completed"]
        if batches["is_last_batch"] and (epoch_ended or not batch_ended):
            # Saved at the end of an epoch, or of its last batch. If max_steps is set, Lightning takes the former for
            # the middle of the epoch; after the latter it counts epochs wrongly. Neither runs on_train_epoch_end
            # again; after a validation at the last batch, it is due and the counters are right.
            batches["is_last_batch"] = False
            batches["current"] = dict.fromkeys(_COUNTERS, 0)
            batches["total"]["completed"] = batches["total"]["processed"]
            for counters in epochs.values():
                counters["processed"] = counters["completed"] = counters["ready"]

    def _begin(self, step: int, consumed: Mapping[str, int]) -> None:
        self.step, self._given, self._stream = step, dict(consumed), None


def _check_trainer(trainer: Trainer, stream: Stream) -> None:
    if (trainer.global_rank, trainer.world_size) != (stream.rank, stream.world_size):
        raise UserError(
            f"The stream is made for rank {stream.rank} of {stream.world_size}, but this is rank {trainer.global_rank} "
            f"of {trainer.world_size}; build it in setup() or later, from the trainer's global_rank and world_size."
        )
    if trainer.accumulate_grad_batches != stream.accumulation:
        raise UserError(
            f"accumulate_grad_batches is {trainer.accumulate_grad_batches}, but a global_batch_size of "
            f"{stream.global_batch_size} on {stream.world_size} devices with a micro_batch_size of "
            f"{stream.micro_batch_size} needs {stream.accumulation}; leave it out or give this number."
        )
    short = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set where mypy does not see it
    if trainer.num_training_batches % stream.accumulation and not short:
        raise UserError(
            f"limit_train_batches leaves {trainer.num_training_batches} micro-batches per epoch, which is not a "
            f"whole number of optimizer steps; give a multiple of {stream.accumulation}."
        )


def _check_same_stream(stream: Stream, saved: dict[str, Any]) -> None:
    for key in ("global_batch_size", "seed"):
        if saved[key] != getattr(stream, key):
            raise UserError(
                f"{key} is {getattr(stream, key)}, but the checkpoint was trained with {saved[key]}, so samples would "
                "be lost or repeated; keep it, or start a new run with --branch_from."
            )
    for name, source in stream.sources.items():
        if saved["samples"].get(name, len(source)) != len(source):
            raise UserError(
                f"source {name!r} has {len(source)} samples, but had {saved['samples'][name]} when the checkpoint was "
                "written, so samples would be lost or repeated; restore it, or start a new run with --branch_from."
            )
