"""The rows of a simulated exchange: of each selection, of training with it, and of the ranking of the owners."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from lit_core.statistics.means import kendall
from lit_valuation.data.hard_cases import HardCases
from lit_valuation.exchange.proxy_scores import relative_residual
from lit_valuation.functional.mass import Weights, sample_weights
from lit_valuation.module import ClassifierTask
from lit_valuation.samples import Samples
from lit_valuation.selectors import Pool, Selection
from lit_valuation.selectors.by_class import select_by_class
from lit_valuation.study.options import ExchangeOptions
from lit_valuation.training.retrain import TrainingRecipe, accuracies
from lit_valuation.training.retrain_many import retrain_many

#: Owner, selector and budget.
Key = tuple[str, str, int]
#: Selector in the rows without sharing, in those with everything shared, and in those with the best choice there is.
NONE, FULL, ORACLE = "nothing", "FullInformation", "Oracle"


@dataclass(frozen=True)
class OwnerData:
    """An owner's samples, and which of them help: those of the hard group that are not corrupted.

    Args:
        samples: All samples of the owner.
        useful: Whether each sample helps, bool of shape ``(n,)``.
        share: The useful share that the division gave the owner.
    """

    samples: Samples
    useful: Tensor
    share: float


def best_selection(pool: Pool, queries: Pool, useful: Tensor, budget: int, seed: int) -> Selection:
    """Return the choice of an oracle who knows which samples help, drawn at random among equal ones.

    Args:
        pool: The owner's samples.
        queries: The hard cases.
        useful: Whether each sample helps, bool of shape ``(n,)``.
        budget: Most samples to choose.
        seed: Seed of the draw.
    """
    generator = torch.Generator().manual_seed(seed)

    def order(candidates: Tensor, of_queries: Tensor, share: int) -> Tensor:
        drawn = candidates[torch.randperm(len(candidates), generator=generator)]
        return torch.cat([drawn[useful[drawn]], drawn[~useful[drawn]]])

    return select_by_class(pool, queries, budget, order)


def selection_row(owner: OwnerData, key: Key, selection: Selection, best: Selection) -> dict[str, Any]:
    """Return the row of a selection: whose it is, how much of it helps, and how much of the best choice does.

    ``of_attainable`` is the number of its samples that help, as a share of that of the best choice. A selection that
    leaves a part of the budget may have a larger useful share than the best choice, but not more of the useful samples.
    """
    name, selector, budget = key
    row: dict[str, Any] = {"owner": name.partition("/")[2], "selector": selector, "budget": budget}
    chosen, had = (owner.useful[one.indices].float() for one in (selection, best))
    row |= {"known_share": owner.share, "selected": float(len(chosen))}
    row |= {"useful": float(chosen.mean()), "attainable": float(had.mean())}
    row |= {"of_attainable": float(chosen.sum() / had.sum())} if had.any() and selector != FULL else {}
    return row | {fact: float(value) for fact, value in selection.facts.items()}


def retrained_scores(
    recipe: TrainingRecipe,
    baseline: ClassifierTask,
    options: ExchangeOptions,
    train: Samples,
    owners: Mapping[str, OwnerData],
    selections: Mapping[Key, Selection],
    sets: Mapping[str, Samples],
    seed: int,
) -> dict[Key, dict[str, float]]:
    """Train again with each selection, and return the scores by selection. Equal selections are trained with once.

    Args:
        recipe: How the trainer trains.
        baseline: The trainer's model before the exchange.
        options: The options of the cell.
        train: The trainer's samples.
        owners: The owners by name.
        selections: The selections.
        sets: The sets that are scored, by name.
        seed: Seed of the training.
    """
    if options.mode == "finetune":
        recipe = _slower(recipe, options.learning_rate / 5, baseline)
    ordered = {key: _in_order(selection) for key, selection in selections.items()}
    chosen = {key: _content(key[0], selection, options.weights) for key, selection in ordered.items()}
    different = dict(zip(chosen.values(), ordered.items(), strict=True))
    answers = [owners[name].samples.take(selection.indices) for (name, _, _), selection in different.values()]
    weights = [_weights(len(train), selection, options) for _, selection in different.values()]
    trained = retrain_many(recipe, train, answers, seed, options.mode, weights=weights)
    by_content = dict(zip(different, (accuracies(task, sets) for task in trained), strict=True))
    return {key: by_content[one] for key, one in chosen.items()}


def _in_order(selection: Selection) -> Selection:
    """Return a selection in the order of the owner's samples, on which that of a training depends."""
    order = selection.indices.argsort()
    return replace(selection, indices=selection.indices[order], weights=selection.weights[order])


def _content(owner: str, selection: Selection, weights: Weights) -> tuple[Any, ...]:
    """Return what a training with a selection depends on."""
    used = [selection.indices, *([selection.weights] if weights == "manifest" else [])]
    return owner, *(tuple(column.tolist()) for column in used)


def _weights(own: int, selection: Selection, options: ExchangeOptions) -> Tensor | None:
    if options.mass is None and options.weights == "equal":
        return None
    within = selection.weights if options.weights == "manifest" else torch.ones(len(selection.weights))
    return sample_weights(own, options.mass, within)


def proxy_scores(
    baseline: ClassifierTask, cases: HardCases, owner: OwnerData, selection: Selection, far: Tensor
) -> dict[str, float]:
    """Return the scores that need no training, the larger the better."""
    answer = owner.samples.take(selection.indices)
    residual = relative_residual(baseline, answer, cases.queries)
    return {"residual": -residual, "psi": -float(far[selection.indices].mean())}


def rankings(
    owners: Mapping[str, OwnerData],
    selections: Mapping[Key, Selection],
    scores: Mapping[Key, Mapping[str, float]],
    cheap: Mapping[Key, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Compare the order of the owners by held-out accuracy with that by full information and by known share.

    The same for the scores that need no training, and how much more they agree with full information than accuracy
    after training with the same answers does (``_tau_gain``). Kendall's tau; 0 where one side ranks all owners equally.
    """
    rows = []
    shares = [owner.share for owner in owners.values()]
    for selector, budget in dict.fromkeys((selector, budget) for _, selector, budget in selections):
        full = [scores[name, FULL, budget]["held_out"] for name in owners]
        by_kind = {"": [scores[name, selector, budget]["held_out"] for name in owners]}
        if selector != FULL:
            by_kind |= {
                f"{kind}_": [cheap[name, selector, budget][kind] for name in owners] for kind in ("residual", "psi")
            }
        row: dict[str, Any] = {"selector": selector, "budget": budget}
        for kind, values in by_kind.items():
            row |= {f"{kind}tau_full": _tau(values, full), f"{kind}tau_share": _tau(values, shares)}
            row |= {f"{kind}tau_gain": row[f"{kind}tau_full"] - row["tau_full"]} if kind else {}
        rows.append(row)
    return rows


def digest(sets: Sequence[Samples]) -> str:
    """Return a hash of inputs and labels."""
    content = hashlib.sha256()
    for samples in sets:
        content.update(samples.x.contiguous().numpy().tobytes() + samples.y.numpy().tobytes())
    return content.hexdigest()[:16]


def _tau(values: Sequence[float], truth: Sequence[float]) -> float:
    tau = kendall(values, truth)
    return 0.0 if math.isnan(tau) else tau


def _slower(recipe: TrainingRecipe, learning_rate: float, baseline: ClassifierTask) -> TrainingRecipe:
    def make(seed: int) -> ClassifierTask:
        task = recipe.make(seed)
        assert isinstance(task, ClassifierTask)
        task.optimizer = partial(SGD, lr=learning_rate, momentum=0.9, weight_decay=1e-4)
        return task

    return replace(recipe, make=make, weights=baseline.state_dict())
