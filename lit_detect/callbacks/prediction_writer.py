"""The predictions of a detector as a table, written by a run that can be resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.errors import UserError
from lit_core.files.bad_rows import SET_ASIDE, STOP, BadRows, divided
from lit_core.files.json_files import plain
from lit_core.files.outputs import output_file
from lit_core.files.paths import files_facts
from lit_core.progress import duration
from lit_core.screen import on_screen, say
from lit_core.work import UnfinishedWork
from lit_detect.accusations import accusation_lines, check_fdr, with_fdr
from lit_detect.calibration import ALL, Calibration
from lit_detect.callbacks.prediction_table import NUMBERS, ROW, write_table

#: Folder of unfinished work, and the file in it that tells which texts and detector it is of.
WORK, IDENTITY = "predictions.work", "identity.json"
#: What predict_step returns of each text.
NEEDED = {"index", "score", "probability", "decision", "tokens"}
#: Seconds of work after which the rate is told.
_MEASURED = 2.0


class PredictionWriter(Callback):
    """Writes a table with the detector's prediction for each text, in the order of the texts.

    Works on any LightningModule whose ``predict_step`` returns a mapping with ``index``, ``score``, ``probability``,
    ``decision`` (``human``, ``machine`` or ``abstain``) and ``tokens`` of the texts of a batch, and perhaps ``reason``,
    why it abstains, ``p_value``, and ``windows``, the list of windows of each text as mappings.

    During the run, each rank appends its rows to a file in ``predictions.work``; they are on the disk at the end of
    each batch. To resume a killed run, start it again with the same name: the callback tells the data module which
    texts to ``skip``. The table is written whole at the end, from all ranks, with each text once.

    ===============  ==========================================================================================
    column           meaning
    ===============  ==========================================================================================
    ``index``        index of the text in the input, from 0
    ``file``         file or data set that it is from
    ``row``          its place there, such as ``line 3``; empty where the file is one text
    ``id``           its ``id`` in the input, or the name of its file; empty where it has none
    ``score``        higher is machine
    ``probability``  of machine, 0 to 1; empty where the detector abstains
    ``p_value``      largest probability, in expectation, with which a human text like those of the calibration scores
                     as high; empty without a calibration
    ``decision``     ``human``, ``machine`` or ``abstain``
    ``tokens``       number of tokens of the whole text
    ``reason``       why the detector abstains; empty where it decides
    ``windows``      in JSONL ``start`` and ``end`` in the text as it was found, in characters, ``score`` and
                     ``flagged`` of each window that the detector read; in CSV their number
    ``flagged``      in CSV: number of windows that alone would make the text a machine's
    ===============  ==========================================================================================

    Args:
        folder: Folder for ``predictions.csv``, ``.jsonl`` or ``.json``, a new file; None takes the run folder.
        format: Kind of table: csv; jsonl with an object per line; or raid, the file ``predictions.json`` that is handed
            in to RAID, of the ``id`` of each text and its score, or the lowest one where that is not a finite number.
        fdr: False discovery rate: largest share of human texts, in expectation, among the texts of the batch that are
            called machine; above 0 and below 1. The others of them become abstentions. It needs a calibration. None
            decides on each text alone.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        format: Literal["csv", "jsonl", "raid"] = "csv",
        fdr: float | None = None,
    ) -> None:
        if format not in ("csv", "jsonl", "raid"):
            raise UserError(f"`format` is {format!r}, but must be csv, jsonl or raid; choose one.")
        check_fdr(fdr)
        self.folder, self.format, self.fdr = folder, format, fdr
        self._name = f"predictions.{'json' if format == 'raid' else format}"
        self._work: UnfinishedWork | None = None
        self._texts: Any = None
        self._bad: BadRows = STOP
        self._rows, self._total = 0, 0
        self._begin, self._measured_from, self._told = 0.0, (0.0, 0), False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read which texts are predicted already, and tell the data module to skip them.

        Raises:
            UserError: If the table exists, which only ``--overwrite`` replaces, or its folder is of other work.
        """
        if stage != "predict":
            return
        if self.fdr is not None and _calibration(pl_module) is None:
            raise UserError(f"`fdr` is {self.fdr}, but it needs p-values; give a `calibration` of human texts.")
        root = Path(trainer.default_root_dir if self.folder is None else self.folder)
        output_file(root / self._name, "the table of predictions", work=WORK)
        data: Any = getattr(trainer, "datamodule", None)
        self._texts = getattr(data, "predict_texts", None)
        self._bad = getattr(self._texts, "bad", STOP)
        self._bad.check_output(root / SET_ASIDE)
        folder = root / WORK
        work = UnfinishedWork(
            folder,
            key="index",
            settings=_identity(trainer, pl_module, data, self._texts),
            differs=lambda *_: (
                f"{folder} holds the unfinished predictions of other texts or another detector; give another --run, or "
                "remove that folder."
            ),
            busy=f"{folder} is being written by another predict; wait for it, or give another --run.",
            record=IDENTITY,
            rank=trainer.global_rank,
            group=trainer.strategy,
            values=ROW,
        )
        work.open()
        self._work = work
        if hasattr(data, "skip"):
            data.skip = set(work.done)
        self._rows, self._told = 0, False
        self._total = 0 if self._texts is None else len(self._texts) - len(work.done)
        if trainer.is_global_zero and self._texts is not None:
            before = f"; {len(work.done):,} others are predicted already" if work.done else ""
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
        """Write the rows of a batch to the disk."""
        assert self._work is not None
        if not isinstance(outputs, Mapping) or not NEEDED <= outputs.keys():
            kind = f"a mapping with {', '.join(outputs)}" if isinstance(outputs, Mapping) else type(outputs).__name__
            raise UserError(
                f"PredictionWriter needs a predict_step that returns a mapping with {', '.join(sorted(NEEDED))}, but "
                f"that of {type(pl_module).__name__} returned {kind}; return them, or leave the callback out."
            )
        done, indices = self._work.done, [int(index) for index in outputs["index"]]
        rows = [self._row(pl_module, outputs, position) for position, index in enumerate(indices) if index not in done]
        self._work.append(rows)
        self._rows += len(rows)
        if batch_idx == 0:  # the first one also loads and warms up
            self._measured_from = time.perf_counter(), self._rows
        elif not self._told and trainer.is_global_zero:
            self._tell_rate(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Unlock the folder of unfinished work, and remove it where no text is predicted."""
        if self._work is not None:
            self._work.close()
            self._work = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the whole table on rank zero."""
        if stage != "predict" or self._work is None:
            return
        work, self._work = self._work, None
        path = work.folder.with_name(self._name)
        calibration, lines = _calibration(pl_module), []

        def write(found: dict[int, dict[str, Any]]) -> int:
            self._bad.write(path.with_name(SET_ASIDE))
            rows = [found[index] for index in sorted(found)]
            if calibration is not None:
                rows = with_fdr(rows, self.fdr)
                lines.extend(accusation_lines(rows, calibration, self._groups(rows, calibration), self.fdr))
            return write_table(path, rows)

        with closing(work):
            count = work.finish(write)
        if count is None:
            return
        seconds = time.perf_counter() - self._begin
        rate = ""
        if self._rows:
            predicted = self._total or self._rows * trainer.world_size
            rate = f" in {duration(seconds)}, {predicted / seconds:.3g} documents/s"
        self._say(trainer, f"{count:,} predictions{rate}: {path}")
        for line in lines:
            self._say(trainer, line)
        self._bad.tell(path.with_name(SET_ASIDE))

    def _groups(self, rows: Sequence[Mapping[str, Any]], calibration: Calibration) -> list[str]:
        if calibration.by is None or self._texts is None:
            return [ALL] * len(rows)
        return [self._texts.text_and_group(row["index"])[1] for row in rows]

    def _row(self, pl_module: LightningModule, outputs: Mapping[str, Any], position: int) -> dict[str, Any]:
        index, decision = int(outputs["index"][position]), outputs["decision"][position]
        tokens = outputs["tokens"][position]
        reason = outputs["reason"][position] if "reason" in outputs else ""
        if decision == "abstain" and not reason:
            least = max(1, int(getattr(pl_module, "min_tokens", 1)))
            reason = f"{int(tokens)} tokens, fewer than {least}"
        values = [float(outputs[name][position]) if name in outputs else math.nan for name in NUMBERS]
        if decision != "abstain" and not math.isfinite(values[0]):
            decision, reason = "abstain", "the score is not a finite number"
        windows = outputs["windows"][position] if "windows" in outputs else None
        about = self._texts.row(index) if hasattr(self._texts, "row") else {}
        file, place = divided(self._texts.where(index)) if hasattr(self._texts, "where") else ("", "")
        name = str(about.get("id", about.get("file", "")))
        if self.format == "raid" and not name:
            raise UserError(
                f"Text {index} ({file}, {place}) has no `id`, by which RAID knows a text; give RAID's file."
            )
        cells = (index, file, place, name, *values, decision, int(tokens), reason, windows)
        return dict(zip(ROW, cells, strict=True))

    def _tell_rate(self, trainer: Trainer) -> None:
        start, before = self._measured_from
        seconds, rows = time.perf_counter() - start, self._rows - before
        if seconds < _MEASURED or not rows:
            return
        self._told = True
        rate = rows * trainer.world_size / seconds
        left = max(0, self._total - self._rows * trainer.world_size)
        to_go = f", about {duration(left / rate)} to go" if self._total else ""
        self._say(trainer, f"{rate:.3g} documents/s{to_go}. To resume a killed run, start it again.")

    def _say(self, trainer: Trainer, text: str) -> None:
        beside_bar = getattr(trainer.progress_bar_callback, "print", None)
        if beside_bar is None or self._work is None or not self._rows:  # no bar is on the screen
            say(text)
        else:
            beside_bar(on_screen(text))


def _calibration(pl_module: LightningModule) -> Calibration | None:
    """Return what calibrates the decisions of a module, if there is something."""
    calibration = getattr(pl_module, "calibration", None)
    return calibration if isinstance(calibration, Calibration) else None


def _identity(trainer: Trainer, pl_module: LightningModule, data: Any, texts: Any) -> dict[str, Any]:
    """Return what the predictions depend on, as plain values."""
    ignored = ("batch_size", "micro_batch_size", "num_workers")  # predictions do not depend on these
    settings = {name: value for name, value in getattr(data, "hparams", {}).items() if name not in ignored}
    checkpoint = Path(trainer.ckpt_path or "")
    calibration = _calibration(pl_module)
    identity = {
        "model": dict(pl_module.hparams),
        "calibration": None if calibration is None else asdict(calibration),
        "data": settings,
        "checkpoint": files_facts([checkpoint.resolve()]) if checkpoint.is_file() else None,
        "texts": files_facts(file.resolve() for file in texts.files) if hasattr(texts, "files") else None,
    }
    return plain(identity, lambda value: type(value).__name__)
