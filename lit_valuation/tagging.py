"""The LightningModule that trains and evaluates a model of a tag per token (sequence labelling)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lit_core.data.stream import IGNORED
from lit_core.errors import require
from lit_core.lightning.optimizers import OptimizerCallable, SchedulerCallable
from lit_valuation.batches import as_batch
from lit_valuation.functional.losses import token_accuracies, token_losses
from lit_valuation.functional.token_gradients import Positions
from lit_valuation.metrics import TaggingScores, class_numbers
from lit_valuation.task import WHICH_SAMPLES, NetworkCallable, SampleTask, sgd

#: What to look at in TensorBoard.
_LOOK_AT = {
    "Does it learn the tags?": "`val/{source}/f1_macro` rises: the mean over the tags, in which rare tags count as "
    "much as frequent ones; `accuracy` is high already where most tokens have one tag.",
    "Which samples does it choose?": WHICH_SAMPLES,
}


class TaggingTask(SampleTask):
    """Trains a model that predicts a tag for each token of a text. Its last layer is linear and sees each token.

    The loss of a text is the cross-entropy of its tokens, their mean or sum; a token whose tag is -100 does not count.
    Otherwise training is that of `ClassifierTask`. Batches have ``x``, token ids with -1 after the last, and ``y``, the
    indices of the tags, both int64 of shape ``(batch, length)``.

    ======================================  ======  =================================================================
    key                                     unit    moment
    ======================================  ======  =================================================================
    ``train/loss``                          nats    logged step; weighted, mean over the texts of the global batch
    ``train/accuracy``                      0 to 1  same; mean over the texts of their share of right tags
    ``train/learning_rate``                 1       same; rate of this step
    ``train/gradient_norm``                 1       same; before clipping
    ``{stage}/{source}/loss``               nats    end of a validation or test, mean over all tokens of the set
    ``{stage}/{source}/accuracy``           0 to 1  same; share of right tags
    ``{stage}/{source}/f1_macro``           0 to 1  same; mean over the tags that are present or predicted
    ``{stage}/{source}/hard_accuracy``      0 to 1  same; over the tokens of the hard tags, if there are any
    ``{stage}/{source}/recall/{class}``     0 to 1  same; of each hard tag
    ======================================  ======  =================================================================

    ``{stage}`` is ``val`` or ``test``, ``{source}`` the name of the validation or test set.

    Args:
        network: Class and arguments of a network that takes the shape of one sample and the number of tags as its first
            arguments; these come from the data. Or any module, with all its arguments, that maps a batch of token ids
            to logits of each token.
        classes: Names of the tags, in the order of their indices; linked to the data.
        input_shape: Shape of one sample, its length; linked to the data.
        optimizer: Class and arguments of the optimizer; its weight decay does not apply to norms and biases.
        scheduler: Class and arguments of the learning-rate schedule, stepped once per optimizer step; None is a
            constant rate.
        positions: Whether the loss of a text, and its gradient where samples are selected, is the mean over its tokens
            or their sum.
        hard_classes: Names of the tags whose recall is logged; None logs none.
        seed: Seed of the initial weights, 0 or more; None takes that of the run. A module has weights already and needs
            none.
    """

    loss, target, logged = "cross_entropy", "tags", "accuracy"
    answers = ("train/loss", "val/[^/]+/(f1_macro|accuracy)")
    of_function = ("network", "positions")

    def __init__(
        self,
        network: nn.Module | NetworkCallable,
        classes: Sequence[str],
        input_shape: Sequence[int],
        optimizer: OptimizerCallable = sgd,
        scheduler: SchedulerCallable | None = None,
        positions: Positions = "mean",
        hard_classes: list[str] | None = None,
        seed: int | None = None,
    ) -> None:
        require(positions in get_args(Positions), "positions", positions, "mean or sum")
        super().__init__(network, classes, input_shape, optimizer, scheduler, None, seed)
        self.positions: Positions = positions
        self.hard_classes = tuple(class_numbers(self.classes, hard_classes or ()))

    def losses(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Return the loss of each text, ``(batch,)``."""
        return token_losses(outputs, y, self.positions, label_smoothing)

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the share of right tags of each text, ``(batch,)``."""
        return token_accuracies(outputs, y)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return ``index`` (None if not known), and ``tags``, indices ``(batch, length)`` with -100 at no token."""
        samples = as_batch(batch)
        real = samples.real()
        index = None if samples.index is None else samples.index[real]
        return {"index": index, "tags": self(samples.x).argmax(2).where(samples.x >= 0, IGNORED)[real]}

    def on_train_start(self) -> None:
        """Write hyperparameters and chart layout to TensorBoard."""
        super().on_train_start()
        charts = {name: [f"val/[^/]*/{name}"] for name in ("f1_macro", "accuracy")} | {"training loss": ["train/loss"]}
        self.show_run({"Does it learn the tags?": charts}, _LOOK_AT)

    def new_scores(self, dtype: torch.dtype) -> TaggingScores:
        """Return the metric of a source, empty."""
        return TaggingScores(self.classes, self.hard_classes, dtype)

    def update_scores(self, metric: TaggingScores, losses: Tensor, outputs: Tensor, y: Tensor) -> None:
        """Add the tokens of texts to the metric of a source."""
        counted = y != IGNORED
        of_tokens = nn.functional.cross_entropy(outputs[counted], y[counted], reduction="none")
        metric.update(of_tokens, outputs.argmax(2)[counted], y[counted])
