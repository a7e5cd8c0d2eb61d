"""An exchange of rows of a table, for experiments: a trainer who knows no attack, an owner who has seen several kinds.

After the network-traffic experiments of Sarwar et al. 2024, Mycroft, arXiv 2410.08432.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lit_valuation.functional.mass import sample_weights
from lit_valuation.samples import Samples, merge_samples
from lit_valuation.selectors import Pool
from lit_valuation.study.options import TableOptions
from lit_valuation.study.rows import FULL, NONE, digest
from lit_valuation.training.trees import Trees, fit_trees

NORMAL, ATTACK = "normal", "attack"


def simulate_tables(seed: int, options: TableOptions) -> list[dict[str, Any]]:
    """Simulate an exchange about one kind of attack, for one seed.

    The trainer trains on normal rows and on what is shared, and wants to detect one kind of attack, of which some rows
    are the queries. The owner has normal rows and attacks of every kind, and shares attacks.

    Args:
        seed: Seed of everything that is drawn.
        options: What the study varies, and what its cells share.

    Returns:
        Rows with the labels ``selector``, ``budget`` and ``model``.
    """
    parts = _parties(options, seed)
    owner, asked, train, val, test = (parts[name] for name in ("owner", "queries", "train", "val", "test"))
    pool, wanted = (Pool(part.y, part.inputs().flatten(1)) for part in (owner, asked))
    everything = (owner.y == 1).nonzero().squeeze(1)
    useful = torch.tensor([group == options.attack for group in owner.groups or ()])
    rows = []
    recalls: dict[tuple[Any, ...], dict[str, float]] = {}
    for name, selector in {NONE: None, **options.selectors, FULL: None}.items():
        for budget in options.budgets:
            if selector is not None:
                picked = selector.build().select(pool, wanted, budget, seed).indices
            else:
                picked = everything if name == FULL else everything[:0]
            for kind in options.models or ["tree", "forest"]:
                key = (kind, *picked.tolist())
                if key not in recalls:
                    mass, shared = options.mass, torch.ones(len(picked))
                    weights = None if mass is None else sample_weights(len(train), mass, shared)
                    both, chosen_by = merge_samples([train, owner.take(picked)]), merge_samples([val, asked])
                    trees = fit_trees(both, chosen_by, kind, seed, weights)
                    recalls[key] = _recall(trees, val, test, options.false_positives)
                about = {"useful": float(useful[picked].float().mean()), "selected": float(len(picked))}
                row = {"selector": name, "budget": budget, "model": kind}
                rows.append(row | recalls[key] | (about if len(picked) else {}))
    return [{"data": digest(list(parts.values()))} | row for row in rows]


def _parties(options: TableOptions, seed: int) -> dict[str, Samples]:
    """Divide normal rows among owner and trainer, the attack's among queries, test, owner; the owner has the rest."""
    samples = options.table.build().samples()
    generator = torch.Generator().manual_seed(seed)
    split: dict[str, list[Tensor]] = {name: [] for name in ("owner", "queries", "train", "val", "test")}
    for number, name in enumerate(samples.classes):
        mine = (samples.y == number).nonzero().squeeze(1)
        mine = mine[torch.randperm(len(mine), generator=generator)][: options.most_per_class]
        if name in options.normal:
            for part, rows in zip(("owner", "train", "val", "test"), mine.chunk(4), strict=True):
                split[part].append(rows)
        elif name == options.attack:
            split["queries"].append(mine[: options.queries])
            for part, rows in zip(("test", "owner"), mine[options.queries :].chunk(2), strict=True):
                split[part].append(rows)
        else:
            split["owner"].append(mine)
    kinds = tuple(samples.classes[c] for c in samples.y.tolist())
    y = torch.tensor([int(kind not in options.normal) for kind in kinds])
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
