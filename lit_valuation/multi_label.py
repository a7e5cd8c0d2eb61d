"""The LightningModule that trains and evaluates a model of several labels per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_core.lightning.optimizers import OptimizerCallable, SchedulerCallable
from lit_valuation.batches import as_batch
from lit_valuation.metrics import MultiLabelScores
from lit_valuation.task import WHICH_SAMPLES, NetworkCallable, SampleTask, sgd

#: What to look at in TensorBoard.
_LOOK_AT = {
    "Does it learn the labels?": "`val/{source}/f1_macro` rises: the mean over the labels, in which rare labels count "
    "as much as frequent ones; `accuracy` is high already where most labels are absent.",
    "Which samples does it choose?": WHICH_SAMPLES,
}


class MultiLabelTask(SampleTask):
    """Trains a model that predicts for each of several labels whether a sample has it. Its last layer is linear.

    The loss of a sample is the binary cross-entropy, summed over the labels; a label is predicted where its probability
    is above 0.5. Otherwise training is that of `ClassifierTask`. Batches have ``y`` of 0 and 1, float32 of shape
    ``(batch, labels)``.

    ======================================  ======  =================================================================
    key                                     unit    moment
    ======================================  ======  =================================================================
    ``train/loss``                          nats    logged step; weighted, mean over the global batch
    ``train/accuracy``                      0 to 1  same; share of right labels, before the step
    ``train/learning_rate``                 1       same; rate of this step
    ``train/gradient_norm``                 1       same; before clipping
    ``{stage}/{source}/loss``               nats    end of a validation or test, over the whole set
    ``{stage}/{source}/accuracy``           0 to 1  same; share of right labels
    ``{stage}/{source}/exact_match``        0 to 1  same; share of samples whose labels are all right
    ``{stage}/{source}/f1_micro``           0 to 1  same; over all labels together
    ``{stage}/{source}/f1_macro``           0 to 1  same; mean over the labels that are present or predicted
    ======================================  ======  =================================================================

    ``{stage}`` is ``val`` or ``test``, ``{source}`` the name of the validation or test set.

    Args:
        network: Class and arguments of a network that takes the shape of one sample and the number of labels as its
            first arguments; these come from the data. Or any module, with all its arguments, that maps a batch to
            logits.
        classes: Names of the labels, in the order of their columns; linked to the data.
        input_shape: Shape of one sample; linked to the data.
        optimizer: Class and arguments of the optimizer; its weight decay does not apply to norms and biases.
        scheduler: Class and arguments of the learning-rate schedule, stepped once per optimizer step; None is a
            constant rate.
        augmentation: Changes each training sample by itself: a module that takes and returns one sample, images as
            floats in [0, 1]. Nothing else sees what it returns. None changes nothing.
        seed: Seed of the initial weights, 0 or more; None takes that of the run. A module has weights already and needs
            none.
    """

    loss, target, logged = "logistic", "labels", "accuracy"
    answers = ("train/loss", "val/[^/]+/(f1_macro|accuracy)")

    def __init__(
        self,
        network: nn.Module | NetworkCallable,
        classes: Sequence[str],
        input_shape: Sequence[int],
        optimizer: OptimizerCallable = sgd,
        scheduler: SchedulerCallable | None = None,
        augmentation: nn.Module | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(network, classes, input_shape, optimizer, scheduler, augmentation, seed)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return ``index`` (None if not known), and the ``probabilities`` of the labels of a batch."""
        samples = as_batch(batch)
        real = samples.real()
        index = None if samples.index is None else samples.index[real]
        return {"index": index, "probabilities": self(samples.x).sigmoid()[real]}

    def on_train_start(self) -> None:
        """Write hyperparameters and chart layout to TensorBoard."""
        super().on_train_start()
        charts = {"F1": ["val/[^/]*/f1_.*"], "training loss": ["train/loss"]}
        self.show_run({"Does it learn the labels?": charts}, _LOOK_AT)

    def new_scores(self, dtype: torch.dtype) -> MultiLabelScores:
        """Return the metric of a source, empty."""
        return MultiLabelScores(self.classes, dtype)

    def update_scores(self, metric: MultiLabelScores, losses: Tensor, outputs: Tensor, y: Tensor) -> None:
        """Add samples to the metric of a source."""
        metric.update(losses, outputs > 0, y)
