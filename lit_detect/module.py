"""The LightningModule of detectors: it trains or fits one, evaluates it and predicts with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer
from torchmetrics import Metric

from lit_core.data.stream import IGNORED
from lit_core.errors import UserError, check_at_least
from lit_core.lightning.checkpoint import data_argument
from lit_core.lightning.exact_buffers import ExactBuffers
from lit_core.lightning.internals import trainer_of
from lit_core.lightning.optimizers import OptimizerCallable, SchedulerCallable, build_optimizers, parameter_names
from lit_core.lightning.same_function import built_from, check_same_function
from lit_core.lightning.step_logging import log_step
from lit_core.lightning.task import EvaluationTask
from lit_core.screen import rank_zero_warn
from lit_detect.calibration import Calibration
from lit_detect.detectors import Detector, TrainedDetector, ZeroShotDetector
from lit_detect.detectors.normalization import with_normalization
from lit_detect.fitting import TrainingSetFit
from lit_detect.functional.calibration import Platt
from lit_detect.golden import check_scores_stand
from lit_detect.judging import MIN_TOKENS, Judge, Judgement
from lit_detect.metrics import DetectionScores, breakdown
from lit_detect.records import HUMAN, MACHINE
from lit_detect.text_lengths import TextLengths

#: What to look at in TensorBoard.
_LOOK_AT = {
    "Does it tell them apart?": "`val/{source}/auroc` is 1 for a perfect detector and 0.5 for chance.",
    "Who is called a machine wrongly?": "`val/{source}/recall/human` is the share of human texts that are "
    "left alone at the detector's threshold; all others are called machine.",
    "Does it hold under attack?": "Where the callback RobustnessMonitor attacks: "
    "`val/{source}/attack/{name}/evasion` is the share of the found texts that are not found any more.",
}

#: Arguments of detectors on which only initial weights or the speed depend.
_IDLE = {"reinit_layers", "batch_tokens"}


def adamw(params: Iterable[Any]) -> Optimizer:
    """Return AdamW with a learning rate of 5e-5 and weight decay 1e-4, as the paper's released code fine-tunes."""
    return AdamW(params, lr=5e-5, weight_decay=1e-4)


class DetectorTask(ExactBuffers, EvaluationTask):
    """Trains a detector of machine-written text and evaluates it.

    A `TrainedDetector` is trained by cross-entropy. For other detectors, one epoch of features or scores is gathered:
    a `FeatureDetector` is fitted to its features; for a zero-shot detector a logistic map from scores to probabilities
    is fitted, whose middle is the threshold; see `TrainingSetFit`. Batches are mappings with ``text``, ``y`` (0 human,
    1 machine) and ``index``; rows with an index of -1 only fill a batch up.

    =============================================  ======  ======================================================
    key                                            unit    moment
    =============================================  ======  ======================================================
    ``train/loss``                                 nats    logged step, global batch; trained detectors only
    ``train/accuracy``                             0 to 1  same; before the step
    ``train/learning_rate``                        1       same; the rate of this step
    ``train/gradient_norm``                        1       same; before clipping
    ``{stage}/{source}/loss``                      nats    end of a validation or test; of the probabilities
    ``{stage}/{source}/auroc``                     0 to 1  same; this and the following as in `DetectionScores`
    ``{stage}/{source}/tpr_at_fpr_{rate}``         0 to 1  same
    ``{stage}/{source}/achieved_fpr_{rate}``       0 to 1  same
    ``{stage}/{source}/accuracy``                  0 to 1  same
    ``{stage}/{source}/precision/{class}``         0 to 1  same
    ``{stage}/{source}/recall/{class}``            0 to 1  same
    ``{stage}/{source}/f1/{class}``                0 to 1  same
    ``{stage}/{source}/{field}/{value}/{metric}``  0 to 1  same; of each domain, generator, decoding, priming and
                                                           attack of the source where there are several
    =============================================  ======  ======================================================

    ``{stage}`` is ``val`` or ``test``, ``{source}`` the name of the loader. A validation scores the beginning of each
    text, as training reads it. A test judges texts as `Judge` does: in windows, and without those that are too short.

    Args:
        detector: The detector, by class name.
        optimizer: Class and arguments of the optimizer of a trained detector; its weight decay spares norms and biases.
        scheduler: Class and arguments of the learning-rate schedule, stepped once per optimizer step; None keeps the
            rate constant.
        min_tokens: Tokens below which a prediction abstains, 0 or more; it always abstains from a text without any.
        calibration: File of ``lit-detect calibrate`` whose human texts decide; None decides by the fitted threshold.

    Attributes:
        called_machine: Of the last evaluation by source: how many of how many human texts, and of how many machine
            texts, were called machine at the threshold that decides.
    """

    threshold: Tensor
    platt: Tensor
    answers = ("train/loss", "val/[^/]+/(auroc|recall/human)")
    exact_buffers = ("threshold", "platt")  # rounded to bfloat16 they would decide differently

    def __init__(
        self,
        detector: Detector,
        optimizer: OptimizerCallable = adamw,
        scheduler: SchedulerCallable | None = None,
        min_tokens: int = MIN_TOKENS,
        calibration: str | None = None,
    ) -> None:
        super().__init__()
        check_at_least(0, min_tokens=min_tokens)
        self.detector, self.optimizer, self.scheduler, self.min_tokens = detector, optimizer, scheduler, min_tokens
        self.calibration = None if calibration is None else Calibration.load(calibration)
        if self.calibration is not None:
            self.calibration.check(detector.name)
        self.register_buffer("threshold", torch.zeros((), dtype=torch.float64))
        self.register_buffer("platt", torch.tensor([1.0, 0.0], dtype=torch.float64))  # the score is a logit
        if not self.is_trained:  # steps are counted by an optimizer, which needs something to optimize
            self.placeholder = nn.Parameter(torch.zeros(()))
        self.called_machine: dict[str, tuple[int, int, int, int]] = {}
        self._window: list[Tensor] = []
        self._lengths = TextLengths()
        self._fit = TrainingSetFit()

    @property
    def is_trained(self) -> bool:
        """Whether the detector is trained by gradients, so that a finished fit can be continued."""
        return isinstance(self.detector, TrainedDetector)

    @property
    def main_parts(self) -> list[nn.Module]:
        """The detector."""
        return [self.detector]

    def judge(self, normalize: bool = False) -> Judge:
        """Return what judges texts by the detector as it is now.

        Args:
            normalize: Whether the detector was trained on texts with normalised Unicode, so that each is normalised.
        """
        own = self.detector
        detector = with_normalization(own).train(own.training) if normalize else own
        if self._is_new:
            return Judge(detector, None, None, self.calibration, self.min_tokens)
        platt = Platt(*self.platt.tolist())
        return Judge(detector, float(self.threshold), platt, self.calibration, self.min_tokens)

    def set_platt(self, platt: Platt) -> None:
        """Take a map from scores to probabilities, and its middle as the threshold."""
        self.platt.copy_(torch.tensor(platt))
        self.threshold.fill_(-platt.intercept / platt.slope)

    def configure_optimizers(self) -> Any:
        """Make the optimizer over two groups, with and without weight decay, and its schedule."""
        if not self.is_trained:
            return SGD([self.placeholder], lr=0.0)
        return build_optimizers(self, self.optimizer, self.scheduler)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch, or give it to the fit of a detector that needs no gradients."""
        if not isinstance(self.detector, TrainedDetector):
            platt = self._fit.add(self.trainer, self.detector, batch)
            if platt is not None:
                self.set_platt(platt)
            return 0 * self.placeholder
        logits, y = self.detector(batch["text"]), batch["y"]
        if "index" in batch:
            y = y.where(batch["index"] >= 0, IGNORED)
        loss = F.cross_entropy(logits, y, ignore_index=IGNORED, reduction="sum")
        right, scored = (logits.detach().argmax(1) == y).sum(), (y != IGNORED).sum()
        self._window.append(torch.stack([loss.detach(), right, scored]))
        return self.step_loss(loss / scored.clamp(min=1), scored)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of a validation source, once there is something to score with."""
        if self.is_trained or not (self.trainer.sanity_checking or self._fit.is_underway):
            super().validation_step(batch, batch_idx, dataloader_idx)

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Return ``index`` and each part of the `Judgement` of each text of a batch; see `Judge.judge`.

        Of a batch with ``found``, the texts before their Unicode was normalised, these are judged.
        """
        real = [row for row, index in enumerate(batch["index"].tolist()) if index >= 0]
        column = "found" if "found" in batch else "text"
        texts = [batch[column][row] for row in real]
        groups = [batch["group"][row] for row in real] if "group" in batch else None
        judged = self.judge(normalize="found" in batch).judge(texts, groups, max(1, len(real)))
        parts: dict[str, Any] = {part.name: [getattr(one, part.name) for one in judged] for part in fields(Judgement)}
        for name in ("score", "probability", "p_value"):
            parts[name] = torch.tensor([math.nan if x is None else x for x in parts[name]], dtype=torch.float64)
        parts["windows"] = [[window.to_dict() for window in windows] for windows in parts["windows"]]
        return {"index": batch["index"].cpu()[real], **parts}

    @property
    def decisive_threshold(self) -> float:
        """The score from which a text is a machine's, for texts of all lengths.

        Raises:
            UserError: If a calibration decides, which has none.
        """
        if self.calibration is not None:
            raise UserError(
                "`calibration` has no threshold for all texts: it compares each with human texts of its length, as "
                "predict does, but no test; leave it out."
            )
        return float(self.threshold)

    def _check_fitted(self) -> None:
        """Refuse a detector that is not trained, and warn of one whose scores were not mapped to probabilities."""
        self.detector.require_fitted()
        if self._is_new and self.calibration is None:
            rank_zero_warn(
                f"{self.detector.name} has no threshold yet: its scores tell texts apart, but it decides nothing "
                "before `lit-detect fit` or a calibration."
            )

    @property
    def _is_new(self) -> bool:
        """Whether the detector needs a threshold that was not fixed."""
        return isinstance(self.detector, ZeroShotDetector) and self.platt.tolist() == [1, 0]

    def on_train_start(self) -> None:
        """Fill the HPARAMS page."""
        super().on_train_start()
        self._window, self._lengths = [], TextLengths()
        self._fit.begin_step()
        charts = {
            "AUROC": ["val/[^/]*/auroc"],
            "machine texts that are found": ["val/[^/]*/recall/machine"],
            "human texts that are left alone": ["val/[^/]*/recall/human"],
        }
        charts |= {"training loss": ["train/loss"]} if self.is_trained else {}
        self.show_run(
            {"Does it tell them apart?": charts},
            _LOOK_AT,
        )

    def on_validation_start(self) -> None:
        """Refuse a detector that is not trained, unless that is what is going on, and a calibration."""
        if self.trainer.state.fn == "validate":
            self._lengths = TextLengths()
            self._check_fitted()
            _ = self.decisive_threshold

    def on_test_start(self) -> None:
        """Refuse an untrained detector and a calibration at once."""
        self._lengths = TextLengths()
        self._check_fitted()
        _ = self.decisive_threshold

    def on_predict_start(self) -> None:
        """Refuse an untrained detector, and a calibration of another one, of no such texts or of other scores."""
        self._check_fitted()
        if self.calibration is None:
            return
        self.calibration.check_checkpoint(self.trainer.ckpt_path)
        texts = getattr(getattr(self.trainer, "datamodule", None), "predict_texts", None)
        if texts is not None:
            self.calibration.check_groups(sorted(texts.groups or {""}))
        with self.trainer.precision_plugin.forward_context():
            check_scores_stand(self.judge())

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Log the means over the step's whole global batch."""
        window, self._window = self._window, []
        self._fit.begin_step()
        if self.is_trained:
            log_step(self, optimizer, window)

    def on_train_end(self) -> None:
        """Note that the detector is trained; refuse a training that ended before it was fitted."""
        self._note_training(self.trainer.global_step)
        if self._fit.is_underway:
            raise UserError(
                f"{self.detector.name} is fitted after one epoch, but training ended before; set trainer.max_epochs to "
                "1 and leave out trainer.max_steps, trainer.limit_train_batches and trainer.fast_dev_run."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what another program needs to use the weights, as plain values, and what was gathered so far."""
        name, cap = self.detector.name, self.detector.max_tokens
        checkpoint["detector"] = {"name": name, "max_tokens": cap, "min_tokens": self.min_tokens}
        checkpoint["optimizer_param_names"] = parameter_names(self, self.trainer.optimizers)
        if self._fit.is_underway:
            checkpoint["gathered"] = self._fit.rows_of_all_ranks(self.trainer)
        super().on_save_checkpoint(checkpoint)  # at the end, since it signs what the checkpoint describes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note whether the weights are trained, and resume the gathering; rank 0 takes the rows of all ranks.

        Raises:
            UserError: If a run is resumed with another detector, or with texts that are normalised otherwise.
        """
        super().on_load_checkpoint(checkpoint)
        normalize = getattr(getattr(trainer_of(self), "datamodule", None), "normalize", None)
        if normalize is not None:
            then = bool(data_argument(checkpoint, "normalize"))
            check_same_function(self, {"data.normalize": normalize}, {"data.normalize": then})
        self._note_training(checkpoint.get("global_step", 0))
        if "gathered" in checkpoint and trainer_of(self) is not None and self.trainer.is_global_zero:
            self._fit.resume(checkpoint["gathered"])

    def function_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the class and arguments of the detector; see the base class."""
        return built_from(arguments.get("detector"), "detector", _IDLE)

    def _note_training(self, steps: int) -> None:
        """Tell the detector, and members that were trained before it, whether their weights come from training."""
        for part in self.detector.modules():
            if isinstance(part, TrainedDetector) and steps:
                part.has_trained_weights = True

    def evaluate_batch(self, stage: str, batch: Any, dataloader_idx: int) -> None:
        """Score a batch of a source."""
        _, metric = self.source_metric(stage, dataloader_idx, DetectionScores)
        texts, y, judge = batch["text"], batch["y"], self.judge()
        if stage == "val":
            scores = self.detector.score(texts)
            if not self._lengths.are_told:
                self._lengths.add(judge, texts, batch["index"])
        else:
            scores = judge.scores(texts, len(texts))
            y = y.masked_fill(self._lengths.add(judge, texts, batch["index"]).to(y.device), -1)
        metric.update(scores, y, batch["index"])

    def on_validation_epoch_end(self) -> None:
        """Log each validation source, and say once how many texts are read in part."""
        super().on_validation_epoch_end()
        if not self.trainer.sanity_checking:
            self._lengths.tell_validation(self.trainer, self.judge())

    def on_test_epoch_end(self) -> None:
        """Log each test source, and say which texts are left out or read in windows."""
        super().on_test_epoch_end()
        self._lengths.tell_test(self.trainer, self.judge())

    def source_values(self, stage: str, source: str, metric: Metric) -> Mapping[str, Tensor | float]:
        """Return the scores of a source and of its subsets, without those that are not defined."""
        assert isinstance(metric, DetectionScores)
        scores, y, index = metric.gathered()
        threshold = self.decisive_threshold
        metric.threshold = threshold
        machine = scores >= threshold
        counts = [(int((machine & (y == label)).sum()), int((y == label).sum())) for label in (HUMAN, MACHINE)]
        self.called_machine[source] = (*counts[0], *counts[1])
        values: dict[str, Any] = metric.compute()
        platt = Platt(*self.platt.tolist())
        values["loss"] = F.binary_cross_entropy(platt(scores), y.to(scores))
        data = getattr(self.trainer, "datamodule", None)
        if data is not None and hasattr(data, "records"):
            texts = data.records(stage, source)
            records = [texts.about(number) for number in range(len(texts))]
            values |= breakdown(scores, y, index, records, threshold)
        return {name: float(value) for name, value in values.items() if not math.isnan(value)}
