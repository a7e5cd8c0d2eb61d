"""Callback that replaces machine texts by attacked ones during training."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lit_core.errors import UserError, check_at_least
from lit_core.lightning.internals import logs_this_step
from lit_core.lightning.step_logging import ratio, sum_over_ranks
from lit_core.seeds import part_seed
from lit_detect.attacks import Attack
from lit_detect.callbacks.attacking import CachedAttacks, columns
from lit_detect.language.normalize import normalize_text
from lit_detect.records import MACHINE


class AdversarialTraining(Callback):
    """Changes training: replaces a share of the machine texts of each batch by attacked ones.

    The callback works with any LightningModule whose training batches are mappings with ``text``, a list of strings,
    ``y`` and ``index``. The seed and the ``index`` alone decide which texts are attacked, and by which attack, so the
    result does not depend on the number of devices or on a resume. The ``index`` of the streams of `lit_core` continues
    from epoch to epoch, so each epoch draws other texts. Attacked texts are cached, except those of attacks that query
    the detector. If the data module has ``normalize`` set, attacked texts are normalised like the others.

    =================================  ========  ===============================================================
    key                                unit      moment
    =================================  ========  ===============================================================
    ``train/adversarial/share``        0 to 1    logged step; share of the machine texts that was replaced; NaN if none
    ``train/adversarial/edits``        edits     same; mean per replaced text; NaN if none was replaced
    ``train/adversarial/seconds``      seconds   same; time that attacks took in the step, mean over the devices
    =================================  ========  ===============================================================

    Args:
        attacks: The attacks, by class name; each replaced text is attacked by one of them.
        share: Share of the machine texts that is replaced, above 0 and up to 1.
        start_epoch: First epoch in which texts are replaced, from 0.
        every_n_epochs: Number of epochs from one with replaced texts to the next, 1 or more.
        seed: Seed of the choice of texts and attacks, and of the attacks, 0 or more; None takes that of the run.
    """

    def __init__(
        self,
        attacks: list[Attack],
        share: float = 0.5,
        start_epoch: int = 0,
        every_n_epochs: int = 1,
        seed: int | None = None,
    ) -> None:
        if not 0 < share <= 1:
            raise UserError(
                f"`share` is {share}, but must be above 0 and at most 1. Give a share of machine texts, such as 0.5."
            )
        check_at_least(0, start_epoch=start_epoch)
        check_at_least(1, every_n_epochs=every_n_epochs)
        self.seed = part_seed(seed)
        self.attacks, self.share = CachedAttacks(attacks, self.seed), share
        self.start_epoch, self.every_n_epochs = start_epoch, every_n_epochs
        self._batches = 0  # since an optimizer stepped
        self._window = torch.zeros(4, dtype=torch.float64)  # machine texts, replaced, edits, seconds

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Replace texts of a micro-batch."""
        self._batches += 1
        epoch = trainer.current_epoch - self.start_epoch
        if epoch < 0 or epoch % self.every_n_epochs:
            return
        start = time.perf_counter()
        texts, labels, indices = columns(batch, "AdversarialTraining")
        normalized = bool(getattr(getattr(trainer, "datamodule", None), "normalize", False))
        chosen: dict[int, list[int]] = {}
        for row, (label, index) in enumerate(zip(labels, indices, strict=True)):
            attack = self._draw(index) if label == MACHINE and index >= 0 else None
            if attack is not None:
                chosen.setdefault(attack, []).append(row)
        edits = 0
        for attack, rows in chosen.items():
            for row, attacked in zip(rows, self.attacks.attack(attack, [texts[row] for row in rows]), strict=True):
                texts[row] = normalize_text(attacked.text) if normalized else attacked.text
                edits += len(attacked.edits)
        batch["text"] = texts
        counts = [labels.count(MACHINE), sum(map(len, chosen.values())), edits, time.perf_counter() - start]
        self._window += torch.tensor(counts, dtype=torch.float64)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log share, edits and seconds of the step's global batch."""
        batches, self._batches = self._batches, 0
        window, self._window = self._window, torch.zeros_like(self._window)
        if not batches or not logs_this_step(trainer):
            return  # the second optimizer of a module that steps several has nothing new
        machine, replaced, edits, seconds = sum_over_ranks(trainer, window).tolist()
        pl_module.log("train/adversarial/share", ratio(replaced, machine))
        pl_module.log("train/adversarial/edits", ratio(edits, replaced))
        pl_module.log("train/adversarial/seconds", seconds / trainer.world_size)

    def _draw(self, index: int) -> int | None:
        """Return the index of the attack on a text; None if the text is not attacked."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, index])))
        if rng.random() >= self.share:
            return None
        return int(rng.integers(len(self.attacks.names)))
