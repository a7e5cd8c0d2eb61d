"""Loggers for resumed runs: a CSV file that is appended to, TensorBoard events that are cut at the checkpoint."""

from __future__ import annotations

import fcntl
import io
import os
import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_core.files.logged import ANSWERS, METRICS, ONCE, logged_columns, logged_rows
from lit_core.files.paths import atomic_path, atomic_write, make_folder, naming
from lit_core.files.tables import CsvWriter, text_table
from lit_core.lightning.pictures import verbatim

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: End of a line of metrics.csv.
_END = "\r\n"


class CSVLog(Logger):
    """Writes metrics to ``metrics.csv``, a row per logging call, on disk as soon as it is logged.

    Lightning's own CSV logger deletes an existing file; this one appends to it. A row is identified by its step and its
    set of keys. Logging it again replaces it, so a row that was written early with a checkpoint is not duplicated.

    Args:
        folder: Run folder in which ``metrics.csv`` lies.
        resume_step: Optimizer step from which a run is resumed; rows at or past it are cut. None keeps all rows.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = Path(folder) / METRICS
        self._resume_step = resume_step
        self._opened = False
        self._tail: dict[frozenset[str], dict[str, str]] = {}
        self._tail_step: int | None = None

    @property
    def name(self) -> str:
        """No name: the run folder is the name."""
        return ""

    @property
    def version(self) -> str:
        """No version: runs are named."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the saved config holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row.

        Args:
            metrics: Values by key.
            step: Optimizer step of the row.
        """
        row = {"step": str(step or 0)} | {key: f"{value:.9g}" for key, value in metrics.items()}
        with self._alone():
            self._open()
            if self._tail_step != step:
                self._tail, self._tail_step = {}, step
            keys = frozenset(row)
            if self._tail.get(keys) == row:
                return
            columns = logged_columns(self.path)  # another process, such as a test of this run, may have added some
            missing = [key for key in row if key not in columns]
            if missing or keys in self._tail:
                rows = logged_rows(self.path)
                if self._tail.get(keys) in rows:
                    rows.remove(self._tail[keys])
                self._write([*columns, *missing], [*rows, row])
            else:
                with naming(self.path), self.path.open("a", newline="") as file:
                    CsvWriter(file, columns, _END).row(row)
            self._tail[keys] = row

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from writing to the file, by a lock on its folder."""
        make_folder(self.path.parent)
        handle = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _open(self) -> None:
        """Read the rows that an earlier process wrote; only the first call does."""
        if self._opened:
            return
        self._opened = True
        if not self.path.exists():
            return
        rows = logged_rows(self.path)
        earlier = [row for row in rows if self._resume_step is None or int(row["step"]) < self._resume_step]
        if len(earlier) < len(rows) or not self.path.read_bytes().endswith(b"\n"):
            self._write(logged_columns(self.path), earlier)
        rows = earlier
        if rows:
            self._tail_step = int(rows[-1]["step"])
            self._tail = {frozenset(row): row for row in rows if int(row["step"]) == self._tail_step}

    def _write(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = CsvWriter(text, columns, _END)
        writer.header()
        writer.rows(rows)
        atomic_write(self.path, text.getvalue())


class EventLog(TensorBoardLogger):
    """Writes TensorBoard events into the run folder itself, of which those come first that answer what a run is for.

    A key becomes a scalar when it has a second step, since one point is no curve; until then it is a line of the text
    ``once/{stage}``. Those of `answers` are written at once, and below ``answer/``. The number of the epoch is left
    out. Nothing is written, not even a file, before there is something to show.

    Args:
        folder: Run folder.
        resume_step: Optimizer step from which a run is resumed; TensorBoard hides events logged at or past it. None for
            a new run.

    Attributes:
        answers: Returns patterns of the keys that come first.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)
        self._writer: SummaryWriter | None = None
        self.answers: Callable[[], Sequence[str]] = list
        self._folder, self._resume_step = Path(folder), resume_step
        self._last: tuple[int | None, dict[str, float]] | None = None
        self._steps: dict[str, dict[int, float]] | None = None  # of each key, but no further than the second
        self._once: dict[str, float] = {}
        self._patterns: list[re.Pattern[str]] = []

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """The writer of the events."""
        from lit_core.lightning.event_writer import EventWriter

        if self._writer is None:
            self._writer = EventWriter(log_dir=self.log_dir, purge_step=self._resume_step, flush_secs=10)
        return self._writer

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write the hyperparameters, also to ``hparams.yaml``, whole and in place of those of an earlier command.

        Args:
            params: The hyperparameters.
            args: See TensorBoardLogger.
            kwargs: See TensorBoardLogger.
        """
        super().log_hyperparams(params, *args, **kwargs)
        with atomic_path(Path(self.log_dir) / self.NAME_HPARAMS_FILE) as temporary:
            save_hparams_to_yaml(str(temporary), self.hparams)

    @rank_zero_only
    def save(self) -> None:
        """Write the events, if there are any; the hyperparameters are written when they are logged."""
        if self._writer is not None:
            self._writer.flush()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write a row.

        Args:
            metrics: Values by key.
            step: Optimizer step of the row.
        """
        row = (step, dict(metrics))
        if row == self._last:  # written early with a checkpoint
            return
        self._last = row
        if self._steps is None:
            self._begin()
        shown: dict[str, float] = {}
        for key, value in metrics.items():
            if key != "epoch":
                shown |= self._shown(key, float(value), step or 0)
        if shown:
            super().log_metrics(shown, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what has a single value as text, and close the file."""
        for stage in dict.fromkeys(key.partition("/")[0] for key in self._once):
            values = {key: value for key, value in self._once.items() if key.partition("/")[0] == stage}
            rows = text_table([["logged once", "value"], *([key, f"{value:.4g}"] for key, value in values.items())])
            self.experiment.add_text(f"{ONCE}{stage}", verbatim("\n".join(rows)), self._last[0] if self._last else 0)
        self._once = {}
        if self._writer is not None:
            self._writer.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_writer": None}

    def _begin(self) -> None:
        """Take up what this run has logged before, perhaps in another process."""
        self._patterns, self._steps = [re.compile(pattern) for pattern in self.answers()], {}
        for row in logged_rows(self._folder / METRICS):
            step = int(row.pop("step"))
            for key, value in row.items() if self._resume_step is None or step < self._resume_step else ():
                with suppress(ValueError):  # somebody has edited the file, which is no reason to end a training
                    self._note(key, step, float(value))
        if self._resume_step is not None:  # a kill may have come before they were written as text
            self._once = {key: next(iter(known.values())) for key, known in self._steps.items() if len(known) == 1}

    def _note(self, key: str, step: int, value: float) -> list[tuple[int, float]]:
        """Keep a value, and return what was known of the key before: no more than two steps with their values."""
        assert self._steps is not None
        known = self._steps.setdefault(key, {})
        before = list(known.items())
        if len(known) < 2 or step in known:
            known[step] = value
        return before

    def _shown(self, key: str, value: float, step: int) -> dict[str, float]:
        """Return the scalar to write for a value, if any; with that of the second step, the first one is written."""
        is_answer = any(pattern.fullmatch(key) for pattern in self._patterns)
        tag = f"{ANSWERS}{key}" if is_answer else key
        before = self._note(key, step, value)
        if len(before) < 2 and all(known == step for known, _ in before):
            self._once[key] = value
            return {tag: value} if is_answer else {}
        self._once.pop(key, None)
        if len(before) == 1 and not is_answer:
            super().log_metrics({tag: before[0][1]}, before[0][0])
        return {tag: value}


def run_loggers(folder: Path, resume_step: int | None) -> list[Logger]:
    """Make the loggers that every run has.

    Args:
        folder: The run folder.
        resume_step: Optimizer step from which a run is resumed; rows at or past it are cut. None for a new run.

    Returns:
        TensorBoard, whose log folder is the run folder, and the CSV file.
    """
    return [EventLog(folder, resume_step), CSVLog(folder, resume_step)]
