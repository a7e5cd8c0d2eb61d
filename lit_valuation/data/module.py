"""What one party trains and evaluates on, as a LightningDataModule."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lit_core.data import ShardStream, StreamLoader
from lit_core.data.setup import check_counts, evaluation_loaders, need_resume_stream, set_accumulation
from lit_core.data.stream import Source
from lit_core.errors import UserError, did_you_mean
from lit_core.files.paths import resolve_data_path
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.samples import Samples


class OwnersDataModule(LightningDataModule):
    """Streams labelled samples of one party, the trainer or an owner, as ``lit-valuation prepare`` wrote them.

    A batch has ``x``, float32 with images in [0, 1], ``y`` and ``index``. Validation and test sets are named sources:
    ``all``, and each group of its own where groups are known, such as ``usual`` and ``hard``; so the samples of a group
    are in two sources. Their last batches are filled up with rows whose ``index`` is -1. Gradient accumulation follows
    from the batch sizes and the number of devices. Resuming needs the callback `ResumeStream`.

    Args:
        root: Folder of the parties, absolute, from the working directory, or below the data root.
        party: ``trainer``, or the name of an owner.
        extra: Folders of labelled samples to train on as well, such as owners' answers; classes are matched by name.
        batch_size: Samples per optimizer step, over all devices and accumulated micro-batches.
        micro_batch_size: Samples per device and forward pass; None divides batch_size by the number of devices.
        num_workers: Processes per loader that read data; 0 reads in the training process.
        seed: Seed of the order of the training data, 0 or more.
        verify: Whether each shard's SHA-256 is compared with its index before the first step.
    """

    def __init__(
        self,
        root: str,
        party: str = "trainer",
        extra: list[str] | None = None,
        batch_size: int = 64,
        micro_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        verify: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.root, self.party = resolve_data_path(root), party
        self.extra = [resolve_data_path(folder) for folder in extra or ()]
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.num_workers, self.seed, self.verify = num_workers, seed, verify
        check_counts({"batch_size": batch_size, "micro_batch_size": micro_batch_size}, num_workers)
        self.folder = _party_folder(self.root, party)

    @cached_property
    def _own(self) -> LabelledSet:
        return self._open(self.folder / "train")

    @cached_property
    def _train(self) -> Joined:
        """The party's training set and what was added to it."""
        return Joined([self._own, *(self._open(folder) for folder in self.extra)])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by number; the model's are linked to them."""
        return self._own.classes

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input; the model's is linked to it."""
        return self._own.shape

    def setup(self, stage: str) -> None:
        """Open the sets and derive the gradient accumulation."""
        trainer = self.trainer
        assert trainer is not None
        if stage == "fit":
            need_resume_stream(type(self).__name__, trainer.callbacks)  # type: ignore[attr-defined]
            self._stream = ShardStream(
                self._train,
                "train",
                global_batch_size=self.batch_size,
                micro_batch_size=self.micro_batch_size or max(1, self.batch_size // trainer.world_size),
                rank=trainer.global_rank,
                world_size=trainer.world_size,
                seed=self.seed,
            )
            set_accumulation(trainer, self._stream)
        self._evaluation = self._sources(stage)

    def train_dataloader(self) -> StreamLoader:
        """Return the training set, in another order in each epoch."""
        return StreamLoader(self._stream, num_workers=self.num_workers)

    def selection_dataloader(self) -> StreamLoader:
        """Return this rank's share of the training set in its order, once; every sample is numbered by ``index``."""
        return self._loaders({"train": self._train})["train"]

    def val_dataloader(self) -> dict[str, StreamLoader]:
        """Return a loader for all of the validation set, and one per group."""
        return self._loaders(self._evaluation)

    def test_dataloader(self) -> dict[str, StreamLoader]:
        """Return a loader for all of the test set, and one per group."""
        return self._loaders(self._evaluation)

    def predict_dataloader(self) -> StreamLoader:
        """Return a loader for all of the test set, or where there is none, of the validation set."""
        return self._loaders(self._evaluation)["all"]

    def _sources(self, stage: str) -> dict[str, Source]:
        split = "val" if stage in ("fit", "validate") else "test"
        if stage == "predict" and not (self.folder / "test").is_dir():
            split = "val"
        if not (self.folder / split).is_dir():
            raise UserError(
                f"`party` is {self.party}, which has no {split} set in {self.folder}; validate it, or test the trainer."
            )
        whole = Joined([self._open(self.folder / split)], self.classes)
        sources: dict[str, Source] = {"all": whole}
        groups = [group for _, group in whole.sets[0].labels()]
        if stage != "predict":
            for group in sorted({group for group in groups if group is not None}):
                sources[group] = Part(whole, [number for number, name in enumerate(groups) if name == group])
        return sources

    def _loaders(self, sources: dict[str, Any]) -> dict[str, StreamLoader]:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        batch_size = self.micro_batch_size or max(1, self.batch_size // world_size)
        return evaluation_loaders(sources, batch_size, rank, world_size, self.num_workers)

    def _open(self, folder: Path) -> LabelledSet:
        found = LabelledSet(folder)
        if self.verify:
            found.verify()
        return found


#: Sets of up to so many bytes as float32 are kept in memory once read; larger ones are decoded as they are needed.
IN_MEMORY = 2**30


class Joined:
    """Labelled sets one after the other, numbered by the classes of the first.

    Args:
        sets: The sets, one or more.
        classes: Names of the classes by number; None takes those of the first set.

    Raises:
        UserError: If a set has inputs of another shape, or a sample of a class that is not among them.
    """

    def __init__(self, sets: Sequence[LabelledSet], classes: Sequence[str] | None = None) -> None:
        self.sets, self.classes = list(sets), tuple(sets[0].classes if classes is None else classes)
        self._starts = np.cumsum([0, *(len(each) for each in self.sets)])
        self._kept: dict[int, Samples] = {}
        self._numbers = []
        for each in self.sets:
            if each.shape != self.sets[0].shape:
                raise UserError(
                    f"{each.folder} holds inputs of shape {each.shape}, but {self.sets[0].folder} of shape "
                    f"{self.sets[0].shape}; give samples of one kind."
                )
            unknown = set(each.classes) - set(self.classes)
            for name in sorted(unknown & {label for label, _ in each.labels()} if unknown else ()):
                raise UserError(
                    f"{each.folder} holds samples of the class {name!r}, which is not among those of "
                    f"{self.sets[0].folder}: {', '.join(self.classes)}; leave them out."
                )
            order = {name: number for number, name in enumerate(self.classes)}
            self._numbers.append(torch.tensor([order.get(name, -1) for name in each.classes]))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {key: value[0] for key, value in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Read several samples, stacked."""
        rows = np.asarray(indices, dtype=np.int64)
        which = np.searchsorted(self._starts, rows, side="right") - 1
        x = torch.empty(len(indices), *self.sets[0].shape)
        y = torch.empty(len(indices), dtype=torch.int64)
        for number in np.unique(which):
            places = np.flatnonzero(which == number)
            # a batch that ends an epoch and begins the next may hold a sample twice
            different, place = np.unique(rows[places] - self._starts[number], return_inverse=True)
            part = self._read(int(number), different)
            x[places], y[places] = part.inputs()[place], self._numbers[number][part.y[place]]
        return {"x": x, "y": y, "index": torch.from_numpy(rows)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}

    def _read(self, number: int, rows: np.ndarray) -> Samples:
        """Return samples of one set."""
        each = self.sets[number]
        if 4 * len(each) * prod(each.shape) > IN_MEMORY:
            return each.load(rows.tolist())
        if number not in self._kept:
            self._kept[number] = each.load()
        return self._kept[number].take(rows.tolist())


class Part:
    """Some samples of a set.

    Args:
        whole: The set.
        numbers: Which of its samples.
    """

    def __init__(self, whole: Joined, numbers: list[int]) -> None:
        self.whole, self.numbers = whole, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return self.whole[self.numbers[index]]


def _party_folder(root: Path, party: str) -> Path:
    owners = sorted(path.name for path in (root / "owners").glob("*") if path.is_dir())
    if not root.is_dir() or not (owners or (root / "trainer").is_dir()):
        raise UserError(f"`data.root` is {root}, but there are no parties in it; run `lit-valuation prepare`.")
    if party == "trainer":
        return root / "trainer"
    if party not in owners:
        hint = did_you_mean(party, ["trainer", *owners]) or f" There are trainer, {', '.join(owners)}."
        raise UserError(f"`party` is {party}, which is not in {root}.{hint}")
    return root / "owners" / party
