"""The fingerprint of a run: which experts the trained model chooses for a probe text."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_core.errors import UserError, check_at_least
from lit_core.files.paths import atomic_write
from lit_core.lightning.evaluation_mode import evaluating
from lit_moe.fingerprint import Fingerprint, check_can_route, sizes_of
from lit_moe.probe import Probe, check_texts, text_probe


class RoutingFingerprint(Callback):
    """Writes at the end of training which experts the model chooses for a probe text: ``fingerprint.npz``.

    The file lies in the run folder and is what ``lit-moe fingerprint`` writes of the last checkpoint, but in the run's
    own precision. Later runs compare their routing with it: it is the ``reference`` of their `RouterDrift`.

    Works on any LightningModule with mixture layers, a method ``routing_step(batch)`` as `RouterDrift` asks for it, and
    a ``tokenizer``.

    Args:
        texts: Text file of each domain by its name; None takes the beginnings of six novels that are embedded.
        tokens: Most tokens of a domain, 1 or more.
        sequence_length: Tokens of a sequence, 1 or more, at most what the model takes; None takes 256, or that if less.
        batch_size: Sequences of a forward pass, 1 or more.
    """

    def __init__(
        self,
        texts: dict[str, str] | None = None,
        tokens: int = 2048,
        sequence_length: int | None = None,
        batch_size: int = 8,
    ) -> None:
        check_at_least(1, tokens=tokens, sequence_length=sequence_length, batch_size=batch_size)
        self.texts, self.tokens, self.sequence_length, self.batch_size = texts, tokens, sequence_length, batch_size
        self._probe: Probe | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the probe, so that what is missing is said before the training.

        Raises:
            UserError: If the module has no routing that can be stored or no tokenizer, or a text is missing.
        """
        check_can_route(pl_module)
        check_texts(self.texts)
        tokenizer = getattr(pl_module, "tokenizer", None)
        if tokenizer is None or not sizes_of(pl_module):
            lacking = "tokenizer" if tokenizer is None else "mixture layers"
            raise UserError(
                f"RoutingFingerprint stores routing of texts, but the model has no {lacking}; leave it out."
            )
        self._probe = text_probe(pl_module, tokenizer, self.texts, self.tokens, self.sequence_length, self.batch_size)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Route the probe on all ranks, whose layers may be divided among them, and write the file on the first."""
        assert self._probe is not None
        with evaluating(pl_module):
            found = Fingerprint.of(pl_module, self._probe, trainer.precision_plugin.val_step_context())
        if trainer.is_global_zero:
            atomic_write(Path(trainer.default_root_dir) / "fingerprint.npz", found.content())
