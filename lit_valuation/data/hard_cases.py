"""Hard cases: a model's mistakes on its validation split, divided into queries and held-out cases.

After Sarwar et al. 2024, Mycroft, arXiv 2410.08432. The queries are sent to the owners; the held-out cases measure
generalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least, did_you_mean
from lit_core.seeds import part_seed
from lit_valuation.samples import Samples


@dataclass(frozen=True)
class HardCases:
    """A model's mistakes on a validation split.

    Args:
        queries: The mistakes that are sent to the owners.
        held_out: The other mistakes of the same classes, which the owners never see.
    """

    queries: Samples
    held_out: Samples

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the queries' classes, in the model's order."""
        return tuple(name for c, name in enumerate(self.queries.classes) if (self.queries.y == c).any())


def hard_cases(
    samples: Samples, predicted: Tensor, per_class: int, seed: int | None = None, classes: Sequence[str] | None = None
) -> HardCases:
    """Divide a model's mistakes into queries and held-out hard cases, class by class.

    At least half of a class's mistakes, rounded down, are held out. The queries of a smaller ``per_class`` are among
    those of a larger one.

    Args:
        samples: A validation split that the model was not trained on.
        predicted: Index of the class that the model predicts for each sample, int64 of shape ``(n,)``.
        per_class: Most queries of a class, 1 or more.
        seed: Seed of the draw, 0 or more; None takes that of the run.
        classes: Names of the classes to take; None takes every class with a mistake.

    Raises:
        UserError: If an argument is out of range, or there are too few mistakes to send one and hold one out.
    """
    _check(samples, predicted, "predicted")
    return _divide(samples, predicted != samples.y, per_class, part_seed(seed), classes)


def perfect_hard_cases(
    samples: Samples,
    predicted: Tensor,
    full_information: Tensor,
    per_class: int,
    seed: int | None = None,
    classes: Sequence[str] | None = None,
) -> HardCases:
    """Divide only the mistakes that a model trained on all owners' data does not make ("perfect D_hard").

    The published experiments chose their queries this way. Use it only to reproduce them: a trainer cannot know the
    predictions of that model, which is right on the queries by construction.

    Args:
        samples: A validation split that no model was trained on.
        predicted: Index of the class that the model predicts for each sample, int64 of shape ``(n,)``.
        full_information: Index of the class that a model trained on all owners' data predicts, of the same shape.
        per_class: Most queries of a class, 1 or more.
        seed: Seed of the draw, 0 or more; None takes that of the run.
        classes: Names of the classes to take; None takes every class with a mistake.

    Raises:
        UserError: If an argument is out of range, or there are too few mistakes to send one and hold one out.
    """
    _check(samples, predicted, "predicted")
    _check(samples, full_information, "full_information")
    return _divide(
        samples, (predicted != samples.y) & (full_information == samples.y), per_class, part_seed(seed), classes
    )


def _check(samples: Samples, predicted: Tensor, name: str) -> None:
    if predicted.shape != samples.y.shape:
        raise UserError(
            f"{name} has shape {tuple(predicted.shape)}, but there are {len(samples)} samples; give one class each."
        )


def _divide(samples: Samples, mistake: Tensor, per_class: int, seed: int, classes: Sequence[str] | None) -> HardCases:
    check_at_least(1, per_class=per_class)
    for name in classes or ():
        if name not in samples.classes:
            hint = did_you_mean(name, samples.classes)
            raise UserError(f"classes names {name}, but the model has {', '.join(samples.classes)}.{hint}")
    where = "on these samples" if classes is None else f"on the samples of {', '.join(classes)}"
    queries, held_out = [], []
    for c, name in enumerate(samples.classes):
        if classes is not None and name not in classes:
            continue
        mistakes = (mistake & (samples.y == c)).nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(seed * len(samples.classes) + c)
        order = torch.randperm(len(mistakes), generator=generator)
        n_sent = min(per_class, (len(mistakes) + 1) // 2)
        queries.append(mistakes[order[:n_sent]])
        held_out.append(mistakes[order[n_sent:]].sort().values)
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
