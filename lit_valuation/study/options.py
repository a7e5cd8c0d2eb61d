"""Options of a cell of the study of Mycroft, on images and on rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lit_core.errors import UserError, check_above, check_at_least, check_shares, require
from lit_core.study.parts import Part
from lit_valuation.data.division import Division
from lit_valuation.data.planting import Planting
from lit_valuation.encoders import Encoder
from lit_valuation.functional.mass import Weights, check_mass
from lit_valuation.module import NetworkCallable
from lit_valuation.selectors import Selector
from lit_valuation.sources.base import LabelledSource
from lit_valuation.training.retrain import Mode
from lit_valuation.training.trees import Kind


@dataclass(frozen=True, kw_only=True)
class ExchangeOptions:
    """What a simulated exchange of images varies, and what its cells share.

    Args:
        source: The source of all samples.
        planting: What makes samples hard; None where the source has groups, of which ``hard`` of the division names the
            hard ones.
        division: How the samples are divided between trainer and owners.
        network: The network of trainer and owners, without the sizes of the data.
        encoder: The public encoder.
        selectors: Selectors by the name under which they are reported.
        budgets: Numbers of samples that an owner may share.
        queries_per_class: Largest number of hard cases of a class that are sent.
        steps: Optimizer steps of each training.
        owner_steps: Optimizer steps of the training of the owners' own models; None takes ``steps``.
        batch_size: Samples per step.
        learning_rate: Learning rate of SGD with momentum 0.9 and a cosine schedule; models are fine-tuned with a fifth.
        checkpoint: When the owners' models are used for selecting, as a share of their training, from 0 to 1.
        gradients: At whose model owners compute gradients: their own at ``checkpoint``, the trainer's, or a linear head
            on the encoder's features of the trainer's samples (probe).
        features: What selectors compare: features of the encoder, or of the owner's model.
        mode: Whether the trainer trains from scratch or fine-tunes.
        noise: What of the owners' data is corrupted.
        noise_share: Share of the samples that are corrupted, from 0 to 1.
        protocol: ``honest`` corrupts at random. ``protected`` spares all samples that any selector chose on clean data,
            as the published experiments did; use it only to reproduce them.
        mass: Share of the trainer's loss that the shared samples get together, above 0 and below 1; None is their
            share by number.
        weights: Whether shared samples count equally among themselves, or by the weights of the selection, as they
            stand in the manifest of an answer.
        retraining: Whether the trainer trains again; otherwise only the selections are examined.
        seconds: Whether the seconds of the processor are measured that each way to rank the owners takes; they differ
            from run to run.

    Raises:
        UserError: If a number is out of its range.
    """

    source: Part[LabelledSource]
    planting: Part[Planting] | None
    division: Division
    network: Part[NetworkCallable]
    encoder: Part[Encoder]
    selectors: dict[str, Part[Selector]]
    budgets: list[int]
    queries_per_class: int = 4
    steps: int = 200
    owner_steps: int | None = None
    batch_size: int = 64
    learning_rate: float = 0.05
    checkpoint: float = 0.2
    gradients: Literal["owner", "trainer", "probe"] = "owner"
    features: Literal["encoder", "task"] = "encoder"
    mode: Mode = "scratch"
    noise: Literal["none", "labels", "inputs"] = "none"
    noise_share: float = 0.8
    protocol: Literal["honest", "protected"] = "honest"
    mass: float | None = None
    weights: Weights = "equal"
    retraining: bool = True
    seconds: bool = False

    def __post_init__(self) -> None:
        _check_budgets(self.budgets)
        check_at_least(1, queries_per_class=self.queries_per_class)
        check_above(0, learning_rate=self.learning_rate)
        check_at_least(1, steps=self.steps, owner_steps=self.owner_steps, batch_size=self.batch_size)
        check_mass(self.mass)
        check_shares(checkpoint=self.checkpoint, noise_share=self.noise_share)


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What a simulated exchange of rows of a table varies, and what its cells share.

    Args:
        table: The source of the rows.
        normal: Names of the classes that are normal; the others are kinds of attack.
        attack: The kind of attack that the trainer wants to detect.
        selectors: Selectors by the name under which they are reported.
        budgets: Rows that the owner may share.
        queries: Rows of the attack that the trainer has.
        most_per_class: Most rows of a class that are used.
        models: Kinds of trees; None for a single tree and a forest.
        false_positives: Share of normal validation rows above the threshold at which recall is measured, from 0
            to below 1.
        mass: Share of the trainer's loss that the shared rows get together, above 0 and below 1; None is their share
            by number.

    Raises:
        UserError: If a number is out of its range.
    """

    table: Part[LabelledSource]
    normal: list[str]
    attack: str
    selectors: dict[str, Part[Selector]]
    budgets: list[int]
    queries: int = 20
    most_per_class: int = 2000
    models: list[Kind] | None = None
    false_positives: float = 0.01
    mass: float | None = None

    def __post_init__(self) -> None:
        _check_budgets(self.budgets)
        check_at_least(1, queries=self.queries, most_per_class=self.most_per_class)
        require(0 <= self.false_positives < 1, "false_positives", self.false_positives, "from 0 to below 1")
        check_mass(self.mass)


def _check_budgets(budgets: list[int]) -> None:
    if not budgets:
        raise UserError("budgets is empty, but must have one number or more; name them.")
    check_at_least(1, budgets=min(budgets))
