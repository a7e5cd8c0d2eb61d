"""An exchange of rows of a table, for experiments: a trainer who knows no attack, an owner who has seen several kinds.

After the network-traffic experiments of Sarwar et al. 2024, Mycroft, arXiv 2410.08432.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lit_core.study.parts import Part
from lit_valuation.functional.mass import check_mass, sample_weights
from lit_valuation.samples import Samples, merge_samples
from lit_valuation.selectors import Pool, Selector
from lit_valuation.sources.base import LabelledSource
from lit_valuation.study.rows import FULL, NONE, digest
from lit_valuation.training.trees import Kind, Trees, fit_trees

NORMAL, ATTACK = "normal", "attack"


def simulate_tables(
    seed: int,
    table: Part[LabelledSource],
    normal: list[str],
    attack: str,
    selectors: dict[str, Part[Selector]],
    budgets: list[int],
    queries: int = 20,
    most_per_class: int = 2000,
    models: list[Kind] | None = None,
    false_positives: float = 0.01,
    mass: float | None = None,
) -> list[dict[str, Any]]:
    """Simulate an exchange about one kind of attack, for one seed.

    The trainer trains on normal rows and on what is shared, and wants to detect one kind of attack, of which some rows
    are the queries. The owner has normal rows and attacks of every kind, and shares attacks.

    Args:
        seed: Seed of everything that is drawn.
        table: The source of the rows.
        normal: Names of the classes that are normal; the others are kinds of attack.
        attack: The kind of attack that the trainer wants to detect.
        selectors: Selectors by the name under which they are reported.
        budgets: Rows that the owner may share.
        queries: Rows of the attack that the trainer has.
        most_per_class: Most rows of a class that are used.
        models: Kinds of trees; None for a single tree and a forest.
        false_positives: Share of normal validation rows above the threshold at which recall is measured.
        mass: Share of the trainer's loss that the shared rows get together, above 0 and below 1; None is their share
            by number.

    Returns:
        Rows with the labels ``selector``, ``budget`` and ``model``.
    """
    check_mass(mass)
    samples = table.build().samples()
    parts = _parties(samples, normal, attack, queries, most_per_class, seed)
    owner, asked, train, val, test = (parts[name] for name in ("owner", "queries", "train", "val", "test"))
    pool, wanted = (Pool(part.y, part.inputs().flatten(1)) for part in (owner, asked))
    everything = (owner.y == 1).nonzero().squeeze(1)
    useful = torch.tensor([group == attack for group in owner.groups or ()])
    rows = []
    recalls: dict[tuple[Any, ...], dict[str, float]] = {}
    for name, selector in {NONE: None, **selectors, FULL: None}.items():
        for budget in budgets:
            if selector is not None:
                picked = selector.build().select(pool, wanted, budget, seed).indices
            else:
                picked = everything if name == FULL else everything[:0]
            for kind in models or ["tree", "forest"]:
                key = (kind, *picked.tolist())
                if key not in recalls:
                    weights = None if mass is None else sample_weights(len(train), mass, torch.ones(len(picked)))
                    both, chosen_by = merge_samples([train, owner.take(picked)]), merge_samples([val, asked])
                    recalls[key] = _recall(fit_trees(both, chosen_by, kind, seed, weights), val, test, false_positives)
                about = {"useful": float(useful[picked].float().mean()), "selected": float(len(picked))}
                row = {"selector": name, "budget": budget, "model": kind}
                rows.append(row | recalls[key] | (about if len(picked) else {}))
    return [{"data": digest(list(parts.values()))} | row for row in rows]


def _parties(
    samples: Samples, normal: list[str], attack: str, queries: int, most_per_class: int, seed: int
) -> dict[str, Samples]:
    """Divide normal rows among owner and trainer, the attack's among queries, test, owner; the owner has the rest."""
    generator = torch.Generator().manual_seed(seed)
    split: dict[str, list[Tensor]] = {name: [] for name in ("owner", "queries", "train", "val", "test")}
    for number, name in enumerate(samples.classes):
        mine = (samples.y == number).nonzero().squeeze(1)
        mine = mine[torch.randperm(len(mine), generator=generator)][:most_per_class]
        if name in normal:
            for part, rows in zip(("owner", "train", "val", "test"), mine.chunk(4), strict=True):
                split[part].append(rows)
        elif name == attack:
            split["queries"].append(mine[:queries])
            for part, rows in zip(("test", "owner"), mine[queries:].chunk(2), strict=True):
                split[part].append(rows)
        else:
            split["owner"].append(mine)
    kinds = tuple(samples.classes[c] for c in samples.y.tolist())
    y = torch.tensor([int(kind not in normal) for kind in kinds])
    two = replace(samples, y=y, classes=(NORMAL, ATTACK), groups=kinds)
    return {name: two.take(torch.cat(rows)) for name, rows in split.items()}


def _recall(trees: Trees, val: Samples, test: Samples, false_positives: float) -> dict[str, float]:
    """Return recall and false positives on the test at the threshold that the normal validation rows set."""
    usual, scores = (trees.probabilities(part.x)[:, 1] for part in (val, test))
    threshold = usual.sort(descending=True).values[int(false_positives * len(usual))]
    reported, attacked = scores > threshold, test.y == 1
    return {
        "recall": float(reported[attacked].float().mean()),
        "false_positives": float(reported[~attacked].float().mean()),
    }
