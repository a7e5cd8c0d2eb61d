"""Drift of the routers against those of a reference: a checkpoint, or a fingerprint of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lit_core.errors import UserError, check_at_least, require
from lit_core.files.json_files import checked_state
from lit_core.lightning.evaluation import EvaluationCallback, log_reduced, named_loader
from lit_core.lightning.internals import logged_step
from lit_core.lightning.pictures import add_figure, can_draw, curves, heat_map
from lit_core.lightning.tensorboard import add_layout
from lit_core.screen import rank_zero_warn
from lit_moe.callbacks.layer_drift import LayerDrift, by_key
from lit_moe.callbacks.reference import load_fingerprint, load_reference
from lit_moe.fingerprint import Fingerprint, sizes_of, vocab_size
from lit_moe.nn import MoELayer, moe_layers


class _State(TypedDict):
    has_warned: bool


class RouterDrift(EvaluationCallback):
    """Measures how much the choice of experts differs from that of a reference checkpoint, on the same tokens.

    In validation and test each batch is also given to the reference model, which is frozen, copied to every device and
    not saved in checkpoints. A fingerprint, a ``.npz`` of ``lit-moe fingerprint``, needs no second model: after each
    evaluation the model routes the fingerprint's own tokens, and each of its domains is a source. Continual router
    saturation (CRS) is the mean share of a token's experts that both models choose. Continual vocabulary specialization
    (CVS) is the share of tokens that still go to the expert to which the reference sent their id most often. Both are
    those of `Thérien et al. 2025 <https://arxiv.org/abs/2503.05029>`_; unrelated routers have k/E on average.
    Co-activation compares, over all pairs of experts, which other experts each expert is chosen with. Without any
    change, CRS and co-activation are 1, and CVS is the reference's own vocabulary specialization.

    ===================================================================  =====  ========================================
    key                                                                  unit   moment
    ===================================================================  =====  ========================================
    ``{stage}/{source}/router/crs/{layer}``                              share  end of a validation or test
    ``{stage}/{source}/router/crs_above_chance/{layer}``                 share  same; less k/E
    ``{stage}/{source}/router/cvs_per_occurrence/{layer}``               share  same; each token counts once
    ``{stage}/{source}/router/cvs_per_occurrence_above_chance/{layer}``  share  same; less k/E
    ``{stage}/{source}/router/cvs_per_id/{layer}``                       share  same; each id counts once
    ``{stage}/{source}/router/cvs_per_id_above_chance/{layer}``          share  same; less k/E
    ``{stage}/{source}/router/coactivation/{layer}``                     share  same; k of 2 or more; mean over experts
    ``{stage}/{source}/router/coactivation_above_chance/{layer}``        share  same; less that of even partners
    ``{stage}/{source}/router/drift`` (image)                            share  same; CRS, CVS, co-activation by layer
    ``{stage}/{source}/router/coactivation_change`` (image)              share  same; 1 - co-activation, layer by expert
    ===================================================================  =====  ========================================

    ``{stage}`` is ``val`` or ``test``; ``{source}`` is a domain where the reference is a fingerprint; ``{layer}`` is
    ``layer_{ii}``, or ``mean``, over the layers. The counts of CVS take two numbers per token id, expert, layer and
    source.

    Works on any LightningModule with `lit_moe.nn.MoEFeedForward` layers and a method ``routing_step(batch)`` that runs
    them as an evaluation does and returns which tokens count, or None for all. CVS is measured where the module has
    ``config.vocab_size`` and batches have ``input_ids``.

    Args:
        reference: Checkpoint of a model of the same class and shape, such as the one before the shift, or the
            fingerprint of one, a .npz file.
        min_occurrences: Least number of occurrences of a token id in the average per id, 1 or more.
        during_fit: Whether the validations during training are measured too; each then runs a second forward pass, or
            one on the tokens of the fingerprint.
        limit: Share of a token's experts in a layer, from 0 to 1, up to which they may differ from those of the
            reference during training; the first larger one ends in a warning. None never warns.
    """

    def __init__(
        self, reference: str, min_occurrences: int = 10, during_fit: bool = True, limit: float | None = None
    ) -> None:
        check_at_least(1, min_occurrences=min_occurrences)
        require(limit is None or 0 <= limit <= 1, "limit", limit, "a share, from 0 to 1")
        require(
            limit is None or during_fit, "limit", limit, "null where during_fit is false, which measures no training"
        )
        self.reference = reference
        self.limit = limit
        self.min_occurrences = min_occurrences
        self.during_fit = during_fit
        self._layers: dict[str, MoELayer] = {}
        self._model: LightningModule | None = None
        self._fingerprint: Fingerprint | None = None
        self._sources: dict[int | str, list[LayerDrift]] = {}
        self._has_warned = False

    @property
    def state_key(self) -> str:
        """Name of the state in checkpoints; that of another reference is another one."""
        return f"{type(self).__qualname__}[{self.reference}]"

    def state_dict(self) -> dict[str, Any]:
        """Return whether the limit was exceeded, so that a resumed run does not warn again."""
        return {} if self.limit is None else {"has_warned": self._has_warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up whether the limit was exceeded."""
        self._has_warned = checked_state(_State, state_dict, type(self).__name__)["has_warned"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the reference and check that it can be compared, before the run begins."""
        for other in trainer.callbacks:  # type: ignore[attr-defined]  # set where mypy does not see it
            if isinstance(other, RouterDrift) and other.reference != self.reference:
                raise UserError(
                    f"Two RouterDrift callbacks have the references {self.reference} and {other.reference} and would "
                    "log under the same keys; leave one of them out."
                )
        self._layers = moe_layers(pl_module)
        self._model = self._fingerprint = None
        if self._layers and (stage != "fit" or self.during_fit):
            tokenizer = getattr(getattr(trainer, "datamodule", None), "tokenizer", None)
            if self.reference.endswith(".npz"):
                self._fingerprint = load_fingerprint(self.reference, pl_module, tokenizer)
            else:
                self._model = load_reference(self.reference, pl_module, tokenizer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Group the charts in TensorBoard."""
        names = {"CRS": "crs", "CVS per occurrence": "cvs_per_occurrence", "co-activation": "coactivation"}
        charts = {title: [rf"val/.*/router/{name}/layer.*"] for title, name in names.items()}
        add_layout(trainer, {"Have the routers moved?": charts})

    def start_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to compare each source."""
        self._sources = {}
        if self._model is not None:
            # as the model itself: other rounding would choose other experts
            trainer.precision_plugin.convert_module(self._model).to(pl_module.device)

    def evaluate_batch(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any, dataloader_idx: int
    ) -> None:
        """Compare a batch of a source."""
        if self._model is None:
            return
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            mask = self._model.routing_step(batch)  # type: ignore[operator]  # load_reference saw it
        ids = batch["input_ids"].flatten() if isinstance(batch, Mapping) and "input_ids" in batch else None
        if dataloader_idx not in self._sources:
            self._sources[dataloader_idx] = self._new_source(pl_module, has_ids=ids is not None)
        before, after = moe_layers(self._model).values(), self._layers.values()
        for drift, old, new in zip(self._sources[dataloader_idx], before, after, strict=True):
            if old.stats is not None and new.stats is not None:
                drift.add(old.stats.indices, new.stats.indices, ids, None if mask is None else mask.flatten())

    def end_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log each source."""
        if self._fingerprint is not None:
            self._compare(trainer, pl_module, self._fingerprint)
        changed: dict[str, float] = {}
        for source, layers in self._sources.items():
            where = f"{stage}/{source if isinstance(source, str) else named_loader(trainer, stage, source)}"
            computed = [layer.compute() for layer in layers]
            log_reduced(pl_module, by_key([values for values, _ in computed], where))
            self._draw(trainer, where, computed)
            shares = enumerate(1 - values["crs"] for values, _ in computed if "crs" in values)
            changed |= {f"layer {index} on {where}": share for index, share in shares}
        self._sources = {}
        if self.limit is not None and changed and trainer.state.fn == TrainerFn.FITTING:
            self._warn(changed, self.limit, logged_step(trainer))

    def _compare(self, trainer: Trainer, pl_module: LightningModule, before: Fingerprint) -> None:
        """Compare the tokens of a fingerprint; each rank routes as many sequences."""
        probe, world_size = before.probe, trainer.world_size
        mine = torch.arange(trainer.global_rank, len(probe.rows), world_size)
        padded = torch.full((-(-len(probe.rows) // world_size),), -1)
        padded[: len(mine)] = mine
        after = probe.route(pl_module, padded, trainer.precision_plugin.val_step_context())
        for number, name in enumerate(probe.domains):
            at = (probe.domain[mine] == number).nonzero()[:, 0]
            ids, counted = (each[mine[at]].flatten().to(pl_module.device) for each in (probe.ids, probe.counted))
            self._sources[name] = self._new_source(pl_module, has_ids=True)
            for drift, old, new in zip(self._sources[name], before.experts, after, strict=True):
                drift.add(old[mine[at]].flatten(0, 1).to(new), new[at].flatten(0, 1), ids, counted)

    def _new_source(self, pl_module: LightningModule, has_ids: bool) -> list[LayerDrift]:
        size = vocab_size(pl_module) if has_ids else None
        return [LayerDrift(*each, size, self.min_occurrences, pl_module.device) for each in sizes_of(pl_module)]

    def _warn(self, changed: Mapping[str, float], limit: float, step: int) -> None:
        worst = max(changed, key=lambda name: changed[name])
        if changed[worst] <= limit or self._has_warned:
            return
        self._has_warned = True
        above = sum(share > limit for share in changed.values())
        rank_zero_warn(
            f"At step {step} a share of {changed[worst]:.3f} of the experts of {worst} are others than those of "
            f"{self.reference}, more than RouterDrift's limit of {limit:g}"
            f"{f', and so it is in {above - 1} more layers and sources' if above > 1 else ''}. More replay or a lower "
            "learning rate keeps more; this is said once."
        )

    def _draw(self, trainer: Trainer, where: str, layers: Sequence[tuple[dict[str, float], list[float]]]) -> None:
        if not can_draw(trainer):
            return
        step = logged_step(trainer)
        lines: dict[str, tuple[list[float], list[float]]] = {}
        for name in ("crs", "cvs_per_occurrence", "cvs_per_id", "coactivation"):
            points = [(float(index), values[name]) for index, (values, _) in enumerate(layers) if name in values]
            if points:
                lines[name] = ([index for index, _ in points], [value for _, value in points])
        title = f"{where}: what the routing has in common with the reference"
        figure = curves(lines, title=title, xlabel="layer", ylabel="share")
        figure.axes[0].locator_params(axis="x", integer=True)
        add_figure(trainer, f"{where}/router/drift", figure, step)
        if any(overlaps for _, overlaps in layers):
            figure = heat_map(
                [[1 - share for share in overlaps] for _, overlaps in layers],
                title=f"{where}: changed co-activation",
                xlabel="expert",
                ylabel="layer",
            )
            add_figure(trainer, f"{where}/router/coactivation_change", figure, step)
