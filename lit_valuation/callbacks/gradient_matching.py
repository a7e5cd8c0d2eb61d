"""Training on a weighted subset whose gradient matches that of a larger set (gradient matching)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, Literal, TypedDict

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lit_core.data import StreamLoader
from lit_core.data.order import ORDER
from lit_core.errors import UserError, check_at_least, did_you_mean
from lit_core.files.json_files import checked_state
from lit_core.lightning.internals import logged_step, logs_this_step, replace_train_loader, validation_loaders
from lit_core.lightning.pictures import add_images, shows_pictures
from lit_core.lightning.step_logging import rows_of_all_ranks
from lit_core.lightning.tensorboard import add_layout
from lit_core.screen import logger
from lit_core.seeds import part_seed
from lit_valuation.batches import Batch, as_batch, batch_sizes
from lit_valuation.callbacks.coreset import Coreset, choose_coreset
from lit_valuation.data.weighted_subset import LoaderRows, SubsetLoader, SubsetStream, WeightedSubset
from lit_valuation.functional.gradients import Loss
from lit_valuation.functional.losses import WORST
from lit_valuation.last_layer import PoolGradients, gather_gradients
from lit_valuation.samples import as_inputs

log = logger(__name__)


class _Made(TypedDict):
    count: int
    epoch: int
    step: int


class _FirstState(TypedDict):
    numbers: Tensor | None
    weights: Tensor | None
    made: _Made
    facts: dict[str, int | float]


class _State(_FirstState, total=False):
    """With what the first checkpoints did not have."""

    order: int
    batches: int | None


class GradientMatching(Callback):
    """Changes training: epochs run on a weighted subset of the training set whose gradient matches a larger set's.

    At the start of every n-th epoch, or once at a chosen step, the callback

    1. computes the gradient of the loss at the last linear layer for each sample of the pool, a share on each device;
    2. computes the gradient to match: that of the training set (a coreset, `Killamsetty et al. 2021
       <https://arxiv.org/abs/2103.00123>`_), of the validation set, or of the validation set's hard cases (D_hard,
       `Sarwar et al. 2024 <https://arxiv.org/abs/2410.08432>`_): the misclassified samples, or, where targets are not
       classes, the tenth with the largest losses;
    3. chooses in each class, or without classes among all, the samples whose weighted gradients add up to it, by
       orthogonal matching pursuit;
    4. replaces the training data by these samples: until the next selection an epoch is one pass over them, with the
       same batch size as before.

    It works on any LightningModule that maps a batch of inputs to the logits of an nn.Linear. If the module has
    ``takes_weights = True``, as `ClassifierTask` does, batches are mappings with ``weight``. Otherwise the form of the
    batches does not change, and samples are drawn in proportion to their weights. Label smoothing is that of the
    module's attribute ``label_smoothing``, if it has one.

    ======================================  =========  =============================================================
    key                                     unit       moment
    ======================================  =========  =============================================================
    ``train/selection/relative_residual``   1          first logged step after a selection; norm of the residual over
                                                       that of the matched gradient, 0 is a perfect match
    ``train/selection/size``                samples    same; number of chosen samples
    ``train/selection/class_coverage``      0 to 1     same; share of the matched classes with a chosen sample
    ``train/selection/overlap``             0 to 1     same; samples in both this and the last selection, over
                                                       samples in either
    ``train/selection/seconds``             s          same; duration of the selection
    ``train/selection/samples`` (images)               if ``show_samples``: samples with the largest weights
    ======================================  =========  =============================================================

    Args:
        budget: Samples to choose: a share of the pool, above 0 and up to 1.0, as a decimal fraction, or a whole number.
        match: Gradient to match: that of the pool (train), of the validation set (val), or of its hard cases (hard).
        every_n_epochs: Epochs from one selection to the next, 1 or more; the first selection is at the start.
        at_step: Optimizer step of the only selection, 0 or more. It is made at the start of the first epoch from this
            step on, and training uses all samples before it. None selects every ``every_n_epochs`` epochs.
        source: Name of the validation set to match; None takes the set ``all`` if there is one, otherwise all sets.
        ridge: Ridge penalty, as a multiple of the mean squared norm of a class's gradients, 0 or more.
        loss: The loss that the module is trained with; None takes its attribute ``loss``, or cross_entropy.
        keys: Names of inputs and labels in batches that are mappings.
        head: Name of the last linear layer in the module; None takes the layer that was registered last.
        seed: Seed of the order of the chosen samples, 0 or more; None takes that of the run.
        show_samples: Number of chosen images to show in TensorBoard; 0 shows none.
        pool: Loader of the samples to choose from, in a fixed order and without random augmentation. None takes the
            data module's ``selection_dataloader()``, whose indices are those of the training set, from which the chosen
            samples are then read.

    Raises:
        UserError: If an argument is out of range, or does not fit ``match``.
    """

    answers = ("train/selection/relative_residual",)

    def __init__(
        self,
        budget: int | float = 0.1,
        match: Literal["train", "val", "hard"] = "train",
        every_n_epochs: int = 10,
        at_step: int | None = None,
        source: str | None = None,
        ridge: float = 0.5,
        loss: Loss | None = None,
        keys: Sequence[str] = ("x", "y"),
        head: str | None = None,
        seed: int | None = None,
        show_samples: int = 0,
        pool: DataLoader | None = None,
    ) -> None:
        budget = int(budget) if isinstance(budget, Integral) else float(budget)
        if not budget > 0 or (isinstance(budget, float) and budget > 1):
            raise UserError(f"`budget` is {budget}, but must be a share above 0 and up to 1.0, or a number of samples.")
        check_at_least(1, every_n_epochs=every_n_epochs)
        check_at_least(0, at_step=at_step, ridge=ridge, show_samples=show_samples)
        if match not in ("train", "val", "hard"):
            raise UserError(f"`match` is {match!r}, but must be train, val or hard; choose one of them.")
        if source is not None and match == "train":
            raise UserError("`source` names a validation set, but `match` is train; set match to val or hard.")
        self.budget, self.match, self.every_n_epochs, self.at_step = budget, match, every_n_epochs, at_step
        self.source, self.ridge, self.loss, self.keys, self.head = source, ridge, loss, tuple(keys), head
        self.seed, self.show_samples, self.pool = part_seed(seed), show_samples, pool
        self.numbers: Tensor | None = None
        self.weights: Tensor | None = None
        self._made = {"count": 0, "epoch": -1, "step": 0}
        self._order = ORDER
        self._facts: dict[str, float] = {}
        self._rows: LoaderRows | None = None
        self._sizes: dict[str, int] = {}
        self._workers = 0
        self._batches: int | None = 0  # trained on; None if a former checkpoint did not say

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer that replaces the training loader too, by one of all samples.

        Raises:
            UserError: If it does.
        """
        every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]  # set where mypy does not see it
        if stage == "fit" and every:
            raise UserError(
                f"`trainer.reload_dataloaders_every_n_epochs` is {every}, but GradientMatching trains on a loader of "
                "its selection, which it replaces itself; leave it out."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note how the training data are read, and install the selection of a resumed run."""
        loader = trainer.train_dataloader
        if trainer.global_step == 0:
            self._batches = 0
        elif self._batches is None:
            self._batches = trainer.global_step // max(1, len(trainer.optimizers))
        self._rows = LoaderRows(loader if self.pool is None else self.pool)
        sizes = batch_sizes(trainer)
        if sizes is None:
            raise UserError(
                "GradientMatching keeps the batch size of the training loader, but the loader has no batch_size; use a "
                "DataLoader with one."
            )
        self._sizes, self._workers = sizes, int(getattr(loader, "num_workers", 0))
        charts = {name: [f"train/selection/{name}"] for name in ("relative_residual", "overlap")}
        add_layout(trainer, {"Which samples does it choose?": charts})
        if self.numbers is not None:
            self._install(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a selection if it is due, and train on the selected samples from here on."""
        if not self._due(trainer):
            return
        start = time.perf_counter()
        with isolate_rng():
            coreset = self._select(trainer, pl_module)
        if coreset is None:
            return
        last = set() if self.numbers is None else set(self.numbers.tolist())
        chosen = set(coreset.numbers.tolist())
        self.numbers, self.weights = coreset.numbers, coreset.weights
        self._made = {"count": self._made["count"] + 1, "epoch": trainer.current_epoch, "step": self._steps(trainer)}
        self._order = ORDER
        self._facts = {
            "relative_residual": coreset.residual,
            "size": float(len(chosen)),
            "class_coverage": coreset.coverage,
            "overlap": len(chosen & last) / len(chosen | last),
            "seconds": time.perf_counter() - start,
        }
        self._install(trainer, pl_module)
        self._show(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch."""
        assert self._batches is not None
        self._batches += 1

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log the last selection, once."""
        if self._facts and logs_this_step(trainer):
            values = {f"train/selection/{name}": value for name, value in self._facts.items()}
            for logger in trainer.loggers:  # Lightning would repeat them at each step of the epoch
                logger.log_metrics(values, step=logged_step(trainer))
            trainer.callback_metrics.update({key: torch.tensor(value) for key, value in values.items()})
            self._facts = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the selection as plain values and tensors."""
        state = {"numbers": self.numbers, "weights": self.weights, "order": self._order, "batches": self._batches}
        return state | {"made": dict(self._made), "facts": dict(self._facts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the selection."""
        state = checked_state(_State, state_dict, type(self).__name__)
        self.numbers, self.weights = state["numbers"], state["weights"]
        self._made, self._facts = dict(state["made"]), dict(state["facts"])
        self._order, self._batches = state.get("order", 1), state.get("batches")

    def _steps(self, trainer: Trainer) -> int:
        """Return the optimizer steps done; in manual optimization the batches, as any optimizer may step in each."""
        assert self._batches is not None
        return trainer.global_step if trainer.lightning_module.automatic_optimization else self._batches

    def _due(self, trainer: Trainer) -> bool:
        if self.at_step is not None:
            return self.numbers is None and self._steps(trainer) >= self.at_step
        # a run that was resumed at the start of the epoch does not select again
        return trainer.current_epoch % self.every_n_epochs == 0 and trainer.current_epoch != self._made["epoch"]

    def _select(self, trainer: Trainer, pl_module: LightningModule) -> Coreset | None:
        """Return a new selection; None if the model makes no mistakes to match, so that the last selection stays."""
        rows = self._rows
        assert rows is not None
        pool = self._gather(trainer, pl_module, [self._view(trainer)])
        size = len(rows_of_all_ranks(trainer, pool.y))
        if size != len(rows):
            raise UserError(
                f"The pool to select from has {size} samples, but the set to train on has {len(rows)}; let "
                "selection_dataloader return all samples of the training set in order."
            )
        target = pool
        if self.match != "train":
            target = self._gather(trainer, pl_module, self._validation(trainer))
            if self.match == "hard":
                target = target.take(_hard(trainer, target))
                if not len(rows_of_all_ranks(trainer, target.y)):
                    sentence = "The model makes no mistakes on the validation set, so there are no hard cases to match"
                    if self.numbers is None:
                        raise UserError(f"{sentence}; set match to val, or validate on harder samples.")
                    log.warning("%s; the last selection stays.", sentence)
                    return None
        budget = max(1, round(self.budget * size)) if isinstance(self.budget, float) else self.budget
        if budget > size:
            raise UserError(f"`budget` is {budget}, but the pool has {size} samples; give as many or fewer.")
        return choose_coreset(trainer, pool, target, budget, self.ridge)

    def _gather(self, trainer: Trainer, pl_module: LightningModule, loaders: list[Any]) -> PoolGradients:
        batches = (batch for loader in loaders for batch in _share(trainer, loader, self.keys))
        with trainer.precision_plugin.forward_context():
            return gather_gradients(pl_module, batches, head=self.head, loss=self.loss)

    def _view(self, trainer: Trainer) -> Any:
        """Return the loader of the pool, without random augmentation."""
        if self.pool is not None:
            return self.pool
        for owner in (getattr(trainer, "datamodule", None), trainer.lightning_module):
            make: Any = getattr(owner, "selection_dataloader", None)
            if make is not None:
                return make()
        raise UserError(
            "GradientMatching reads the training set without shuffling and augmentation, but there is no "
            "selection_dataloader; define it next to train_dataloader, or give `pool` a loader."
        )

    def _validation(self, trainer: Trainer) -> list[Any]:
        """Return new loaders of the validation sets to match."""
        loaders = validation_loaders(trainer)
        if loaders is None:
            raise UserError(f"`match` is {self.match}, but there is no validation set; add one, or set it to train.")
        if not isinstance(loaders, Mapping):
            loaders = dict(enumerate(loaders if isinstance(loaders, list | tuple) else [loaders]))
        if self.source is None:
            return [loaders["all"]] if "all" in loaders else list(loaders.values())
        if self.source not in loaders:
            names = [str(name) for name in loaders]
            raise UserError(
                f"`source` is {self.source!r}, which is not a validation set;"
                + (did_you_mean(self.source, names) or f" there are {', '.join(names)}.")
            )
        return [loaders[self.source]]

    def _install(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make Lightning read the selection from here on."""
        assert self._rows is not None and self.numbers is not None and self.weights is not None
        weighted = bool(getattr(pl_module, "takes_weights", False))
        name, first = f"selection {self._made['count']}", self._made["step"]
        subset = WeightedSubset(self._rows, self.numbers, self.weights)
        layout = {"rank": trainer.global_rank, "world_size": trainer.world_size, "seed": self.seed}
        stream = SubsetStream(subset, name, by_weight=not weighted, **self._sizes, **layout)
        stream.order = self._order
        loader = SubsetLoader(stream, weighted, self.keys, num_workers=self._workers)
        # the number of steps since the selection is the whole state, so a resumed run reads the same batches
        loader.position = lambda: (self._steps(trainer) - first, stream.consumed(self._steps(trainer) - first))
        replace_train_loader(trainer, loader)

    def _show(self, trainer: Trainer) -> None:
        """Show the ``show_samples`` samples with the largest weights."""
        if not self.show_samples or not shows_pictures(trainer):
            return
        assert self._rows is not None and self.numbers is not None and self.weights is not None
        largest = self.weights.argsort(descending=True)[: self.show_samples]
        x = as_inputs(as_batch(self._rows.read(self.numbers[largest].tolist()), self.keys).x)
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise UserError(f"`show_samples` is {self.show_samples}, but the samples are not images; set it to 0.")
        pixels = (x.expand(-1, 3, -1, -1).clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        add_images(trainer, "train/selection/samples", list(pixels), max(trainer.global_step - 1, 0))


def _hard(trainer: Trainer, target: PoolGradients) -> Tensor:
    """Return which samples of this rank are hard: misclassified, or, without classes, of the largest losses of all."""
    if target.wrong is not None:
        return target.wrong
    losses = rows_of_all_ranks(trainer, target.losses)
    n_hard = max(1, round(WORST * len(losses)))
    return target.losses >= losses.topk(min(n_hard, len(losses))).values.min() if len(losses) else target.losses > 0


def _share(trainer: Trainer, loader: Any, keys: Sequence[str]) -> Iterator[Batch]:
    """Yield this rank's share of a loader's batches, with the indices of their samples.

    A `StreamLoader` yields the batches of its rank only. Of any other loader every rank reads all batches and keeps
    every world_size-th.
    """
    n_read = 0
    for batch_index, item in enumerate(loader):
        batch = as_batch(item, keys)
        if batch.index is None:
            batch = replace(batch, index=torch.arange(n_read, n_read + len(batch.y)))
        n_read += len(batch.y)
        if isinstance(loader, StreamLoader) or batch_index % trainer.world_size == trainer.global_rank:
            yield replace(batch, x=trainer.precision_plugin.convert_input(batch.x))
