"""`RunSummary`, which says in one line how large the model is."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.model_summary import get_human_readable_count, summarize

from lit_core.screen import rank_zero_info


class RunSummary(ModelSummary):
    """Says in one line how many parameters the model has and how many are trained, before ``fit``.

    A module that no gradient trains, such as a detector that is fitted to features, gets no line.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say it."""
        if not getattr(pl_module, "is_trained", True):
            return
        summary = summarize(pl_module, max_depth=1)
        total, trained = summary.total_parameters, summary.trainable_parameters
        which = "all trained" if trained == total else f"{get_human_readable_count(trained).strip()} of them trained"
        rank_zero_info(f"Model: {get_human_readable_count(total).strip()} parameters, {which}.")
