"""Options of a cell of the continual pre-training study: the model, the texts and the recipe of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lit_core.corpora import Corpus
from lit_core.errors import check_above, check_at_least, check_shares
from lit_core.study.options import check_choice, read_fields
from lit_core.study.parts import Part
from lit_moe.nn import DecoderConfig, RouterCallable
from lit_moe.nn.config import MoEConfig, Preset

Schedule = Literal["infinite", "cosine", "union"]


@dataclass(frozen=True)
class PretrainingRecipe:
    """How all models of a study are trained.

    The constant and the smallest learning rate are 0.55 and 0.1 of the largest, as in the paper.

    Args:
        sequence_length: Tokens per sequence.
        batch_size: Sequences per optimizer step.
        learning_rate: Largest learning rate of AdamW, with betas 0.9 and 0.95 and weight decay 0.1.
        warmup: Length of each warm-up, as a fraction of a run, from 0 to 1.
        cooldown: Length of the cooldown from the largest to the constant rate, as a fraction of pre-training, from 0.
        constant: Length of the constant phase of pre-training, as a fraction of it, from 0; annealing takes the rest.
        flat: Length of the constant phase of continual pre-training, as a fraction of it, from 0; annealing takes the
            rest.
        precision: Number format of the training, as Lightning names it.
    """

    sequence_length: int = 128
    batch_size: int = 32
    learning_rate: float = 4e-3
    warmup: float = 0.05
    cooldown: float = 0.65
    constant: float = 0.1
    flat: float = 0.8
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    def __post_init__(self) -> None:
        check_at_least(1, sequence_length=self.sequence_length, batch_size=self.batch_size)
        check_above(0, learning_rate=self.learning_rate)
        check_shares(warmup=self.warmup, cooldown=self.cooldown, constant=self.constant, flat=self.flat)

    @property
    def const_lr(self) -> float:
        """Learning rate of constant phases."""
        return 0.55 * self.learning_rate

    @property
    def min_lr(self) -> float:
        """Learning rate at the end of a run."""
        return 0.1 * self.learning_rate

    @property
    def step_tokens(self) -> int:
        """Tokens per optimizer step."""
        return self.sequence_length * self.batch_size


@dataclass(frozen=True)
class StudiedModel:
    """A model that a study compares with others.

    Args:
        feed_forward: Feed-forward layers, as in `DecoderConfig`.
        router: Class and arguments of the router; None takes the penalty router, or none in a dense model.
    """

    feed_forward: Preset | MoEConfig
    router: Part[RouterCallable] | None = None


@dataclass(frozen=True, kw_only=True)
class ContinualOptions:
    """What a cell of the continual pre-training study varies, and what its cells share.

    Args:
        model: Name of the model.
        schedule: ``infinite`` continues at the constant rate from the constant phase and anneals at the end,
            ``cosine`` re-warms the annealed model, ``union`` trains from scratch on old and new text together, with as
            many tokens of each.
        replay: Replayed fraction of the old text, from 0 to 1.
        shift: Name of the shift.
        models: The models by name.
        shifts: Names of the sources of the new text of each shift, by name of the shift.
        old: Names of the sources of the old text.
        corpora: All corpora. Those that are neither old nor new are foreign: no training sees them.
        vocab_size: Tokens of the tokenizer that is trained on all of them.
        decoder: Arguments of `DecoderConfig` that all models share.
        recipe: How the models are trained.
        pretrain_steps: Optimizer steps of pre-training, with its annealing.
        steps: Optimizer steps with the new text.
        window: Steps before and after the shift that are compared.
        test_samples: Sequences per source of each test.
        max_bytes: Largest number of bytes of text that is read of each corpus; None reads all.

    Raises:
        UserError: If a number is out of its range, the model, the shift or a source is unknown, or the model's shape
            does not make sense.
    """

    model: str
    schedule: Schedule
    replay: float
    shift: str
    models: dict[str, StudiedModel]
    shifts: dict[str, list[str]]
    old: list[str]
    corpora: list[Part[Corpus]]
    vocab_size: int
    decoder: dict[str, Any]
    recipe: PretrainingRecipe
    pretrain_steps: int
    steps: int
    window: int = 20
    test_samples: int = 256
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        check_at_least(1, vocab_size=self.vocab_size, pretrain_steps=self.pretrain_steps, steps=self.steps)
        check_at_least(1, window=self.window, test_samples=self.test_samples, max_bytes=self.max_bytes)
        check_shares(replay=self.replay)
        check_choice("model", self.model, self.models)
        check_choice("shift", self.shift, self.shifts)
        names = dict.fromkeys(corpus.build().name for corpus in self.corpora)
        for name in self.old:
            check_choice("old", name, names)
        for name in self.new:
            check_choice("shifts", name, names)
        self.shape(self.vocab_size)

    @property
    def studied(self) -> StudiedModel:
        """The model of this cell."""
        return self.models[self.model]

    @property
    def new(self) -> list[str]:
        """Names of the sources of the new text."""
        return self.shifts[self.shift]

    def shape(self, vocab_size: int) -> DecoderConfig:
        """Return the shape of the model.

        Args:
            vocab_size: Number of token ids.
        """
        given: Mapping[str, Any] = {"vocab_size": vocab_size, "feed_forward": self.studied.feed_forward}
        shape: DecoderConfig = read_fields(DecoderConfig, self.decoder, "decoder", **given)
        return shape
