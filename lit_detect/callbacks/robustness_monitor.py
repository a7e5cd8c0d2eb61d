"""Callback that measures the robustness of a detector against attacks at each evaluation."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lit_core.errors import check_at_least
from lit_core.lightning.evaluation import EvaluationCallback, log_reduced, named_loader
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lightning.pictures import add_text
from lit_core.lightning.step_logging import rows_of_all_ranks
from lit_core.lightning.tensorboard import add_layout
from lit_core.seeds import part_seed
from lit_detect.attacks import Attack
from lit_detect.callbacks.attacking import CachedAttacks, columns, scorer
from lit_detect.functional.evasion import evasion, words_changed
from lit_detect.language.normalize import normalize_text
from lit_detect.records import MACHINE, key_part


class RobustnessMonitor(EvaluationCallback):
    """Attacks machine texts of each validation and test source and logs the evasion rate.

    The callback works with any LightningModule that has a ``detector``, or a method ``score`` that maps a list of texts
    to scores (a higher score means machine), and whose batches are mappings with ``text``, ``y`` and ``index``. The
    threshold is the module's ``threshold``, or 0 if it has none. The texts are the first machine texts of a source by
    ``index``, over all devices. Results of attacks are cached, except those of attacks that query the detector. If the
    data module has ``normalize`` set, attacked texts are normalised like the others.

    ==================================================  =========  ================================================
    key                                                 unit       moment
    ==================================================  =========  ================================================
    ``{stage}/{source}/attack/{name}/evasion``          0 to 1     end of a validation (see ``every_n_epochs``) or
                                                                   test; share not detected after, of the texts
                                                                   that are detected before; NaN if none is
    ``{stage}/{source}/attack/{name}/recall_before``    0 to 1     same; share of the texts detected as they were
    ``{stage}/{source}/attack/{name}/recall_after``     0 to 1     same; share of the attacked texts detected
    ``{stage}/{source}/attack/{name}/edits``            edits      same; mean per text
    ``{stage}/{source}/attack/{name}/words_changed``    0 to 1     same; share of the words, mean over the texts
    ``{stage}/{source}/attack/{name}/queries``          queries    same; mean per text
    ``{stage}/{source}/attack/{name}/score_drop``       score      same; before minus after, mean over the texts
    ``{stage}/{source}/attack/{name}/text`` (text)                 same; see ``show_texts``
    ==================================================  =========  ================================================

    ``{stage}`` is ``val`` or ``test``. ``{name}`` is the attack's name, in which runs of characters other than letters,
    digits and ``. , = + - [ ]`` are replaced by ``_``.

    Args:
        attacks: The attacks, by class name.
        documents: Number of machine texts of each source to attack, 1 or more.
        every_n_epochs: Number of epochs from one whose validations attack to the next, 1 or more; tests always attack.
        seed: Seed of the attacks, 0 or more; None takes that of the run.
        show_texts: Number of texts of each source and attack that TensorBoard shows, original and attacked; 0 shows
            none, so that no text is copied out of the data.
    """

    answers = ("val/[^/]+/attack/[^/]+/evasion",)

    def __init__(
        self,
        attacks: list[Attack],
        documents: int = 32,
        every_n_epochs: int = 1,
        seed: int | None = None,
        show_texts: int = 0,
    ) -> None:
        check_at_least(1, documents=documents, every_n_epochs=every_n_epochs)
        check_at_least(0, show_texts=show_texts)
        self.attacks, self.documents = CachedAttacks(attacks, part_seed(seed)), documents
        self.every_n_epochs, self.show_texts = every_n_epochs, show_texts
        self._texts: dict[str, list[tuple[int, str]]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the module can score texts."""
        if stage != "predict":
            scorer(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Group the charts of TensorBoard."""
        charts = {name: [f"val/.*/attack/.*/{name}"] for name in ("evasion", "recall_after")}
        add_layout(trainer, {"Does it hold under attack?": charts})

    def start_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the texts of the last evaluation."""
        self._texts = {}

    def evaluate_batch(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any, dataloader_idx: int
    ) -> None:
        """Collect the first machine texts of a source."""
        if stage == "test" or trainer.current_epoch % self.every_n_epochs == 0:
            self._gather(named_loader(trainer, stage, dataloader_idx), batch)

    def _gather(self, source: str, batch: Any) -> None:
        collected = self._texts.setdefault(source, [])
        for text, label, index in zip(*columns(batch, "RobustnessMonitor"), strict=True):
            if label == MACHINE and index >= 0 and len(collected) < self.documents:  # a rank reads in ascending order
                collected.append((index, text))

    def end_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attack the texts of each source and log the evasion rate."""
        score = scorer(pl_module)
        threshold = float(getattr(pl_module, "decisive_threshold", getattr(pl_module, "threshold", 0.0)))
        normalized = bool(getattr(getattr(trainer, "datamodule", None), "normalize", False))
        for source, collected in self._texts.items():  # all ranks have all sources
            indices = rows_of_all_ranks(trainer, torch.tensor([index for index, _ in collected], dtype=torch.int64))
            first = set(indices.unique()[: self.documents].tolist())
            texts = [text for index, text in collected if index in first]
            with evaluating(pl_module), torch.no_grad():
                before = score(texts) if texts else torch.zeros(0, dtype=torch.float64)
                for attack, name in enumerate(self.attacks.names):
                    attacked = self.attacks.attack(attack, texts)
                    changed = [normalize_text(one.text) if normalized else one.text for one in attacked]
                    after = score(changed) if texts else before
                    words = [
                        words_changed(text, one.edits) / max(1, len(text.split()))
                        for text, one in zip(texts, attacked, strict=True)
                    ]
                    costs = [[float(len(one.edits)), float(one.queries)] for one in attacked]
                    rows = torch.cat([before[:, None], after[:, None], torch.tensor(words).double()[:, None]], 1)
                    rows = torch.cat([rows, torch.tensor(costs).double().reshape(-1, 2)], 1)
                    key = f"{stage}/{source}/attack/{key_part(name)}"
                    self._log(trainer, pl_module, key, rows_of_all_ranks(trainer, rows), threshold)
                    pairs = [f"{text}\n\n→\n\n{other}" for text, other in zip(texts, changed, strict=True)]
                    if self.show_texts and pairs:
                        step = max(trainer.global_step - 1, 0)
                        add_text(trainer, f"{key}/text", "\n\n---\n\n".join(pairs[: self.show_texts]), step)
        self._texts = {}

    def _log(
        self, trainer: Trainer, pl_module: LightningModule, key: str, rows: torch.Tensor, threshold: float
    ) -> None:
        if not len(rows):  # a source without machine texts
            return
        before, after, words, edits, queries = rows.unbind(1)
        values = evasion(before, after, threshold)
        del values["detected"]
        values |= {"edits": float(edits.mean()), "words_changed": float(words.mean())}
        values |= {"queries": float(queries.mean()), "score_drop": float((before - after).mean())}
        log_reduced(pl_module, {f"{key}/{name}": value for name, value in values.items()})
