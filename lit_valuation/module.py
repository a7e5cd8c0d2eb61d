"""The LightningModule that trains and evaluates a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.lightning.optimizers import OptimizerCallable, SchedulerCallable
from lit_valuation.batches import as_batch
from lit_valuation.metrics import ClassifierScores, class_numbers
from lit_valuation.task import WHICH_SAMPLES, NetworkCallable, SampleTask, sgd

#: What to look at in TensorBoard.
_LOOK_AT = {
    "Does it learn the hard cases?": "`val/hard/accuracy` rises while `val/usual/accuracy` stays, where the "
    "data have these groups; `val/{source}/hard_accuracy` is that of the hard classes.",
    "Which samples does it choose?": WHICH_SAMPLES,
}


class ClassifierTask(SampleTask):
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
    """

    loss, target, logged = "cross_entropy", "class", "accuracy"
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
        if not 0 <= label_smoothing < 1:
            raise UserError(
                f"`label_smoothing` is {label_smoothing}, but must be a share of each label; give 0 to below 1."
            )
        super().__init__(network, classes, input_shape, optimizer, scheduler, augmentation, seed)
        self.label_smoothing = label_smoothing
        self.hard_classes = tuple(class_numbers(self.classes, hard_classes or ()))

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
        charts = {"accuracy": ["val/[^/]*/accuracy"], "training loss": ["train/loss"]}
        if self.hard_classes:
            charts |= {"hard classes": ["val/.*/hard_accuracy"], "recall": ["val/.*/recall/.*"]}
        self.show_run(
            {"Does it learn the hard cases?": charts},
            _LOOK_AT,
        )

    def new_scores(self, dtype: torch.dtype) -> ClassifierScores:
        """Return the metric of a source, empty."""
        return ClassifierScores(self.classes, self.hard_classes, dtype)

    def update_scores(self, metric: ClassifierScores, losses: Tensor, outputs: Tensor, y: Tensor) -> None:
        """Add samples to the metric of a source."""
        metric.update(losses, outputs.argmax(1), y)
