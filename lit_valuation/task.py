"""The base of the LightningModules that learn targets of samples through a linear last layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torchmetrics import Metric

from lit_core.data.stream import IGNORED
from lit_core.errors import UserError, check_at_least, require
from lit_core.lightning.optimizers import OptimizerCallable, SchedulerCallable, build_optimizers, parameter_names
from lit_core.lightning.same_function import built_from
from lit_core.lightning.step_logging import log_step
from lit_core.lightning.task import EvaluationTask
from lit_core.origin import described, to_be_filled
from lit_core.seeds import part_seed
from lit_valuation.batches import Batch, as_batch, batch_sizes
from lit_valuation.functional.gradients import Loss
from lit_valuation.functional.losses import sample_losses, sample_scores
from lit_valuation.samples import NAMED, Target, as_inputs

NetworkCallable = Callable[[Sequence[int], int], nn.Module]

#: What to look at in TensorBoard where a callback chooses samples.
WHICH_SAMPLES = (
    "Where the callback GradientMatching chooses: `train/selection/relative_residual` is 0 for a perfect match and 1 "
    "for none; the pictures `train/selection/samples` show some of them."
)

#: The task of each kind of target.
TASKS: Mapping[Target, str] = {
    "class": "ClassifierTask",
    "labels": "MultiLabelTask",
    "values": "RegressionTask",
    "tags": "TaggingTask",
    "text": "a language model of your own, which you train with Lightning",
}


#: Arguments of networks that come from the data, or on which only initial weights depend.
_IDLE = {"input_shape", "n_classes", "pretrained", "weights"}


def sgd(params: Iterable[Any]) -> Optimizer:
    """Return SGD with learning rate 0.05, momentum 0.9 and weight decay 1e-4."""
    return SGD(params, lr=0.05, momentum=0.9, weight_decay=1e-4)


class SampleTask(EvaluationTask):
    """Base of `ClassifierTask`, `MultiLabelTask`, `RegressionTask` and `TaggingTask`.

    A subclass names its loss and the kind of its targets, and defines `new_scores` and `update_scores`. What a training
    is, and what the arguments mean, is said there.

    Attributes:
        loss: The loss of the outputs, as `functional.gradients` names it.
        target: Kind of the targets.
        label_smoothing: Label smoothing of the loss in training.
        takes_weights: Tells `GradientMatching` that batches may have ``weight``.
        logged: Name of a sample's score in training, logged as ``train/{logged}``; None logs none.
        of_function: Arguments that must stay as long as the weights do; see `function_arguments`.
    """

    loss: ClassVar[Loss]
    target: ClassVar[Target]
    label_smoothing: float = 0.0
    takes_weights = True
    logged: ClassVar[str | None] = None
    of_function: ClassVar[tuple[str, ...]] = ("network",)

    def __init__(
        self,
        network: nn.Module | NetworkCallable,
        classes: Sequence[str],
        input_shape: Sequence[int],
        optimizer: OptimizerCallable,
        scheduler: SchedulerCallable | None,
        augmentation: nn.Module | None,
        seed: int | None,
    ) -> None:
        super().__init__()
        for size in input_shape:
            check_at_least(1, input_shape=size)
        self.classes, self.input_shape = tuple(classes), tuple(int(size) for size in input_shape)
        for name in self.classes:
            require(isinstance(name, str), "classes", f"{list(self.classes)}", "names; a number needs quotes")
        self.optimizer, self.scheduler, self.augmentation = optimizer, scheduler, augmentation
        self._window: list[Tensor] = []
        if isinstance(network, nn.Module):
            self.network = network
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(part_seed(seed))
                self.network = to_be_filled(network, 2)(self.input_shape, self.n_classes)

    def new_scores(self, dtype: torch.dtype) -> Metric:
        """Return the metric of a source, empty.

        Args:
            dtype: Number format of its sums.
        """
        raise NotImplementedError(f"{type(self).__name__} must define new_scores.")

    def update_scores(self, metric: Any, losses: Tensor, outputs: Tensor, y: Tensor) -> None:
        """Add samples to the metric of a source.

        Args:
            metric: The metric, as `new_scores` returns it.
            losses: Loss of each sample without smoothing, ``(batch,)``.
            outputs: Outputs of the model, ``(batch, k)``.
            y: Targets of the samples.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update_scores.")

    def wanted_outputs(self, y: Tensor) -> Tensor:
        """Return what the loss compares the outputs with: the targets, unless a subclass scales them."""
        return y

    def losses(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the loss of each sample, ``(batch,)``."""
        return sample_losses(outputs, self.wanted_outputs(y), self.loss, label_smoothing)

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return how well each sample is predicted, ``(batch,)``; see `sample_scores`."""
        return sample_scores(outputs, self.wanted_outputs(y), self.loss)

    @property
    def n_classes(self) -> int:
        """Number of outputs: of classes, labels, tags or target columns."""
        return len(self.classes)

    @property
    def main_parts(self) -> list[nn.Module]:
        """The network."""
        return [self.network]

    def setup(self, stage: str) -> None:
        """Check that the data have the kind of targets and the classes of the model.

        Raises:
            UserError: If they have not.
        """
        data = getattr(self.trainer, "datamodule", None)
        kind, of_data, named = getattr(data, "target", None), getattr(data, "classes", None), NAMED[self.target]
        if kind is not None and kind != self.target:
            raise UserError(
                f"The data have the target {kind}, but {type(self).__name__} learns {self.target}; set model to "
                f"{TASKS[kind]}."
            )
        if of_data is not None and tuple(of_data) != self.classes:
            raise UserError(
                f"The data have the {named} {', '.join(of_data)}, but the model has {', '.join(self.classes)}; train "
                f"and test on data of the same {named} in the same order."
            )

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with one parameter group with and one without weight decay, and its schedule."""
        return build_optimizers(self, self.optimizer, self.scheduler)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the outputs of the network: logits of classes or labels, or scaled values.

        Args:
            x: Inputs ``(batch, ...)``; uint8 images are scaled to [0, 1], token ids stay.

        Returns:
            Outputs ``(batch, k)``, in float32 or higher precision, whatever the precision of the weights.
        """
        inputs = as_inputs(x)
        outputs: Tensor = self.network(inputs.to(self.dtype) if inputs.is_floating_point() else inputs)
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch."""
        samples = as_batch(batch)
        outputs = self(self._augmented(samples.x))
        scored = samples.scored()
        losses = self._losses(outputs, samples, scored, self.label_smoothing)
        loss = (losses if samples.weight is None else losses * samples.weight.to(losses)).sum()
        score = self.scores(outputs.detach(), samples.y)[scored].sum()
        n_scored = scored.sum()
        self._window.append(torch.stack([loss.detach(), score.to(loss), n_scored.to(loss)]))
        return self.step_loss(loss / n_scored.clamp(min=1), n_scored)

    def _losses(self, outputs: Tensor, samples: Batch, scored: Tensor, label_smoothing: float) -> Tensor:
        """Return the loss of each row, 0 for rows that are not scored."""
        y = samples.y.where(scored, IGNORED) if self.target == "class" else samples.y
        return self.losses(outputs, y, label_smoothing).where(scored, 0.0)

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

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the means over the whole global batch of the step."""
        window, self._window = self._window, []
        log_step(self, optimizer, window, self.logged)

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
        """Check that the checkpoint has the classes of the model, in the same order, and was trained in its network.

        Raises:
            UserError: If it has others, or a run is resumed with arguments of another function.
        """
        super().on_load_checkpoint(checkpoint)
        of_checkpoint = tuple(checkpoint.get("classes", self.classes))
        if of_checkpoint != self.classes:
            raise UserError(
                f"The checkpoint was trained on the {NAMED[self.target]} {', '.join(of_checkpoint)}, but the data have "
                f"{', '.join(self.classes)}; use data of the same {NAMED[self.target]} in the same order."
            )

    def function_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the class and arguments of the network, and others in `of_function`; see the base class."""
        known = [name for name in self.of_function if name in arguments]
        return {key: value for name in known for key, value in built_from(arguments[name], name, _IDLE).items()}

    def evaluate_batch(self, stage: str, batch: Any, dataloader_idx: int) -> None:
        """Score a batch of a source."""
        samples = as_batch(batch)
        scored = samples.scored()
        outputs, y = self(samples.x)[scored], samples.y[scored]
        _, metric = self.source_metric(stage, dataloader_idx, self.new_scores)
        self.update_scores(metric, self.losses(outputs, y), outputs, y)

    def source_values(self, stage: str, source: str, metric: Metric) -> Mapping[str, Tensor | float]:
        """Return the scores of a source."""
        return metric.compute()
