"""The LightningModule that trains and evaluates a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer
from torchmetrics import Metric

from lit_core.data.stream import IGNORED
from lit_core.errors import UserError, check_at_least, require
from lit_core.lightning.optimizers import OptimizerCallable, SchedulerCallable, build_optimizers, parameter_names
from lit_core.lightning.step_logging import log_step
from lit_core.lightning.task import EvaluationTask
from lit_core.origin import described, to_be_filled
from lit_core.seeds import part_seed
from lit_valuation.batches import as_batch, batch_sizes
from lit_valuation.metrics import ClassifierScores, class_numbers
from lit_valuation.samples import as_inputs

NetworkCallable = Callable[[Sequence[int], int], nn.Module]


#: What to look at in TensorBoard.
_LOOK_AT = {
    "Does it learn the hard cases?": "`val/hard/accuracy` rises while `val/usual/accuracy` stays, where the "
    "data have these groups; `val/{source}/hard_accuracy` is that of the hard classes.",
    "Which samples does it choose?": "Where the callback GradientMatching chooses: "
    "`train/selection/relative_residual` is 0 for a perfect match and 1 for none; the pictures "
    "`train/selection/samples` show some of them.",
}


def sgd(params: Iterable[Any]) -> Optimizer:
    """Return SGD with learning rate 0.05, momentum 0.9 and weight decay 1e-4."""
    return SGD(params, lr=0.05, momentum=0.9, weight_decay=1e-4)


class ClassifierTask(EvaluationTask):
    """Trains a classifier of images, tables or embeddings, whose last layer should be linear.

    The loss of an optimizer step is the mean cross-entropy of its samples, over micro-batches and devices, each
    multiplied by its ``weight`` if the batch has weights, whose mean over the set is 1. Weight decay does not apply to
    norms and biases. The schedule steps with the optimizer. Batches are mappings with ``x``, ``y`` and optionally
    ``weight`` and ``index``, or pairs ``(x, y)``. Rows with an ``index`` of -1 only pad a batch, rows with a label of
    -100 are not scored; neither count in anything.

    ======================================  ======  =================================================================
    key                                     unit    moment
    ======================================  ======  =================================================================
    ``train/loss``                          nats    logged step; weighted and smoothed, mean over the global batch
    ``train/accuracy``                      0 to 1  same; before the step
    ``train/learning_rate``                 1       same; rate of this step
    ``train/gradient_norm``                 1       same; before clipping
    ``{stage}/{source}/loss``               nats    end of a validation or test, over the whole set; no smoothing
    ``{stage}/{source}/accuracy``           0 to 1  same
    ``{stage}/{source}/hard_accuracy``      0 to 1  same; over the samples of the hard classes, if there are any
    ``{stage}/{source}/recall/{class}``     0 to 1  same; of each hard class
    ======================================  ======  =================================================================

    ``{stage}`` is ``val`` or ``test``, ``{source}`` the name of the validation or test set.

    Args:
        network: Class and arguments of a network that takes the shape of one sample and the number of classes as its
            first arguments; these come from the data. Or any module, with all its arguments, that maps a batch to
            logits.
        classes: Names of the classes, in the order of their indices; linked to the data.
        input_shape: Shape of one sample; linked to the data.
        optimizer: Class and arguments of the optimizer; its weight decay does not apply to norms and biases.
        scheduler: Class and arguments of the learning-rate schedule, stepped once per optimizer step; None is a
            constant rate.
        label_smoothing: Share of each label that is spread over all classes in training, from 0 to below 1.
        hard_classes: Names of the classes whose recall is logged; None logs none.
        augmentation: Changes each training sample by itself, such as a random transform of torchvision: a module that
            takes and returns one sample, images as floats in [0, 1]. Nothing else sees what it returns. None changes
            nothing.
        seed: Seed of the initial weights, 0 or more; None takes that of the run. A module has weights already and needs
            none.

    Attributes:
        takes_weights: Tells `GradientMatching` that batches may have ``weight``.
    """

    takes_weights = True
    answers = ("train/loss", "val/[^/]+/(hard_)?accuracy")

    def __init__(
        self,
        network: nn.Module | NetworkCallable,
        classes: Sequence[str],
        input_shape: Sequence[int],
        optimizer: OptimizerCallable = sgd,
        scheduler: SchedulerCallable | None = None,
        label_smoothing: float = 0.0,
        hard_classes: list[str] | None = None,
        augmentation: nn.Module | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise UserError(
                f"`label_smoothing` is {label_smoothing}, but must be a share of each label; give 0 to below 1."
            )
        for size in input_shape:
            check_at_least(1, input_shape=size)
        self.classes, self.input_shape = tuple(classes), tuple(int(size) for size in input_shape)
        for name in self.classes:
            require(isinstance(name, str), "classes", f"{list(self.classes)}", "names; a number needs quotes")
        self.hard_classes = tuple(class_numbers(self.classes, hard_classes or ()))
        self.optimizer, self.scheduler, self.label_smoothing = optimizer, scheduler, label_smoothing
        self.augmentation = augmentation
        self._window: list[Tensor] = []
        if isinstance(network, nn.Module):
            self.network = network
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(part_seed(seed))
                self.network = to_be_filled(network, 2)(self.input_shape, self.n_classes)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def main_parts(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    def setup(self, stage: str) -> None:
        """Check that the data have the classes of the model.

        Raises:
            UserError: If they have not.
        """
        of_data = getattr(getattr(self.trainer, "datamodule", None), "classes", None)
        if of_data is not None and tuple(of_data) != self.classes:
            raise UserError(
                f"The data have the classes {', '.join(of_data)}, but the model has {', '.join(self.classes)}; train "
                "and test on data of the same classes in the same order."
            )

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with one parameter group with and one without weight decay, and its schedule."""
        return build_optimizers(self, self.optimizer, self.scheduler)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits.

        Args:
            x: Inputs ``(batch, ...)``; uint8 images are scaled to [0, 1].

        Returns:
            Logits ``(batch, classes)``, in float32 or higher precision, whatever the precision of the weights.
        """
        logits: Tensor = self.network(as_inputs(x).to(self.dtype))
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch in nats."""
        samples = as_batch(batch)
        logits = self(self._augmented(samples.x))
        scored = samples.scored()
        y = samples.y.where(scored, IGNORED)
        nll = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing, reduction="none")
        loss = (nll if samples.weight is None else nll * samples.weight.to(nll)).sum()
        correct = (logits.detach().argmax(1) == y).sum()
        n_scored = scored.sum()
        self._window.append(torch.stack([loss.detach(), correct, n_scored]))
        return self.step_loss(loss / n_scored.clamp(min=1), n_scored)

    def _augmented(self, x: Tensor) -> Tensor:
        if self.augmentation is None:
            return x
        inputs = as_inputs(x)
        changed = torch.stack([self.augmentation(one) for one in inputs])
        if changed.shape != inputs.shape:
            raise UserError(
                f"`augmentation` is {type(self.augmentation).__name__}, which returns samples of the shape "
                f"{tuple(changed.shape[1:])}, but they are {tuple(inputs.shape[1:])}; give one that keeps the shape."
            )
        return changed

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return ``index`` (None if not known), predicted ``classes`` by name, and ``probabilities`` of a batch."""
        samples = as_batch(batch)
        real = samples.real()
        probabilities = self(samples.x).softmax(1)[real]
        index = None if samples.index is None else samples.index[real]
        names = [self.classes[c] for c in probabilities.argmax(1).tolist()]
        return {"index": index, "classes": names, "probabilities": probabilities}

    def on_train_start(self) -> None:
        """Write hyperparameters and chart layout to TensorBoard."""
        super().on_train_start()
        self._window = []
        charts = {"accuracy": ["val/[^/]*/accuracy"], "training loss": ["train/loss"]}
        if self.hard_classes:
            charts |= {"hard classes": ["val/.*/hard_accuracy"], "recall": ["val/.*/recall/.*"]}
        self.show_run(
            {"Does it learn the hard cases?": charts},
            _LOOK_AT,
        )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the means over the whole global batch of the step."""
        window, self._window = self._window, []
        log_step(self, optimizer, window)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add class names, input shape, recipe and parameter names as plain values, for others that use the weights."""
        checkpoint["classes"], checkpoint["input_shape"] = list(self.classes), list(self.input_shape)
        sizes = batch_sizes(self.trainer)
        if sizes is not None:
            clipping = ("gradient_clip_val", "gradient_clip_algorithm")
            given = {key: getattr(self.trainer, key) for key in clipping}
            checkpoint["recipe"] = {
                "batch_size": sizes["global_batch_size"],
                **{key: plain for key, value in given.items() if (plain := described(value)) is not None},
            }
        checkpoint["optimizer_param_names"] = parameter_names(self, self.trainer.optimizers)
        super().on_save_checkpoint(checkpoint)  # at the end, since it signs what the checkpoint describes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint has the classes of the model, in the same order.

        Raises:
            UserError: If it has others.
        """
        super().on_load_checkpoint(checkpoint)
        of_checkpoint = tuple(checkpoint.get("classes", self.classes))
        if of_checkpoint != self.classes:
            raise UserError(
                f"The checkpoint was trained on the classes {', '.join(of_checkpoint)}, but the data have "
                f"{', '.join(self.classes)}; use data of the same classes in the same order."
            )

    def evaluate_batch(self, stage: str, batch: Any, dataloader_idx: int) -> None:
        """Score a batch of a source."""
        samples = as_batch(batch)
        scored = samples.scored()
        logits, y = self(samples.x)[scored], samples.y[scored]
        _, metric = self.source_metric(
            stage, dataloader_idx, lambda dtype: ClassifierScores(self.classes, self.hard_classes, dtype)
        )
        metric.update(F.cross_entropy(logits, y, reduction="none"), logits.argmax(1), y)

    def source_values(self, stage: str, source: str, metric: Metric) -> Mapping[str, Tensor | float]:
        """Return the scores of a source."""
        return metric.compute()
