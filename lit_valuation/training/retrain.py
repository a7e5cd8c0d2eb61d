"""Retraining a classifier with an owner's samples, and scoring it."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_core.callbacks import FiniteLoss
from lit_core.errors import UserError, check_at_least
from lit_core.lightning.checkpoint import data_argument
from lit_core.lightning.checkpoint_module import CheckpointModule
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lightning.internals import CLASS_PATH
from lit_core.references import value_at
from lit_core.seeds import part_seed
from lit_core.trust import OWN
from lit_valuation.batches import check_takes_weights
from lit_valuation.contract import logits_of, loss_of, positions_of
from lit_valuation.functional.gradients import Loss
from lit_valuation.functional.losses import sample_losses, sample_scores, token_accuracies, token_losses
from lit_valuation.last_layer import counted_targets, rows_at_once, wanted_outputs
from lit_valuation.samples import Samples, Target, as_inputs, target_statistics
from lit_valuation.training.loading import Description, SavedModel

Mode = Literal["scratch", "finetune"]

#: Loss whose outputs are scored, by kind of target.
_LOSSES: Mapping[Target, Loss] = {"class": "cross_entropy", "labels": "logistic", "values": "squared"}


@dataclass(frozen=True)
class TrainingRecipe:
    """Settings of a training: how to make the classifier, how long to train it, and on what.

    Args:
        make: Returns the untrained classifier of a seed.
        steps: Optimizer steps of a training, 1 or more.
        batch_size: Samples per optimizer step, over all devices, 1 or more.
        weights: Weights by name that fine-tuning starts from; None if nothing is fine-tuned.
        trainer: Further arguments of the Trainer, such as ``devices`` or ``gradient_clip_val``.
        pairs: Whether the classifier trains on batches that are pairs ``(x, y)``, and not on mappings with these keys.
    """

    make: Callable[[int], LightningModule]
    steps: int
    batch_size: int
    weights: Mapping[str, Tensor] | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    pairs: bool = False

    def __post_init__(self) -> None:
        check_at_least(1, steps=self.steps, batch_size=self.batch_size)

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, model: Description | None = None, batch_size: int | None = None, **trainer: Any
    ) -> TrainingRecipe:
        """Return the settings of the training that wrote a checkpoint, up to the checkpoint's step.

        Args:
            path: The checkpoint file.
            model: The class of the model; None for a checkpoint of ``lit-valuation fit``.
            batch_size: Samples per optimizer step, over all devices; None takes what the checkpoint tells.
            trainer: Arguments of the Trainer, such as ``devices``.

        Raises:
            UserError: If the file is not a checkpoint, or does not tell the batch size and none is given.
        """
        saved = SavedModel.read(path, model)
        recipe = saved.checkpoint.get("recipe") or _recipe_of_config(saved.checkpoint)
        batch_size = recipe.get("batch_size") if batch_size is None else batch_size
        if batch_size is None:
            raise UserError(
                f"--ckpt_path is {path}, which does not tell how many samples an optimizer step takes; give "
                "--batch_size."
            )
        clipping = {key: value for key, value in recipe.items() if key != "batch_size"}
        return cls(
            make=saved.build,
            steps=max(int(saved.checkpoint["global_step"]), 1),
            batch_size=int(batch_size),
            weights=saved.checkpoint["state_dict"],
            trainer=clipping | trainer,
        )


def _recipe_of_config(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return batch size and clipping of a checkpoint without a recipe, as far as its config or our data tell them."""
    config = checkpoint.get("config", {})
    clipping = {key: value_at(config, f"trainer.{key}") for key in ("gradient_clip_val", "gradient_clip_algorithm")}
    known = {key: value for key, value in clipping.items() if value is not None}
    of_data = checkpoint.get(LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY, {})
    is_ours = str(value_at(config, "data.class_path") or of_data.get(CLASS_PATH)).startswith(OWN)
    # of another data module it may be that of a device, or of a micro-batch
    return {"batch_size": data_argument(checkpoint, "batch_size") if is_ours else None, **known}


def retrain(
    recipe: TrainingRecipe,
    train: Samples,
    shared: Samples | None = None,
    seed: int | None = None,
    mode: Mode = "scratch",
    weights: Tensor | None = None,
) -> LightningModule:
    """Train a classifier on the trainer's own samples and those that an owner shares.

    An epoch of a LightningModule of the user's own, whose schedule may step with it, has as many batches as the samples
    fill. The order of the samples depends on the seed and the number of samples only. So two trainings with different
    shared samples of the same number see the trainer's own samples in the same order. The global random state does not
    change.

    Args:
        recipe: Settings of the training.
        train: The trainer's own training set.
        shared: Shared samples, whose classes are matched by name; None adds nothing.
        seed: Seed of the initial weights and of the order of samples, 0 or more; None takes that of the run.
        mode: Whether to train from scratch or from the recipe's weights.
        weights: Weight in the loss of each own sample and then of each shared one, with a mean of 1, as
            `sample_weights` returns them; None for 1 each.

    Returns:
        The trained classifier, in evaluation mode, on the CPU.

    Raises:
        UserError: If shared samples have another shape or an unknown class, there are no weights to fine-tune, or the
            classifier takes no weights of samples.
        RunFailure: If the loss is not finite.
    """
    seed = part_seed(seed)
    sets = [train] if shared is None or not len(shared) else [train, shared.renumbered(train.classes)]
    if len(sets) > 1 and sets[1].target != train.target:
        raise UserError(
            f"The shared samples have the target {sets[1].target}, the training set's is {train.target}; share samples "
            "of that kind."
        )
    if len(sets) > 1 and sets[1].x.shape[1:] != train.x.shape[1:]:
        raise UserError(
            f"The shared samples have the shape {tuple(sets[1].x.shape[1:])}, the training set's "
            f"{tuple(train.x.shape[1:])}; share samples of that shape."
        )
    if mode == "finetune" and recipe.weights is None:
        raise UserError("mode is finetune, but the recipe has no weights to start from; give some, or use scratch.")
    with isolate_rng(include_cuda=False), _silently():
        np.random.seed(seed)  # modules of others may draw from NumPy's and Python's generators
        random.seed(seed)
        torch.manual_seed(seed)
        task = recipe.make(seed)
        if weights is not None:
            check_takes_weights(task)
        if mode == "finetune":
            task.load_state_dict(recipe.weights or {})
        has_epochs = not isinstance(task, CheckpointModule)  # ours count in steps
        where: dict[str, Any] = {"accelerator": "cpu", "devices": 1, **recipe.trainer}
        trainer = Trainer(
            **where,
            max_steps=recipe.steps,
            max_epochs=-1,
            callbacks=[FiniteLoss()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            limit_val_batches=0,
            reload_dataloaders_every_n_epochs=int(has_epochs),
        )
        trainer.fit(task, datamodule=_InMemory(sets, weights, recipe, seed, has_epochs))
    return task.cpu().eval()


def predict_logits(task: LightningModule, samples: Samples, batch_size: int = 256) -> Tensor:
    """Compute a classifier's logits in evaluation mode.

    Args:
        task: The classifier.
        samples: The samples to classify.
        batch_size: Samples per forward pass, 1 or more.

    Returns:
        Logits on the CPU, of shape ``(n, classes)``.
    """
    device = next(task.parameters()).device
    with evaluating(task), torch.no_grad():
        blocks = [
            logits_of(task, samples.take(range(start, min(start + batch_size, len(samples)))).inputs().to(device)).cpu()
            for start in range(0, len(samples), batch_size)
        ]
    return torch.cat(blocks) if blocks else torch.empty(0, len(samples.classes))


def case_scores(task: LightningModule, samples: Samples, batch_size: int = 256) -> Tensor:
    """Return how well a model predicts each sample, float32 of shape ``(n,)``; higher is better.

    Args:
        task: The model.
        samples: The samples.
        batch_size: Samples per forward pass, 1 or more.

    Returns:
        Of classes 1 if the class is right and otherwise 0; of labels the share that is right; of values minus the mean
        squared error, in the unit of the outputs, which for a `RegressionTask` is the training set's variance; of tags
        the share of tokens with the right one; of texts minus the mean loss of their tokens, in nats.
    """
    if samples.target == "tags":
        return _of_texts(task, samples, batch_size, token_accuracies)
    if samples.target == "text":
        return -_of_texts(task, samples, batch_size, lambda outputs, y: token_losses(outputs, y, "mean"))
    return sample_scores(predict_logits(task, samples, batch_size), _wanted(task, samples), _LOSSES[samples.target])


def case_losses(task: LightningModule, samples: Samples, batch_size: int = 256) -> Tensor:
    """Return the loss of each sample without smoothing, float32 of shape ``(n,)``.

    Args:
        task: The model; its loss is its attribute ``loss``, or cross_entropy.
        samples: The samples. Of texts it is the mean or sum over their tokens, as the model's ``positions`` says.
        batch_size: Samples per forward pass, 1 or more.
    """
    if samples.has_positions:
        positions = positions_of(task)
        return _of_texts(task, samples, batch_size, lambda outputs, y: token_losses(outputs, y, positions))
    return sample_losses(predict_logits(task, samples, batch_size), _wanted(task, samples), loss_of(task))


def _of_texts(
    task: LightningModule, samples: Samples, batch_size: int, score: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return a score of each text, from its logits and targets; the logits of all texts are never in memory at once."""
    size = rows_at_once(task, samples, batch_size)
    parts = [samples.take(range(start, min(start + size, len(samples)))) for start in range(0, len(samples), size)]
    found = [score(predict_logits(task, part, size).float(), counted_targets(task, part.y)) for part in parts]
    return torch.cat(found) if found else torch.empty(0)


def _wanted(task: LightningModule, samples: Samples) -> Tensor:
    return wanted_outputs(task, samples.y.to(next(task.parameters()).device)).cpu()


def is_correct(task: LightningModule, samples: Samples, batch_size: int = 256) -> Tensor:
    """Return whether a classifier classifies each sample correctly, bool of shape ``(n,)``."""
    return predict_logits(task, samples, batch_size).argmax(1) == samples.y


def accuracies(task: LightningModule, sets: Mapping[str, Samples]) -> dict[str, float]:
    """Return a classifier's accuracy on each named set, from 0 to 1; NaN for an empty set."""
    return {name: float(is_correct(task, samples).float().mean()) for name, samples in sets.items()}


def batch_rows(size: int, steps: int, batch_size: int, seed: int) -> Tensor:
    """Return which samples make up each global batch of a training.

    Every epoch has a random order of its own. All batches are full: the last batch of an epoch is completed from the
    next epoch. A partial batch would move the weights as much as a full one, and its size would depend on how many
    samples were shared.

    Args:
        size: Number of samples in the training set, 1 or more.
        steps: Number of batches, 1 or more.
        batch_size: Samples per batch, 1 or more.
        seed: Seed of the order, 0 or more.

    Returns:
        Indices of samples, int64 of shape ``(steps, batch_size)``.
    """
    generator = torch.Generator().manual_seed(seed)
    epochs = -(-steps * batch_size // size)
    order = torch.cat([torch.randperm(size, generator=generator) for _ in range(epochs)])
    return order[: steps * batch_size].view(steps, batch_size)


class _Batches(Dataset[Any]):
    """One rank's batches.

    Args:
        sets: The trainer's own samples, and those that are shared.
        rows: Rows of the samples of each batch, ``(batches, samples)``.
        weights: Weight of each sample, which batches then have, as mappings; None for 1 each.
        pairs: Whether a batch is a pair ``(x, y)``, and not a mapping.
    """

    def __init__(self, sets: list[Samples], rows: Tensor, weights: Tensor | None, pairs: bool) -> None:
        self.sets, self.rows, self.weights, self.pairs = sets, rows, weights, pairs

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor] | tuple[Tensor, Tensor]:
        rows, own = self.rows[index], len(self.sets[0])
        rows = torch.cat([rows[rows < own], rows[rows >= own]])
        parts = [(self.sets[0], rows[rows < own])]
        if len(self.sets) > 1:
            parts.append((self.sets[1], rows[rows >= own] - own))
        x = torch.cat([as_inputs(part.x[part_rows]) for part, part_rows in parts])
        y = torch.cat([part.y[part_rows] for part, part_rows in parts])
        if self.weights is not None:
            return {"x": x, "y": y, "weight": self.weights[rows]}
        return (x, y) if self.pairs else {"x": x, "y": y}


class _InMemory(LightningDataModule):
    """Data module that gives each rank its rows of the global batches, in the order of `batch_rows`."""

    def __init__(
        self, sets: list[Samples], weights: Tensor | None, recipe: TrainingRecipe, seed: int, has_epochs: bool
    ) -> None:
        super().__init__()
        self.sets, self.weights, self.recipe, self.seed, self.has_epochs = sets, weights, recipe, seed, has_epochs

    @property
    def target(self) -> Target:
        """Kind of the targets."""
        return self.sets[0].target

    def target_statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each target column of the trainer's own training set."""
        return target_statistics(self.sets[0].y, self.sets[0].classes)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of the whole training, or those of an epoch."""
        assert self.trainer is not None
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        size, batch_size = sum(map(len, self.sets)), self.recipe.batch_size
        rows = batch_rows(size, self.recipe.steps, batch_size, self.seed)
        if self.has_epochs:
            batches = -(-size // batch_size)
            start = self.trainer.current_epoch * batches
            rows = rows[start : start + batches]
        batches_of_rank = _Batches(self.sets, rows[:, rank::world_size], self.weights, self.recipe.pairs)
        return DataLoader(batches_of_rank, batch_size=None)


@contextmanager
def _silently() -> Iterator[None]:
    """Silence Lightning's messages and warnings, which would repeat for every training."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
