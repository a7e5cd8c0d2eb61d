"""`RunRecord`, which keeps what a run did, and writes each logged row with the checkpoint of its step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_core import record
from lit_core.callbacks.branch import BranchFrom
from lit_core.errors import RunFailure, Stopped, Terminated, reason_of
from lit_core.files.formats import stamp
from lit_core.files.paths import atomic_write
from lit_core.lightning.devices import devices_of
from lit_core.lightning.internals import logged_step, pending_row
from lit_core.lightning.loggers import CSVLog, EventLog
from lit_core.lightning.tensorboard import answers_of
from lit_core.references import resolved, without_secrets
from lit_core.screen import rank_zero_warn
from lit_core.seeds import seeds_of
from lit_core.trust import sign


def config_text(config: Mapping[str, Any]) -> str:
    """Return the config of a run as it is saved, without the comments below it."""
    text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return text


class RunRecord(Callback):
    """Keeps config and record of a run, gives the loggers the config, and writes each row with its step's checkpoint.

    Lightning logs the row of a step after the checkpoint of that step is written; a kill between the two would lose the
    row. This callback writes the row with the checkpoint; `CSVLog` and `EventLog` do not write it a second time.

    The record tells command, versions, devices, seeds, data, the checkpoint that the run branched from, and each
    command that has worked on it, with its start, end and outcome. It lies beside the config and in each checkpoint. It
    is first written after the first batch; a run that is killed has no end in it.

    Below the config it says which seed holds for what, in comments.

    Args:
        config: The config of the run as typed, with its references, as plain values; stored in each checkpoint under
            ``config``.
        path: Where the config is saved as YAML; None saves neither config nor record.
        settled: The config with its references resolved, except those to environment variables; None is `config`.
        former: Record of the run that is resumed; None for a new run.
        describe: Turns the exception that ends a run into one sentence.
    """

    def __init__(
        self,
        config: dict[str, Any],
        path: str | Path | None = None,
        settled: Mapping[str, Any] | None = None,
        former: Mapping[str, Any] | None = None,
        describe: Callable[[BaseException], str] = str,
    ) -> None:
        self.config = config
        self.path = None if path is None else Path(path)
        self.settled = config if settled is None else settled
        self.former, self.describe = former or {}, describe
        self._record: dict[str, Any] = {}
        self._saved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell TensorBoard what answers the run, and give the config to the user's loggers before they save any."""
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, EventLog):
                logger.answers = partial(answers_of, trainer)
            else:
                try:
                    logger.log_hyperparams(self.hyperparameters())
                except Exception as error:  # of a service, such as MLflow's for a resumed run with another value
                    reason = reason_of(error)
                    rank_zero_warn(f"{type(logger).__name__} did not take the hyperparameters of this run: {reason}")

    @property
    def record_path(self) -> Path | None:
        """Path of the record: ``run.json`` for ``config.yaml``, ``run.test.json`` for ``config.test.yaml``."""
        return None if self.path is None else self.path.with_name(f"run{self.path.stem.removeprefix('config')}.json")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the record."""
        self._begin(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save config and record after the first batch, when most errors of the config would have been raised."""
        self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save those of ``validate``."""
        if trainer.state.fn == "validate":
            self._save(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save those of ``test``."""
        self._save(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save those of ``predict``."""
        self._save(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Record that the run is finished."""
        if stage == "predict":  # all of it may have been predicted before, of which no other hook tells
            self._save(trainer)
        self._end(trainer, "finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Record that a signal has stopped the run, or why it failed."""
        if isinstance(exception, Stopped):
            self._end(trainer, f"stopped by {signal.Signals(exception.signum).name}")
        elif isinstance(exception, KeyboardInterrupt):
            signum = exception.signum if isinstance(exception, Terminated) else signal.SIGINT
            self._end(trainer, f"stopped by {signal.Signals(signum).name}")
        else:
            with suppress(OSError, RunFailure):  # such as a full disk, of which the exception tells already
                self._end(trainer, f"failed: {self.describe(exception)}")

    def hyperparameters(self) -> dict[str, Any]:
        """Return the config with its references resolved and without secrets, as loggers get it."""
        return without_secrets(resolved(self.config), self.config)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store config and record in the checkpoint, and write all rows logged so far to the disk."""
        checkpoint.update(stamp("litshift-checkpoint"))
        checkpoint["config"] = self.config
        checkpoint[record.KEY] = self._record
        sign(checkpoint)
        for logger in trainer.loggers:
            if isinstance(logger, CSVLog | EventLog):
                self._write_pending_row(trainer, logger)
            if isinstance(logger, TensorBoardLogger):
                logger.save()

    def _begin(self, trainer: Trainer) -> None:
        """Make the record on rank zero; the present command is the last one in its history."""
        if not trainer.is_global_zero:
            return
        branch = next((c for c in trainer.callbacks if isinstance(c, BranchFrom)), None)  # type: ignore[attr-defined]
        fit = trainer.state.fn == "fit"
        steps = {"from_step": trainer.global_step, "step": None} if fit else {}
        origins = [trainer.ckpt_path if fit else None, None if branch is None else branch.path]
        self._record = record.new_record(
            config=self.config,
            resolved=self.settled,
            seeds=seeds_of(resolved(self.config)),
            devices=devices_of(trainer),
            inputs=record.inputs(exclude=[path for path in origins if path is not None]),
            parent=self.former.get("parent") if branch is None else branch.ancestor,
            sessions=[*self.former.get("sessions", []), record.session() | steps],
        )

    def _save(self, trainer: Trainer) -> None:
        if self._saved:
            return
        if not self._record:
            self._begin(trainer)
        if self.path is not None and trainer.is_global_zero:
            self._write()
            seeds = "".join(f"#   {key}: {seed}\n" for key, seed in self._record["seeds"].items())
            atomic_write(self.path, f"{config_text(self.config)}# Seeds that hold, those of the parts by key:\n{seeds}")
            for logger in trainer.loggers if trainer.state.fn == "fit" else ():
                if isinstance(logger, EventLog):
                    logger.log_hyperparams(self.hyperparameters())
        self._saved = True

    def _write(self) -> None:
        assert self.record_path is not None
        record.write(self.record_path, self._record)

    def _end(self, trainer: Trainer, outcome: str) -> None:
        """Write the end of the present command, unless it wrote no record; a failure at the very end counts."""
        if not self._saved or not self._record:
            return
        last = self._record["sessions"][-1] | {
            "end": record.now(),
            "exit": record.hide_variables(record.hide_secrets(outcome), self.config),
        }
        if "step" in last:
            last["step"] = trainer.global_step
        self._record = {**self._record, "sessions": [*self._record["sessions"][:-1], last]}
        if self.path is not None:
            self._write()

    @staticmethod
    def _write_pending_row(trainer: Trainer, logger: CSVLog | EventLog) -> None:
        metrics = pending_row(trainer)
        if metrics:
            metrics.setdefault("epoch", trainer.current_epoch)
            logger.log_metrics(metrics, logged_step(trainer))
