"""A cell of the study of Mycroft on images: a whole exchange in one process.

After the experiments of Sarwar et al. 2024, Mycroft, arXiv 2410.08432, with equal budgets for all selectors. The steps:
hard cases of the trainer, selections of the owners, training with each selection, scores, ranking of the owners.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from lit_valuation.data.division import Division
from lit_valuation.data.hard_cases import hard_cases
from lit_valuation.data.noise import Noise
from lit_valuation.module import ClassifierTask
from lit_valuation.samples import Samples
from lit_valuation.selectors import FullInformation, Selection
from lit_valuation.study.options import ExchangeOptions
from lit_valuation.study.pools import Views, query_distances, shared_encoder
from lit_valuation.study.rows import (
    FULL,
    NONE,
    ORACLE,
    Key,
    OwnerData,
    best_selection,
    digest,
    proxy_scores,
    rankings,
    retrained_scores,
    selection_row,
)
from lit_valuation.study.seconds import ranking_seconds
from lit_valuation.training.retrain import TrainingRecipe, accuracies, predict_logits
from lit_valuation.training.retrain_many import retrain_many


def simulate(seed: int, options: ExchangeOptions) -> list[dict[str, Any]]:
    """Simulate an exchange between a trainer and owners, for one seed.

    Args:
        seed: Seed of everything that is drawn.
        options: What the cell varies, and what all cells share.

    Returns:
        Rows with the labels ``selector``, ``budget`` and, unless they rank the owners, ``owner``.
    """
    samples, hard = options.source.build().samples(), options.division.hard
    if options.planting is not None:
        samples = options.planting.build().plant(samples, seed)
    parties = options.division.divide(samples, seed)
    train, val, test = (parties["trainer", split] for split in ("train", "val", "test"))
    names = [f"owners/{name}" for name in options.division.owners]
    clean = {name: parties[name, "train"] for name in names}
    recipe = _recipe(options, train, options.steps)
    of_owners = _recipe(options, train, options.owner_steps or options.steps)
    selectors = {name: selector.build() for name, selector in options.selectors.items()}
    (baseline,) = retrain_many(recipe, train, [None], seed)
    asked = sorted(
        {samples.classes[c] for c, g in zip(samples.y.tolist(), samples.groups or (), strict=True) if g in hard}
    )
    cases = hard_cases(val, predict_logits(baseline, val).argmax(1), options.queries_per_class, seed, asked)
    encoder = shared_encoder(options.encoder)
    look = Views(of_owners, train, baseline, cases, encoder, seed, options).pools
    share = options.noise_share
    corrupt = Noise(labels=share * (options.noise == "labels"), inputs=share * (options.noise == "inputs"))
    spared: dict[str, set[str]] = {name: set() for name in names}
    if options.noise != "none" and options.protocol == "protected":
        for name, (pool, queries) in look(clean).items():
            for selector in selectors.values():
                picked = selector.select(pool, queries, max(options.budgets), seed).indices
                spared[name] |= set(clean[name].take(picked).keys)
    owners = {
        name: _owner(clean[name], options.division, name.partition("/")[2], corrupt, seed + number, spared[name])
        for number, name in enumerate(names)
    }
    selections: dict[Key, Selection] = {}
    pools = look({name: owner.samples for name, owner in owners.items()})
    far = {name: query_distances(*both) for name, both in pools.items()}
    for name, (pool, queries) in pools.items():
        everything = FullInformation().select(pool, queries, len(pool), seed)
        for budget in options.budgets:
            selections[name, FULL, budget] = everything
            selections[name, ORACLE, budget] = best_selection(pool, queries, owners[name].useful, budget, seed)
            for title, selector in selectors.items():
                selections[name, title, budget] = selector.select(pool, queries, budget, seed)
    best = {(name, budget): selection for (name, title, budget), selection in selections.items() if title == ORACLE}
    rows = [
        selection_row(owners[key[0]], key, selection, best[key[0], key[2]]) for key, selection in selections.items()
    ]
    if options.retraining:
        sets = {
            "queries": cases.queries,
            "held_out": cases.held_out,
            "hard_classes": test.of_classes(cases.classes),
            "test": test,
        }
        base = accuracies(baseline, sets)
        scores = retrained_scores(recipe, baseline, options, train, owners, selections, sets, seed)
        rows = [row | scores[key] for row, key in zip(rows, selections, strict=True)]
        rows += [
            {"owner": name.partition("/")[2], "selector": NONE, "budget": budget} | base
            for name in names
            for budget in options.budgets
        ]
        cheap = {
            (name, selector, budget): proxy_scores(baseline, cases, owners[name], selection, far[name])
            for (name, selector, budget), selection in selections.items()
            if selector != FULL
        }
        ranked = rankings(owners, selections, scores, cheap)
        if options.seconds:
            for row in (row for row in ranked if row["selector"] in selectors):
                keys = [(name, row["selector"], row["budget"]) for name in names]
                answers = [owners[key[0]].samples.take(selections[key].indices) for key in keys]
                row |= ranking_seconds(recipe, baseline, train, answers, cases, options.encoder.build(), seed)
        rows += ranked
    data = digest([train, val, test, *(owner.samples for owner in owners.values())])
    return [{"data": data} | row for row in rows]


def _recipe(options: ExchangeOptions, train: Samples, steps: int) -> TrainingRecipe:
    """Return how a party trains for a number of steps."""

    def make(seed: int) -> ClassifierTask:
        return ClassifierTask(
            options.network.build(),
            train.classes,
            train.x.shape[1:],
            optimizer=partial(SGD, lr=options.learning_rate, momentum=0.9, weight_decay=1e-4),
            scheduler=partial(CosineAnnealingLR, T_max=steps),
            label_smoothing=0.1,
            seed=seed,
        )

    return TrainingRecipe(make, steps, options.batch_size)


def _owner(clean: Samples, division: Division, name: str, noise: Noise, seed: int, spared: set[str]) -> OwnerData:
    samples, corrupted = noise.corrupt(clean, seed, spared)
    bad = {key for keys in corrupted.values() for key in keys}
    groups = samples.groups or ()
    useful = [group in division.hard and key not in bad for group, key in zip(groups, samples.keys, strict=True)]
    return OwnerData(samples, torch.tensor(useful), division.owners[name].useful)
