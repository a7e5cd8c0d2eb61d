"""Texts to train and evaluate detectors on, as a LightningDataModule."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import ConcatDataset

from lit_core.data import EvalStream, ShardStream, StreamLoader
from lit_core.data.module import SourceSubset, StreamDataModule
from lit_core.data.stream import SampleSource
from lit_core.errors import UserError, check_at_least, did_you_mean
from lit_core.files.bad_rows import BadRows, OnError
from lit_core.files.working_folder import RECORD, root_to_prepare
from lit_core.screen import logger, say
from lit_detect.data.indexed_texts import IndexedTexts
from lit_detect.data.prepare import all_there, prepare_for_run
from lit_detect.data.text_shards import TextSet
from lit_detect.data.user_texts import open_texts
from lit_detect.formats import TextSource
from lit_detect.language.normalize import normalize_text

log = logger(__name__)

Stage = Literal["train", "val", "test"]


class TextDataModule(StreamDataModule):
    """Streams texts of humans and machines, as ``lit-detect prepare`` wrote them.

    A batch has ``text``, a list of strings, ``y`` (0 human, 1 machine) and ``index``. Several training sources are one,
    in proportion to their sizes. Each source that is validated or tested on is a loader of its own name, where
    ``index`` is the number of the text in ``records(stage, source)``, and -1 where a row only fills the batch up.
    Gradient accumulation follows from the batch sizes and the number of devices. Resuming needs the callback
    `ResumeStream`.

    Args:
        root: Folder of the sources: absolute, from the working directory if it begins with ``./``, or below the data
            root. A folder of that name in the working directory is taken only if prepare wrote it.
        train: Names of the sources to train on; None can only predict, validate or test.
        val: Names of the sources to validate on; None takes those of train.
        test: Names of the sources to test on; None takes those of val.
        predict: Texts to predict: a .csv, .tsv, .jsonl, .parquet or .txt (a text per line), a .docx or .pdf, a folder
            of .txt, .docx and .pdf, a data set as hf:NAME:SPLIT, or a folder that ``lit-detect prepare`` wrote; also a
            pattern of files, or a list of these; None for none.
        text_column: Column or key of the text in the file to predict.
        group_column: Column or key in the file to predict that says with which human texts of a calibration a text is
            compared; None compares with all.
        on_error: What a bad row to predict or to prepare does: stop ends the run, skip lists it with its reason in
            ``set_aside.csv`` beside the output, and the others are read.
        normalize: Whether texts are given out with their Unicode normalised, which undoes homoglyphs and invisible
            characters.
        sources: Sources to prepare into the root first, as ``lit-detect prepare`` does by default, by class name.
        batch_size: Texts per optimizer step, over all devices and accumulated micro-batches.
        micro_batch_size: Texts per device and forward pass; None divides batch_size by the number of devices.
        num_workers: Processes per loader that read data; 0 reads in the training process.
        seed: Seed of the order of the training data, 0 or more; None takes that of the run.
        verify: Whether each shard's SHA-256 is compared with its index before the first step.

    Attributes:
        skip: Numbers of texts in the file to predict that were predicted before. Batches of which all texts were are
            left out; the others stay whole, since scores depend on a batch by rounding.
    """

    def __init__(
        self,
        root: str = "texts",
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
        predict: list[str] | str | None = None,
        text_column: str = "text",
        group_column: str | None = None,
        on_error: OnError = "stop",
        normalize: bool = False,
        sources: list[TextSource] | None = None,
        batch_size: int = 32,
        micro_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int | None = None,
        verify: bool = True,
    ) -> None:
        super().__init__(batch_size, micro_batch_size, num_workers, seed)
        self.keep_arguments(ignore=["sources"])
        self.root, self.predict = root, predict
        self.names: dict[Stage, list[str]] = {"train": train or []}
        self.names["val"] = self.names["train"] if val is None else val
        self.names["test"] = self.names["val"] if test is None else test
        self.text_column, self.group_column = text_column, group_column
        self.on_error, self.normalize, self.sources = on_error, normalize, sources or []
        self.verify = verify
        self.skip: set[int] = set()
        self._opened: dict[tuple[str, str], TextSet] = {}
        check_at_least(1, batch_size=batch_size, micro_batch_size=micro_batch_size)

    def prepare_data(self) -> None:
        """Prepare the given sources into the root, but not to predict; nothing is said of those that are there."""
        predicts = self.trainer is not None and self.trainer.predicting
        if self.sources and not predicts and not all_there(self.root, self.sources, self.on_error):
            names = ", ".join(source.name for source in self.sources)
            say(f"`data.sources` are prepared before the run: {names} in {root_to_prepare(self.root)}.")
            prepare_for_run(self.root, self.sources, self.on_error)

    def setup(self, stage: str) -> None:
        """Open the sets and derive the gradient accumulation."""
        trainer = self.trainer
        assert trainer is not None
        if stage == "fit":
            self.start_training(lambda **layout: ShardStream(self._train, "train", **layout))
        if stage == "predict":
            _ = self.predict_texts
        else:
            evaluated: Stage = "test" if stage == "test" else "val"
            self._evaluated(evaluated)
            if trainer.is_global_zero:
                self._tell_overlap(evaluated)

    def records(self, stage: Stage, source: str) -> TextSet:
        """Return the texts of a source with all that is known of them, by the ``index`` of evaluation batches.

        Args:
            stage: ``train``, ``val`` or ``test``.
            source: Name of the source.

        Raises:
            UserError: If there is no such source, or it lacks the split.
        """
        if (stage, source) not in self._opened:
            transform = normalize_text if self.normalize else None
            self._opened[stage, source] = TextSet(self._folder(stage, source), transform, self.verify)
        return self._opened[stage, source]

    @cached_property
    def predict_texts(self) -> IndexedTexts:
        """The texts to predict, by the ``index`` of prediction batches.

        Raises:
            UserError: If none are given, or a row is malformed.
        """
        if self.predict is None:
            raise UserError("`data.predict` is missing; name the file whose texts are to be judged.")
        transform = normalize_text if self.normalize else None
        bad = BadRows(self.on_error)
        return open_texts(self.predict, "`data.predict`", self.text_column, self.group_column, transform, bad=bad)

    def feature_dataloader(self) -> StreamLoader:
        """Return this rank's share of the training texts in their order, once; ``index`` runs over all sources."""
        return self.evaluation_loaders({"train": self._train})["train"]

    def val_dataloader(self) -> dict[str, StreamLoader]:
        """Return a loader for each validation source."""
        return self.evaluation_loaders(self._evaluated("val"))

    def test_dataloader(self) -> dict[str, StreamLoader]:
        """Return a loader for each test source."""
        return self.evaluation_loaders(self._evaluated("test"))

    def predict_dataloader(self) -> StreamLoader | list[StreamLoader]:
        """Return the texts to predict in the order of the file, in batches; nothing if all are to skip."""
        size, count = self.samples_per_pass, len(self.predict_texts)
        batches = [range(first, min(first + size, count)) for first in range(0, count, size)]
        left = [number for batch in batches if not self.skip.issuperset(batch) for number in batch]
        if not left:
            return []
        stream = SubsetStream(self.predict_texts, left, self.samples_per_pass, **self.ranks)
        return StreamLoader(stream, num_workers=self.num_workers)

    @cached_property
    def _train(self) -> Any:
        if not self.names["train"]:
            raise UserError(f"`data.train` is missing; name the sources to train on. {self._choice()}")
        texts = [self.records("train", name) for name in self.names["train"]]
        whole: Any = ConcatDataset(texts)  # type: ignore[arg-type]  # it takes what has a length and items
        whole.content = " ".join(each.content for each in texts)
        return whole

    def _evaluated(self, stage: Stage) -> dict[str, SampleSource]:
        names = self.names[stage]
        if not names:
            raise UserError(f"`data.{stage}` is missing; name the sources to evaluate on. {self._choice()}")
        return {name: self.records(stage, name) for name in names}

    def _tell_overlap(self, stage: Stage) -> None:
        """Warn of evaluated texts that are trained on as well; inside a source, ``prepare`` lets none be."""
        root = root_to_prepare(self.root)
        folders = [root / name / "train" for name in self.names["train"] if (root / name / "train").is_dir()]
        trained = [TextSet(folder, verify=False).digests() for folder in folders]
        for name in self.names[stage] if trained else ():
            texts = self.records(stage, name)
            both = int(np.isin(texts.digests(), np.concatenate(trained)).sum())
            if both:
                log.warning(
                    "%d of the %d texts of %s/%s are trained on as well, in another source; prepare such sources as "
                    "one, or its scores are too good.",
                    both,
                    len(texts),
                    stage,
                    name,
                )

    def _folder(self, split: Stage, source: str) -> Path:
        root = root_to_prepare(self.root)
        folder = root / source
        if not (folder / RECORD).is_file():
            there = sorted(record.parent.name for record in root.glob(f"*/{RECORD}"))
            raise UserError(
                f"`data.{split}` names {source}, which is not in {root}; prepare it with `lit-detect prepare`, or "
                f"correct the name.{did_you_mean(source, there)} {self._choice()}"
            )
        if not (folder / split).is_dir():
            splits = [name for name in ("train", "val", "test") if (folder / name).is_dir()]
            raise UserError(
                f"`data.{split}` names {source}, which has no {split} set but {' and '.join(splits)}; name another "
                "source, or prepare it with other fractions."
            )
        return folder / split

    def _choice(self) -> str:
        root = root_to_prepare(self.root)
        there = sorted(record.parent.name for record in root.glob(f"*/{RECORD}"))
        return f"There are {', '.join(there)}." if there else f"There is nothing in {root}."


class SubsetStream(EvalStream):
    """Some samples of a source, once and in order; a batch's ``index`` is their index in the source.

    Args:
        source: Samples by number.
        numbers: Which of them, one or more.
        batch_size: Samples per device and forward pass.
        rank: Number of this process, from 0 to ``world_size`` - 1.
        world_size: Number of processes.
    """

    def __init__(
        self, source: SampleSource, numbers: list[int], batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(SourceSubset(source, numbers), batch_size, rank, world_size)
        self.numbers = numbers

    def _row(self, index: int) -> dict[str, Any]:
        row = super()._row(index)
        return row if row["index"] < 0 else {**row, "index": self.numbers[index]}
