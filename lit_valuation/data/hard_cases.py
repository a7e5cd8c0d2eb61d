"""Hard cases: a model's mistakes or largest losses on its validation split, divided into queries and held-out cases.

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
from lit_valuation.functional.losses import WORST
from lit_valuation.samples import Samples


@dataclass(frozen=True)
class HardCases:
    """A model's mistakes on a validation split, or the samples with the largest losses where targets are not classes.

    Args:
        queries: The hard cases that are sent to the owners.
        held_out: The other ones of the same classes, which the owners never see.
    """

    queries: Samples
    held_out: Samples

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the queries' classes, in the model's order; of all labels or target columns."""
        return tuple(self.queries.counts())


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


def worst_cases(
    samples: Samples, losses: Tensor, most: int, share: float = WORST, seed: int | None = None
) -> HardCases:
    """Divide the samples with the largest losses into queries and held-out hard cases.

    At least half of them, rounded down, are held out. The queries of a smaller ``most`` are among those of a larger
    one.

    Args:
        samples: A validation split that the model was not trained on.
        losses: Loss of each sample, ``(n,)``; of equal ones the first count as larger.
        most: Most queries, 1 or more.
        share: Share of the samples that is hard, above 0 and up to 1.
        seed: Seed of the draw, 0 or more; None takes that of the run.

    Raises:
        UserError: If an argument is out of range, or there are fewer than two hard cases.
    """
    check_at_least(1, most=most)
    if losses.shape != (len(samples),) or not bool(losses.isfinite().all()):
        raise UserError(
            f"losses has the shape {tuple(losses.shape)} for {len(samples)} samples, or holds a loss that is not "
            "finite; give one finite loss per sample."
        )
    if not 0 < share <= 1:
        raise UserError(f"share is {share}, but must be above 0 and up to 1; 0.1 takes the worst tenth.")
    n_hard = round(share * len(samples))
    if n_hard < 2:
        raise UserError(
            f"A share of {share:g} of {len(samples)} samples are {n_hard} hard cases, but one is to be sent and one to "
            "be held out; give a larger share, or use a larger validation split."
        )
    hard = losses.argsort(descending=True, stable=True)[:n_hard].sort().values
    queries, held_out = _drawn(hard, most, torch.Generator().manual_seed(part_seed(seed)))
    return HardCases(samples.take(queries), samples.take(held_out))


def _drawn(hard: Tensor, most: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return at most ``most`` of some indices at random, in the order of the draw, and the others in order."""
    order = torch.randperm(len(hard), generator=generator)
    n_sent = min(most, (len(hard) + 1) // 2)
    return hard[order[:n_sent]], hard[order[n_sent:]].sort().values


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
        sent, kept = _drawn(mistakes, per_class, generator)
        queries.append(sent)
        held_out.append(kept)
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
