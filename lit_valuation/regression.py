"""The LightningModule that trains and evaluates a model of one or more numbers per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from lit_core.errors import UserError, check_above, check_finite_numbers
from lit_core.lightning.optimizers import OptimizerCallable, SchedulerCallable
from lit_valuation.batches import as_batch
from lit_valuation.metrics import RegressionScores
from lit_valuation.task import WHICH_SAMPLES, NetworkCallable, SampleTask, sgd

#: What to look at in TensorBoard.
_LOOK_AT = {
    "Does it learn the values?": "`val/{source}/r2` rises: 1 explains everything, 0 is no better than the mean; "
    "`val/{source}/rmse/{column}` is in the unit of the column.",
    "Which samples does it choose?": WHICH_SAMPLES,
}


class RegressionTask(SampleTask):
    """Trains a model that predicts one or more numbers of a sample. Its last layer is linear.

    The outputs are in standard deviations of the training set, from its mean, so that a learning rate does not depend
    on the unit of a column. The loss of a sample is half the squared error of the outputs, summed over the columns.
    Otherwise training is that of `ClassifierTask`. Batches have ``y``, finite float32 of shape ``(batch, columns)``, in
    the unit of the columns.

    ======================================  ======  =================================================================
    key                                     unit    moment
    ======================================  ======  =================================================================
    ``train/loss``                          1       logged step; weighted, mean over the global batch
    ``train/learning_rate``                 1       same; rate of this step
    ``train/gradient_norm``                 1       same; before clipping
    ``{stage}/{source}/loss``               1       end of a validation or test, over the whole set
    ``{stage}/{source}/r2``                 to 1    same; share of the set's variance that is explained, mean over
                                                    the columns
    ``{stage}/{source}/r2/{column}``        to 1    same; of each column
    ``{stage}/{source}/rmse/{column}``      column  same; root of the mean squared error
    ``{stage}/{source}/mae/{column}``       column  same; mean absolute error
    ======================================  ======  =================================================================

    ``{stage}`` is ``val`` or ``test``, ``{source}`` the name of the validation or test set.

    Args:
        network: Class and arguments of a network that takes the shape of one sample and the number of target columns as
            its first arguments; these come from the data. Or any module, with all its arguments, that maps a batch to
            scaled values.
        classes: Names of the target columns, in their order; linked to the data.
        input_shape: Shape of one sample; linked to the data.
        optimizer: Class and arguments of the optimizer; its weight decay does not apply to norms and biases.
        scheduler: Class and arguments of the learning-rate schedule, stepped once per optimizer step; None is a
            constant rate.
        target_mean: Value of each column at which an output is 0; None takes the mean of the training set.
        target_scale: Size of one unit of each output in that of the column, above 0; None takes the standard deviation
            of the training set.
        augmentation: Changes each training sample by itself: a module that takes and returns one sample, images as
            floats in [0, 1]. Nothing else sees what it returns. None changes nothing.
        seed: Seed of the initial weights, 0 or more; None takes that of the run. A module has weights already and needs
            none.
    """

    loss, target = "squared", "values"
    answers = ("train/loss", "val/[^/]+/r2")
    target_mean: Tensor
    target_scale: Tensor

    def __init__(
        self,
        network: nn.Module | NetworkCallable,
        classes: Sequence[str],
        input_shape: Sequence[int],
        optimizer: OptimizerCallable = sgd,
        scheduler: SchedulerCallable | None = None,
        target_mean: Sequence[float] | None = None,
        target_scale: Sequence[float] | None = None,
        augmentation: nn.Module | None = None,
        seed: int | None = None,
    ) -> None:
        for value in () if target_mean is None else target_mean:
            check_finite_numbers(target_mean=value)
        for value in () if target_scale is None else target_scale:
            check_above(0, target_scale=value)
        super().__init__(network, classes, input_shape, optimizer, scheduler, augmentation, seed)
        given = {"target_mean": target_mean, "target_scale": target_scale}
        for name, values in given.items():
            if values is not None and len(values) != self.n_classes:
                raise UserError(
                    f"`{name}` has {len(values)} values, but there are {self.n_classes} target columns; give one each."
                )
            known = [float("nan")] * self.n_classes if values is None else [float(value) for value in values]
            self.register_buffer(name, torch.tensor(known))

    def setup(self, stage: str) -> None:
        """Check the data, and take mean and scale of the targets from the training set where they are not given.

        Raises:
            UserError: If the data have other targets, or do not tell their mean and scale.
        """
        super().setup(stage)
        if stage != "fit" or bool((self.target_mean + self.target_scale).isfinite().all()):
            return
        tell = getattr(getattr(self.trainer, "datamodule", None), "target_statistics", None)
        if tell is None:
            raise UserError(
                "`target_mean` and `target_scale` are null, but the data have no target_statistics; give both, or a "
                "data module with a method target_statistics that returns mean and standard deviation of each column."
            )
        for buffer, values in zip((self.target_mean, self.target_scale), tell(), strict=True):
            buffer.copy_(torch.where(buffer.isfinite(), buffer, torch.as_tensor(values).to(buffer)))

    def wanted_outputs(self, y: Tensor) -> Tensor:
        """Return targets in standard deviations of the training set, from its mean."""
        return (y.float() - self.target_mean.float()) / self.target_scale.float()

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return ``index`` (None if not known), and the ``values`` of a batch in the units of the columns."""
        samples = as_batch(batch)
        real = samples.real()
        index = None if samples.index is None else samples.index[real]
        return {"index": index, "values": (self(samples.x) * self.target_scale + self.target_mean)[real]}

    def on_train_start(self) -> None:
        """Write hyperparameters and chart layout to TensorBoard."""
        super().on_train_start()
        charts = {"r2": ["val/[^/]*/r2"], "training loss": ["train/loss"], "error": ["val/[^/]*/rmse/.*"]}
        self.show_run({"Does it learn the values?": charts}, _LOOK_AT)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add mean and scale of the targets as plain values, so that trainings with answers have the same."""
        for name in ("target_mean", "target_scale"):
            checkpoint[name] = getattr(self, name).tolist()
        super().on_save_checkpoint(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that mean and scale of the targets are those of the checkpoint, whose weights bring theirs along.

        Raises:
            UserError: If others are given.
        """
        super().on_load_checkpoint(checkpoint)
        for name in ("target_mean", "target_scale"):
            given, theirs = self.hparams.get(name), checkpoint.get(name)
            if given is not None and theirs is not None and _rounded(given) != _rounded(theirs):
                raise UserError(
                    f"`{name}` is {list(given)}, but the weights of the checkpoint predict in units of {theirs}, which "
                    "they keep; leave it out, or train anew."
                )

    def new_scores(self, dtype: torch.dtype) -> RegressionScores:
        """Return the metric of a source, empty."""
        return RegressionScores(self.classes, dtype)

    def update_scores(self, metric: RegressionScores, losses: Tensor, outputs: Tensor, y: Tensor) -> None:
        """Add samples to the metric of a source."""
        metric.update(losses, outputs, self.wanted_outputs(y))

    def source_values(self, stage: str, source: str, metric: Metric) -> Mapping[str, Tensor | float]:
        """Return the scores of a source, errors in the units of the columns."""
        values = dict(metric.compute())
        for column, scale in zip(self.classes, self.target_scale.tolist(), strict=True):
            for name in ("rmse", "mae"):
                values[f"{name}/{column}"] = values[f"{name}/{column}"] * scale
        return values


def _rounded(values: Sequence[float]) -> list[float]:
    """Return values as a buffer holds them."""
    return torch.tensor([float(value) for value in values]).tolist()
