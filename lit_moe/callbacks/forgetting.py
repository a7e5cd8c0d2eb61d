"""Forgetting of old data and adaptation to new data during training, with the tokens and FLOPs spent."""

from __future__ import annotations

from typing import Any, TypedDict

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lit_core.errors import UserError, did_you_mean
from lit_core.files.json_files import checked_state
from lit_core.lightning.evaluation import EvaluationCallback, log_reduced
from lit_core.lightning.internals import run_validation
from lit_core.lightning.pictures import add_figure, can_draw, curves
from lit_core.lightning.tensorboard import add_layout

_SUFFIXES = {"loss": "", "bits_per_byte": "_bits_per_byte"}


class _Losses(TypedDict):
    step: int
    losses: dict[str, int | float]


class _Cost(_Losses, total=False):
    tokens: float
    flops: float


class _State(TypedDict):
    baseline: dict[str, int | float]  # which may be nan
    costs: list[_Cost]


class Forgetting(EvaluationCallback):
    """Compares validation losses with their values before the shift, from a full validation when training starts.

    Forgetting is the current loss on an old source minus its loss before the shift. Adaptation is the loss on a new
    source before the shift minus its current loss. The losses before the shift are saved in checkpoints, so a resumed
    run compares with the same values. Each validation also records the tokens and FLOPs spent so far, from which
    `cost_to_reach` returns the cost of a loss.

    ========================================  ===========  ====================================================
    key                                       unit         moment
    ========================================  ===========  ====================================================
    ``val/{old}/forgetting``                  nats/token   end of a validation in training; 0 at step 0
    ``val/{old}/forgetting_bits_per_byte``    bits/byte    same; where ``val/{old}/bits_per_byte`` is logged
    ``val/{new}/adaptation``                  nats/token   same
    ``val/{new}/adaptation_bits_per_byte``    bits/byte    same; where ``val/{new}/bits_per_byte`` is logged
    ``val/tokens``                            tokens       same; of this run; where the module has ``train_tokens``
    ``val/flops``                             operations   same; of this run; where the module has ``train_flops``
    ``val/{new}/loss_by_tokens`` (figure)     nats/token   end of training; also ``loss_by_flops``
    ========================================  ===========  ====================================================

    Works on any LightningModule whose ``validation_step`` logs ``val/{source}/loss`` for each source, reduced over
    batches and devices (a torchmetrics object, or ``on_epoch=True`` with ``sync_dist=True``). It may also have the
    attributes ``train_tokens`` and ``train_flops``, the numbers spent so far.

    Args:
        old: Names of the sources that should not be forgotten.
        new: Names of the sources that are learnt.
    """

    answers = ("val/[^/]+/(forgetting|adaptation)",)

    def __init__(self, old: list[str], new: list[str]) -> None:
        both = set(old) & set(new)
        if both:
            raise UserError(f"`old` and `new` both name {min(both)}; leave it in one of the two.")
        if not old:
            raise UserError("`old` is empty, but forgetting is measured on old sources; name one.")
        self.old, self.new = list(old), list(new)
        self.baseline: dict[str, float] = {}
        self.costs: list[dict[str, Any]] = []

    def cost_to_reach(self, source: str, loss: float) -> dict[str, float] | None:
        """Return the cost at the first validation whose loss on a source was at most `loss`.

        Args:
            source: Name of an old or new source.
            loss: Loss in nats per token.

        Returns:
            Optimizer steps, tokens and FLOPs under ``step``, ``tokens`` and ``flops``, as far as the module counts
            them; None if no validation reached the loss.
        """
        for cost in self.costs:
            if cost["losses"][source] <= loss:
                return {name: value for name, value in cost.items() if name != "losses"}
        return None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the losses of an earlier run; a resumed run loads its own later."""
        if stage == "fit" and trainer.global_step == 0:
            self.baseline, self.costs = {}, []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that a resumed run has the losses before the shift."""
        charts = {name: [rf"val/.*/{name}$"] for name in ("forgetting", "adaptation")}
        add_layout(trainer, {"Does it forget?": charts}, first=True)
        if trainer.global_step > 0 and not self.baseline:
            raise UserError(
                f"The checkpoint of step {trainer.global_step} holds no losses before the shift, so Forgetting has "
                "nothing to compare with; start a new run from it with --branch_from, or leave the callback out."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate before the first optimizer step, when all callbacks have seen training start."""
        if self.baseline or trainer.global_step > 0:
            return
        if not trainer.enable_validation:
            raise UserError("Forgetting needs validation, but there is none; add a validation loader to the data.")
        with isolate_rng():
            run_validation(trainer)

    def end_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare each source with its loss before the shift, in a validation during training."""
        if trainer.state.fn != "fit":
            return
        losses = self._losses(trainer)
        if not self.baseline:
            if trainer.global_step > 0:
                return
            self.baseline = losses
        cost: dict[str, Any] = {"step": trainer.global_step}
        for name, attribute in (("tokens", "train_tokens"), ("flops", "train_flops")):
            if hasattr(pl_module, attribute):
                cost[name] = float(getattr(pl_module, attribute))
                log_reduced(pl_module, {f"val/{name}": cost[name]})
        self.costs.append(cost | {"losses": {name: losses[f"{name}/loss"] for name in (*self.old, *self.new)}})
        for source in (*self.old, *self.new):
            for metric, suffix in _SUFFIXES.items():
                key = f"{source}/{metric}"
                if key not in losses:
                    continue
                risen = losses[key] - self.baseline[key]
                if source in self.old:
                    log_reduced(pl_module, {f"val/{source}/forgetting{suffix}": risen})
                else:
                    log_reduced(pl_module, {f"val/{source}/adaptation{suffix}": -risen})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the losses on new sources by the tokens and FLOPs spent."""
        if not self.new or not can_draw(trainer):
            return
        for spent, unit in (("tokens", "tokens"), ("flops", "floating-point operations")):
            if not self.costs or spent not in self.costs[0]:
                continue
            for source in self.new:
                line = ([cost[spent] for cost in self.costs], [cost["losses"][source] for cost in self.costs])
                title, xlabel = f"Cost of learning {source}", f"training {unit}"
                figure = curves({source: line}, title=title, xlabel=xlabel, ylabel="nats per token")
                # a resume hides what stands at the checkpoint's step
                add_figure(trainer, f"val/{source}/loss_by_{spent}", figure, max(trainer.global_step - 1, 0))

    def state_dict(self) -> dict[str, Any]:
        """Return the losses before the shift and the recorded costs."""
        return {"baseline": dict(self.baseline), "costs": list(self.costs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the losses before the shift and the recorded costs."""
        state = checked_state(_State, state_dict, type(self).__name__)
        self.baseline, self.costs = dict(state["baseline"]), list(state["costs"])

    def _losses(self, trainer: Trainer) -> dict[str, float]:
        """Return this validation's losses by source and metric."""
        metrics = trainer.callback_metrics
        losses = {}
        for source in (*self.old, *self.new):
            for metric in _SUFFIXES:
                key = f"val/{source}/{metric}"
                if key in metrics:
                    losses[f"{source}/{metric}"] = float(metrics[key])
                elif metric == "loss":
                    known = [name for name in metrics if name.startswith("val/") and name.endswith("/loss")]
                    raise UserError(
                        f"Forgetting names the source {source}, but the validation logged no {key};"
                        + (did_you_mean(key, known) or f" it logged {', '.join(known or metrics) or 'nothing'}.")
                        + ("" if known else f" Log {key} in validation_step, with add_dataloader_idx=False.")
                    )
        return losses
