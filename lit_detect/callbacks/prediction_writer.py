"""What a detector says of each text, as a table that a killed run goes on with."""

from __future__ import annotations

import csv
import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.errors import UserError
from lit_core.files.paths import atomic_path, atomic_write, files_facts, remove_torn_files
from lit_core.progress import duration
from lit_core.work import Journal, read_journal

#: Columns of the table.
COLUMNS = ("index", "id", "score", "probability", "decision", "tokens", "reason")
#: Folder of unfinished work, and in it the file that says of what.
WORK, IDENTITY = "predictions.work", "identity.json"
#: Seconds of work after which the rate is told.
_MEASURED = 2.0


class PredictionWriter(Callback):
    """Writes a table with what the detector says of each text, in the order of the texts.

    Works on any LightningModule whose ``predict_step`` returns a mapping with ``index``, ``score``, ``probability``,
    ``decision`` (``human``, ``machine`` or ``abstain``) and ``tokens`` of the texts of a batch, and perhaps ``reason``,
    why it abstains.

    While it works, each device appends its rows to a file in ``predictions.work`` and has them on the disk at the end
    of each batch. A killed run that is started again with the same name tells the data module what to ``skip`` and goes
    on; the table appears whole at the end, from all devices, each text once.

    ===============  ==========================================================================================
    column           meaning
    ===============  ==========================================================================================
    ``index``        place of the text in the input, from 0
    ``id``           its ``id`` in the input, or the name of its file; empty where it has none
    ``score``        higher is machine
    ``probability``  of machine, 0 to 1
    ``decision``     ``human``, ``machine`` or ``abstain``
    ``tokens``       how many the text has, uncut
    ``reason``       why the detector abstains; empty where it decides
    ===============  ==========================================================================================

    Args:
        folder: Folder for ``predictions.csv`` or ``predictions.jsonl``; None takes the run folder.
        format: Kind of table: csv, or jsonl with an object per line.
    """

    def __init__(self, folder: str | Path | None = None, format: Literal["csv", "jsonl"] = "csv") -> None:
        if format not in ("csv", "jsonl"):
            raise UserError(f"`format` is {format!r}, but must be csv or jsonl; choose one.")
        self.folder, self.format = folder, format
        self._journal: Journal | None = None
        self._texts: Any = None
        self._rows, self._total = 0, 0
        self._begin, self._measured_from, self._told = 0.0, (0.0, 0), False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find what is predicted already, and let the data module skip it."""
        if stage != "predict":
            return
        data: Any = getattr(trainer, "datamodule", None)
        self._texts = getattr(data, "predict_texts", None)
        work, identity = self._work(trainer), _identity(trainer, pl_module, data, self._texts)
        work.mkdir(parents=True, exist_ok=True)
        note = work / IDENTITY
        if note.exists() and json.loads(note.read_bytes()) != identity:
            raise UserError(
                f"{work} holds the unfinished predictions of other texts or another detector; give another --run, or "
                "remove that folder."
            )
        done = read_rows(work)
        trainer.strategy.barrier("predictions are read")  # before anybody adds to them
        if trainer.is_global_zero:
            remove_torn_files(work)
            atomic_write(note, json.dumps(identity))
        if hasattr(data, "skip"):
            data.skip = set(done)
        self._journal = Journal(work / f"{trainer.global_rank}.jsonl")
        self._rows, self._told = 0, False
        self._total = 0 if self._texts is None else len(self._texts) - len(done)
        if trainer.is_global_zero and self._texts is not None:
            before = f"; {len(done):,} are there from before" if done else ""
            self._say(trainer, f"{self._total:,} texts to predict{before}.")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put a batch on the disk."""
        assert self._journal is not None
        rows = [self._row(pl_module, outputs, place) for place in range(len(outputs["decision"]))]
        self._journal.append(rows)
        self._rows += len(rows)
        if batch_idx == 0:  # the first one also loads and warms up
            self._measured_from = time.perf_counter(), self._rows
        elif not self._told and trainer.is_global_zero:
            self._tell_rate(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no folder of unfinished work where none was done."""
        if self._journal is None:
            return
        self._journal.close()
        self._journal = None
        if trainer.is_global_zero and not read_rows(self._work(trainer)):
            shutil.rmtree(self._work(trainer), ignore_errors=True)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the whole table on rank 0."""
        if stage != "predict" or self._journal is None:
            return
        self._journal.close()
        self._journal = None
        trainer.strategy.barrier("predictions are written")
        if not trainer.is_global_zero:
            return
        work = self._work(trainer)
        rows = read_rows(work)
        path = work.parent / f"predictions.{self.format}"
        write_table(path, rows)
        for file in work.iterdir():
            file.unlink()
        work.rmdir()
        seconds = time.perf_counter() - self._begin
        rate = ""
        if self._rows:
            predicted = self._rows * trainer.world_size
            rate = f" in {duration(seconds)}, {predicted / seconds:.3g} documents/s"
        self._say(trainer, f"{len(rows):,} predictions{rate}: {path}")

    def _work(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir if self.folder is None else self.folder) / WORK

    def _row(self, pl_module: LightningModule, outputs: Mapping[str, Any], place: int) -> dict[str, Any]:
        number, decision, tokens = int(outputs["index"][place]), outputs["decision"][place], outputs["tokens"][place]
        reason = outputs["reason"][place] if "reason" in outputs else ""
        if decision == "abstain" and not reason:
            least = max(1, int(getattr(pl_module, "min_tokens", 1)))
            reason = f"{int(tokens)} tokens, fewer than {least}"
        values = float(outputs["score"][place]), float(outputs["probability"][place])
        if decision != "abstain" and not math.isfinite(values[0]):
            decision, reason = "abstain", "the score is not a finite number"
        about = self._texts.row(number) if hasattr(self._texts, "row") else {}
        name = str(about.get("id", about.get("file", "")))
        return dict(zip(COLUMNS, (number, name, *values, decision, int(tokens), reason), strict=True))

    def _tell_rate(self, trainer: Trainer) -> None:
        start, before = self._measured_from
        seconds, rows = time.perf_counter() - start, self._rows - before
        if seconds < _MEASURED or not rows:
            return
        self._told = True
        rate = rows * trainer.world_size / seconds
        left = max(0, self._total - self._rows * trainer.world_size)
        to_go = f", about {duration(left / rate)} to go" if self._total else ""
        self._say(trainer, f"{rate:.3g} documents/s{to_go}; a killed run goes on where it was.")

    def _say(self, trainer: Trainer, text: str) -> None:
        say = getattr(trainer.progress_bar_callback, "print", None)
        if say is None or self._journal is None or not self._rows:  # no bar is on the screen
            print(text, flush=True)
        else:
            say(text)


def read_rows(work: Path) -> dict[int, dict[str, Any]]:
    """Return the finished rows in a folder of unfinished work by index; what a kill cut off is no row."""
    rows = {row["index"]: row for file in sorted(work.glob("*.jsonl")) for row in read_journal(file)}
    return dict(sorted(rows.items()))


def write_table(path: Path, rows: Mapping[int, Mapping[str, Any]]) -> None:
    """Write rows as CSV or JSONL, by the file's ending; whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if path.suffix == ".csv":
            table.writeheader()
        for row in rows.values():
            numbers = {key: row[key] if math.isfinite(row[key]) else None for key in ("score", "probability")}
            if path.suffix == ".csv":
                table.writerow({**row, **{key: "" if x is None else f"{x:.6g}" for key, x in numbers.items()}})
            else:
                file.write(json.dumps({**row, **numbers}, ensure_ascii=False) + "\n")


def _identity(trainer: Trainer, pl_module: LightningModule, data: Any, texts: Any) -> dict[str, Any]:
    """Return what the predictions depend on, as plain values."""
    how = ("batch_size", "micro_batch_size", "num_workers")  # which change nothing
    settings = {name: value for name, value in getattr(data, "hparams", {}).items() if name not in how}
    checkpoint = Path(trainer.ckpt_path or "")
    calibration = getattr(pl_module, "calibration", None)
    found = {
        "model": dict(pl_module.hparams),
        "calibration": None if calibration is None else asdict(calibration),
        "data": settings,
        "checkpoint": files_facts([checkpoint.resolve()]) if checkpoint.is_file() else None,
        "texts": files_facts(file.resolve() for file in texts.files) if hasattr(texts, "files") else None,
    }
    return json.loads(json.dumps(found, default=lambda value: type(value).__name__))
