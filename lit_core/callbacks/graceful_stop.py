"""`GracefulStop`, which saves a checkpoint at the next optimizer step after Ctrl-C, SIGTERM or SIGHUP."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.callbacks.run_checkpoint import RunCheckpoint
from lit_core.errors import Stopped
from lit_core.lightning.internals import validation_follows

#: Seconds within which several signals are one.
_TOGETHER = 1.0


class GracefulStop(Callback):
    """Stops a run at Ctrl-C, SIGTERM or SIGHUP, at the next optimizer-step boundary, by raising `Stopped`.

    The signal may reach any rank; at each boundary the ranks agree whether to stop. `RunCheckpoint`, which runs after
    all other callbacks, saves and raises; without it nothing is saved. If a validation is due, the run is saved before
    and after it and stops then, since a resumed run would not repeat it. A second signal ends the process at once, but
    not within a second of the first: what ends a session, such as a closing terminal, sends several together.
    """

    def __init__(self) -> None:
        self._received = 0
        self._received_at = 0.0
        self._stopping = 0
        self._former: dict[int, Any] = {}
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the signal that stopped an earlier run."""
        self._received = self._stopping = 0

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over from Lightning, whose SIGTERM handler calls a collective and can hang."""
        self._install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over where no sanity check ran."""
        self._install()
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At an optimizer-step boundary, agree over the ranks whether to stop."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        signum = self._received
        if trainer.world_size > 1:
            flag = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(flag, reduce_op="max"))
        if not signum:
            return
        checkpoint = next((c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)), None)
        if checkpoint is not None:
            checkpoint.stopped_by = signum
        elif validation_follows(trainer):
            self._stopping = signum
        else:
            raise Stopped(signum, saved=False)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop after the validation that was due, if there is no `RunCheckpoint`."""
        if self._stopping:
            raise Stopped(self._stopping, saved=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the former signal handlers, unless Lightning has already replaced ours."""
        for signum, handler in self._former.items():
            if signal.getsignal(signum) == self._handle:
                signal.signal(signum, handler)
        self._former = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the former signal handlers when the run fails; Lightning does not call teardown then."""
        self.teardown(trainer, pl_module, "fit")

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN:  # by nohup
                continue
            if signum not in self._former:
                self._former[signum] = signal.getsignal(signum)
            signal.signal(signum, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self._received:
            self._received, self._received_at = signum, time.monotonic()
        elif time.monotonic() - self._received_at > _TOGETHER:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
