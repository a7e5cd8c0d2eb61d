"""The hard cases: what a model gets wrong on its validation split, in a part that is sent and a part that stays home.

Sarwar et al. 2024, Mycroft, arXiv 2410.08432, call the first part the query and measure generalisation on the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_core.errors import UserError, did_you_mean
from lit_valuation.samples import Samples


@dataclass(frozen=True)
class HardCases:
    """Mistakes of a model.

    Args:
        queries: What is sent to the owners.
        held_out: The other mistakes of the same classes, which the owners never see.
    """

    queries: Samples
    held_out: Samples

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that are asked for, in the model's order."""
        return tuple(name for number, name in enumerate(self.queries.classes) if (self.queries.y == number).any())


def hard_cases(
    samples: Samples, predicted: Tensor, per_class: int, seed: int = 0, classes: Sequence[str] | None = None
) -> HardCases:
    """Divide a model's mistakes into queries and held-out hard cases, class by class.

    Half of a class's mistakes, rounded down, stay at home, or more. A smaller ``per_class`` gives a part of the
    queries of a larger one.

    Args:
        samples: A validation split, which the model was not trained on.
        predicted: Number of the class that the model predicts for each sample, of shape ``(n,)``.
        per_class: Most queries of a class, 1 or more.
        seed: Seed of what is drawn, 0 or more.
        classes: Names of the hard classes; None takes all with a mistake.

    Raises:
        UserError: If an argument is out of its range, or there is no mistake to send or none to keep.
    """
    _check(samples, predicted, "predicted")
    return _divide(samples, predicted != samples.y, per_class, seed, classes)


def perfect_hard_cases(
    samples: Samples,
    predicted: Tensor,
    full_information: Tensor,
    per_class: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
) -> HardCases:
    """Divide only those mistakes that a model trained on the owners' whole data does not make.

    How the published experiments chose their queries ("perfect D_hard"). It needs what no model trainer can know, and
    full information is right on the queries by construction: for reproducing those experiments only.

    Args:
        samples: A validation split, which no model was trained on.
        predicted: Number of the class that the model predicts for each sample, of shape ``(n,)``.
        full_information: What the model trained on everybody's data predicts, of shape ``(n,)``.
        per_class: Most queries of a class, 1 or more.
        seed: Seed of what is drawn, 0 or more.
        classes: Names of the hard classes; None takes all with a mistake.

    Raises:
        UserError: If an argument is out of its range, or there is no mistake to send or none to keep.
    """
    _check(samples, predicted, "predicted")
    _check(samples, full_information, "full_information")
    return _divide(samples, (predicted != samples.y) & (full_information == samples.y), per_class, seed, classes)


def _check(samples: Samples, predicted: Tensor, name: str) -> None:
    if predicted.shape != samples.y.shape:
        raise UserError(
            f"{name} has shape {tuple(predicted.shape)}, but there are {len(samples)} samples; give one each."
        )


def _divide(samples: Samples, mistake: Tensor, per_class: int, seed: int, classes: Sequence[str] | None) -> HardCases:
    if per_class < 1:
        raise UserError(f"per_class is {per_class}, but must be 1 or more; ask for at least one query of a class.")
    for name in classes or ():
        if name not in samples.classes:
            hint = did_you_mean(name, samples.classes)
            raise UserError(f"classes names {name}, but the model knows {', '.join(samples.classes)}.{hint}")
    where = "on these samples" if classes is None else f"on the samples of {', '.join(classes)}"
    queries, held_out = [], []
    for number, name in enumerate(samples.classes):
        if classes is not None and name not in classes:
            continue
        mistakes = (mistake & (samples.y == number)).nonzero().squeeze(1)
        drawn = torch.randperm(
            len(mistakes), generator=torch.Generator().manual_seed(seed * len(samples.classes) + number)
        )
        sent = min(per_class, (len(mistakes) + 1) // 2)
        queries.append(mistakes[drawn[:sent]])
        held_out.append(mistakes[drawn[sent:]].sort().values)
    cases = HardCases(samples.take(torch.cat(queries)), samples.take(torch.cat(held_out)))
    if not len(cases.queries):
        raise UserError(
            f"The model makes no mistakes {where}, so there are no hard cases to ask about; use a larger or harder "
            "validation split."
        )
    if not len(cases.held_out):
        raise UserError(
            f"The model makes only {len(cases.queries)} mistakes {where}, one of a class, so none is left to be held "
            "out; use a larger validation split."
        )
    return cases
