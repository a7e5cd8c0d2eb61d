"""The LightningDataModule of one party's labelled samples."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from lit_core.data import ShardStream, StreamLoader
from lit_core.data.module import SourceSubset, StreamDataModule
from lit_core.data.stream import SampleSource
from lit_core.errors import UserError, check_at_least, did_you_mean
from lit_core.files.listing import listed
from lit_core.files.paths import resolve_data_path
from lit_valuation.batches import check_takes_weights
from lit_valuation.data.answer_weights import training_weights
from lit_valuation.data.concatenated_sets import ConcatenatedSets
from lit_valuation.data.copies import CopyFinder, check_near
from lit_valuation.data.kept_rows import kept_rows
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.functional.mass import Weights, check_mass
from lit_valuation.samples import Target, target_statistics


class OwnersDataModule(StreamDataModule):
    """Streams labelled samples of one party, as ``lit-valuation prepare`` or ``divide`` wrote them.

    A batch has ``x``, float32 with images in [0, 1], or int64 token ids with -1 after the last of a text, the targets
    ``y`` and ``index``. With ``mass`` or ``weights``, one of training has ``weight`` too, the weight of each sample in
    the loss, whose mean over the set is 1. Evaluation reads named sets: ``all``, and if groups are known, one per
    group, such as ``usual`` and ``hard``. So the samples of a group are in two sets. Rows with an ``index`` of -1 pad
    the last batch of a set. Gradient accumulation follows from the batch sizes and the number of devices. Resuming
    needs the callback `ResumeStream`.

    Args:
        root: Folder of a party's own data, or of the parties of ``divide``: absolute, or relative to the working
            directory or the data root.
        party: Of several parties, ``trainer`` or the name of an owner.
        extra: Folders of further labelled samples to train on, such as owners' answers; classes are matched by name.
            Samples that equal or nearly equal one of val or test are left out.
        mass: Share of the training loss that the samples of ``extra`` get together, above 0 and below 1; None is their
            share by number.
        weights: Whether the samples of an answer in ``extra`` count equally among themselves, or by the weights of its
            manifest.
        batch_size: Samples per optimizer step, over all devices and accumulated micro-batches.
        micro_batch_size: Samples per device and forward pass; None divides batch_size by the number of devices.
        num_workers: Processes per loader that read data; 0 reads in the training process.
        seed: Seed of the order of the training data, 0 or more; None takes that of the run.
        verify: Whether each shard's SHA-256 is compared with its index before the first step.
        near: Fraction of the natural distance between different samples of the training set, from 0 to below 1, within
            which a sample of ``extra`` counts as nearly equal to one of val or test; 0 leaves out equal ones only.
    """

    def __init__(
        self,
        root: str,
        party: str = "trainer",
        extra: list[str] | None = None,
        mass: float | None = None,
        weights: Weights = "equal",
        batch_size: int = 64,
        micro_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int | None = None,
        verify: bool = True,
        near: float = 0.25,
    ) -> None:
        super().__init__(batch_size, micro_batch_size, num_workers, seed)
        check_mass(mass)
        check_near(near)
        self.keep_arguments()
        self.root, self.party = resolve_data_path(root), party
        self.extra = [resolve_data_path(folder) for folder in extra or ()]
        self.mass, self.weights, self.near, self.verify = mass, weights, near, verify
        check_at_least(1, batch_size=batch_size, micro_batch_size=micro_batch_size)
        self.folder = _party_folder(self.root, party)

    @cached_property
    def _own(self) -> LabelledSet:
        return self._open(self.folder / "train")

    @cached_property
    def _train(self) -> ConcatenatedSets:
        """The party's training set and the extra sets, without what validation and test sets hold."""
        extra = [self._open(folder) for folder in self.extra]
        ConcatenatedSets([self._own, *extra])  # refuses what does not fit, before anything is compared
        splits = [self.folder / split for split in ("val", "test") if extra and (self.folder / split).is_dir()]
        evaluation = [self._open(folder) for folder in splits]
        finder = CopyFinder(self._own, None, self.near) if evaluation else None
        everything = [torch.arange(len(each)) for each in extra]
        rows = everything if finder is None else [kept_rows(each, evaluation, finder) for each in extra]
        weights = training_weights(self._own, extra, rows, self.mass, self.weights)
        return ConcatenatedSets([self._own, *extra], weights=weights, rows=[torch.arange(len(self._own)), *rows])

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their indices, or of labels or target columns; linked to the model."""
        return self._own.classes

    @property
    def target(self) -> Target:
        """Kind of the targets."""
        return self._own.target

    def target_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each target column of the party's own training set.

        Raises:
            UserError: If all values of a column are equal.
        """
        return target_statistics(self._own.targets().y, self.classes)

    @property
    def n_classes(self) -> int:
        """Number of classes, labels or target columns."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input; linked to the model."""
        return self._own.shape

    def setup(self, stage: str) -> None:
        """Open the sets and derive the gradient accumulation.

        Raises:
            UserError: If samples have weights and the module takes none.
        """
        if stage == "fit":
            if self._train.weights is not None:
                assert self.trainer is not None
                check_takes_weights(self.trainer.lightning_module, "weights" if self.mass is None else "mass")
            self.start_training(lambda **layout: ShardStream(self._train, "train", **layout))
        self._evaluation_sets = self._open_evaluation_sets(stage)

    def selection_dataloader(self) -> StreamLoader:
        """Return a loader of this rank's share of the training set, once and in order, with each sample's ``index``."""
        return self.evaluation_loaders({"train": self._train})["train"]

    def val_dataloader(self) -> dict[str, StreamLoader]:
        """Return the loader of the whole validation set, ``all``, and one per group."""
        return self.evaluation_loaders(self._evaluation_sets)

    def test_dataloader(self) -> dict[str, StreamLoader]:
        """Return the loader of the whole test set, ``all``, and one per group."""
        return self.evaluation_loaders(self._evaluation_sets)

    def predict_dataloader(self) -> StreamLoader:
        """Return the loader of the whole test set, or of the validation set if there is no test set."""
        return self.evaluation_loaders(self._evaluation_sets)["all"]

    def _open_evaluation_sets(self, stage: str) -> dict[str, SampleSource]:
        split = "val" if stage in ("fit", "validate") else "test"
        if stage == "predict" and not (self.folder / "test").is_dir():
            split = "val"
        if not (self.folder / split).is_dir():
            raise UserError(
                f"`party` is {self.party}, which has no {split} set in {self.folder}; validate it, or test the trainer."
            )
        whole = ConcatenatedSets([self._open(self.folder / split)], self.classes)
        sets: dict[str, SampleSource] = {"all": whole}
        if stage != "predict":
            groups = whole.sets[0].targets().groups or ()
            for group in sorted(set(groups)):
                sets[group] = SourceSubset(whole, [index for index, name in enumerate(groups) if name == group])
        return sets

    def _open(self, folder: Path) -> LabelledSet:
        return LabelledSet(folder, self.verify)


def _party_folder(root: Path, party: str) -> Path:
    owners = [path.name for path in listed(root / "owners") if path.is_dir()]
    if (root / "train").is_dir() and not owners:  # one party's own data
        if party == "trainer":
            return root
        raise UserError(f"`party` is {party}, but {root} holds the data of one party; leave `party` out.")
    if not root.is_dir() or not (owners or (root / "trainer").is_dir()):
        raise UserError(
            f"`data.root` is {root}, but there are no prepared data in it; run `lit-valuation prepare`, or "
            "`lit-valuation divide` for several parties."
        )
    if party == "trainer":
        return root / "trainer"
    if party not in owners:
        hint = did_you_mean(party, ["trainer", *owners]) or f" There are trainer, {', '.join(owners)}."
        raise UserError(f"`party` is {party}, which is not in {root}.{hint}")
    return root / "owners" / party
