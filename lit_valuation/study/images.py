"""A whole exchange in one process, for experiments: hard cases, owners' selections, retraining, scores, ranking.

After the experiments of Sarwar et al. 2024, Mycroft, arXiv 2410.08432, with equal budgets for all selectors.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from lightning.pytorch.cli import instantiate_class
from torch import Tensor
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

from lit_core.study.statistics import kendall
from lit_valuation.data.division import Division, Owner
from lit_valuation.data.hard_cases import HardCases, hard_cases
from lit_valuation.data.noise import Noise
from lit_valuation.data.planting import HARD
from lit_valuation.encoders import Encoder, TaskFeatures, embed
from lit_valuation.encoders.base import Inputs
from lit_valuation.exchange.proxy_scores import relative_residual
from lit_valuation.functional.median import geometric_median, psi
from lit_valuation.last_layer import gather_gradients
from lit_valuation.module import ClassifierTask
from lit_valuation.samples import Samples
from lit_valuation.selectors import FullInformation, Pool, Selection
from lit_valuation.training.retrain import Mode, TrainingRecipe, accuracies, predict_logits
from lit_valuation.training.retrain_many import retrain_many

Plain = dict[str, Any]
#: Owner, selector and budget.
Key = tuple[str, str, int]
#: Names of the rows without sharing and with everything shared.
NONE, FULL = "nothing", "FullInformation"


@dataclass(frozen=True)
class Data:
    """An owner's samples, and which of them help: those of the hard group that are not corrupted.

    Args:
        samples: What the owner has.
        useful: Whether each sample helps, bool of shape ``(n,)``.
        share: The useful share that the division gave the owner.
    """

    samples: Samples
    useful: Tensor
    share: float


def simulate(
    seed: int,
    source: Plain,
    planting: Plain,
    division: Plain,
    network: Plain,
    encoder: Plain,
    selectors: dict[str, Plain],
    budgets: list[int],
    queries_per_class: int = 4,
    steps: int = 200,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    checkpoint: float = 0.2,
    features: Literal["encoder", "task"] = "encoder",
    mode: Mode = "scratch",
    noise: Literal["none", "labels", "inputs"] = "none",
    noise_share: float = 0.8,
    protocol: Literal["honest", "protected"] = "honest",
    retraining: bool = True,
) -> list[dict[str, Any]]:
    """Simulate an exchange between a trainer and owners, for one seed.

    Args:
        seed: Seed of everything that is drawn.
        source: Class and arguments of the source.
        planting: Class and arguments of what makes samples hard.
        division: Arguments of `Division`; of its owners those of `Owner`.
        network: Class and arguments of the network of trainer and owners, without the sizes of the data.
        encoder: Class and arguments of the public encoder.
        selectors: Selectors by the name under which they are reported.
        budgets: Samples that an owner may share.
        queries_per_class: Most hard cases of a class that are sent.
        steps: Optimizer steps of each training.
        batch_size: Samples per step.
        learning_rate: Of SGD with momentum 0.9 and a cosine schedule; a fifth of it where models are fine-tuned.
        checkpoint: When the owners' models are used for selecting, as a share of their training.
        features: What selectors compare: those of the encoder, or of the owner's model.
        mode: Whether the trainer trains again from scratch or fine-tunes.
        noise: What of the owners' data is corrupted.
        noise_share: Share of the samples that are.
        protocol: ``honest`` corrupts at random. ``protected`` spares all that any selector chose on clean data, as the
            published experiments did, and is only for their reproduction.
        retraining: Whether the trainer trains again; otherwise only the selections are looked at.

    Returns:
        Rows with the labels ``selector``, ``budget`` and, unless they rank the owners, ``owner``.
    """
    numbers = make_division(division)
    samples = build(planting).plant(build(source).samples(), seed)
    parties = numbers.divide(samples, seed)
    train, val, test = (parties["trainer", split] for split in ("train", "val", "test"))
    names = [f"owners/{name}" for name in numbers.owners]
    clean = {name: parties[name, "train"] for name in names}
    recipe = make_recipe(network, train, steps, batch_size, learning_rate)
    chosen = {name: build(selector) for name, selector in selectors.items()}
    (baseline,) = retrain_many(recipe, train, [None], seed)
    asked = sorted(
        {samples.classes[c] for c, g in zip(samples.y.tolist(), samples.groups or (), strict=True) if g == HARD}
    )
    cases = hard_cases(val, predict_logits(baseline, val).argmax(1), queries_per_class, seed, asked)
    look = partial(_look, recipe, cases, _encoder(json.dumps(encoder)), seed, checkpoint, features)
    corrupt = Noise(labels=noise_share * (noise == "labels"), inputs=noise_share * (noise == "inputs"))
    spared: dict[str, set[str]] = {name: set() for name in names}
    if noise != "none" and protocol == "protected":
        for name, (pool, queries) in look(clean).items():
            for selector in chosen.values():
                picked = selector.select(pool, queries, max(budgets), seed).indices
                spared[name] |= set(clean[name].take(picked).keys)
    owners = {
        name: _owner(clean[name], numbers.owners[name.partition("/")[2]], corrupt, seed + place, spared[name])
        for place, name in enumerate(names)
    }
    selections: dict[Key, Selection] = {}
    pools = look({name: owner.samples for name, owner in owners.items()})
    far = {name: _distances(*both) for name, both in pools.items()}
    for name, (pool, queries) in pools.items():
        everything = FullInformation().select(pool, queries, len(pool), seed)
        for budget in budgets:
            selections[name, FULL, budget] = everything
            for title, selector in chosen.items():
                selections[name, title, budget] = selector.select(pool, queries, budget, seed)
    rows = [_selection_row(owners[key[0]], key, selection) for key, selection in selections.items()]
    if retraining:
        sets = {
            "queries": cases.queries,
            "held_out": cases.held_out,
            "hard_classes": test.of_classes(cases.classes),
            "test": test,
        }
        base = accuracies(baseline, sets)
        scores = _retrained(recipe, baseline, learning_rate, mode, train, owners, selections, sets, seed)
        rows = [row | scores[key] for row, key in zip(rows, selections, strict=True)]
        rows += [
            {"owner": name.partition("/")[2], "selector": NONE, "budget": budget} | base
            for name in names
            for budget in budgets
        ]
        cheap = {
            (name, selector, budget): _cheap(baseline, cases, owners[name], selection, far[name])
            for (name, selector, budget), selection in selections.items()
            if selector != FULL
        }
        rows += _rankings(owners, selections, scores, cheap)
    data = digest([train, val, test, *(owner.samples for owner in owners.values())])
    return [{"data": data} | row for row in rows]


class _Remembering(Encoder):
    """Encodes no input twice among the last few: the cells of a study look at the same images again and again."""

    def __init__(self, encoder: Encoder, last: int = 32) -> None:
        self.encoder, self.last, self.known = encoder, last, dict[str, Tensor]()
        self.name, self.sha256 = encoder.name, encoder.sha256

    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Return the features of the inputs; see `Encoder.encode`."""
        assert isinstance(x, Tensor)
        key = hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()
        features = self.known.pop(key, None)
        self.known[key] = self.encoder.encode(x, batch_size) if features is None else features
        if len(self.known) > self.last:
            del self.known[next(iter(self.known))]
        return self.known[key]


@lru_cache(maxsize=1)
def _encoder(description: str) -> Encoder:
    return _Remembering(build(json.loads(description)))


def build(description: Plain) -> Any:
    """Make what a class path and arguments describe."""
    return instantiate_class((), description)


def make_division(division: Plain) -> Division:
    """Make a division whose owners are described by plain arguments."""
    owners = {name: Owner(**arguments) for name, arguments in division.get("owners", {}).items()}
    return Division(**{**division, **({"owners": owners} if owners else {})})


def make_recipe(network: Plain, train: Samples, steps: int, batch_size: int, learning_rate: float) -> TrainingRecipe:
    """Return how all parties train."""

    def make(seed: int) -> ClassifierTask:
        return ClassifierTask(
            lambda shape, n_classes: instantiate_class((shape, n_classes), network),
            train.classes,
            train.x.shape[1:],
            optimizer=partial(SGD, lr=learning_rate, momentum=0.9, weight_decay=1e-4),
            scheduler=partial(CosineAnnealingLR, T_max=steps),
            label_smoothing=0.1,
            seed=seed,
        )

    return TrainingRecipe(make, steps, batch_size)


def _look(
    recipe: TrainingRecipe,
    cases: HardCases,
    encoder: Encoder,
    seed: int,
    checkpoint: float,
    features: str,
    owners: Mapping[str, Samples],
) -> dict[str, tuple[Pool, Pool]]:
    """Return pool and queries as each owner sees them: with its own model, trained up to the checkpoint."""
    moment = max(1, round(checkpoint * recipe.steps))
    nobody = cases.queries.take([])
    trained = retrain_many(recipe, nobody, list(owners.values()), seed, steps=[moment])
    seen = {}
    for (name, samples), task in zip(owners.items(), trained, strict=True):
        view = TaskFeatures(task) if features == "task" else encoder
        pools = []
        for part in (samples, cases.queries):
            found = gather_gradients(task, [(part.inputs(), part.y)], label_smoothing=task.label_smoothing)
            pools.append(Pool(part.y, part.inputs().flatten(1), embed(view, part.x), found.gradients))
        seen[name] = (pools[0], pools[1])
    return seen


def _owner(clean: Samples, owner: Owner, noise: Noise, seed: int, spared: set[str]) -> Data:
    samples, corrupted = noise.corrupt(clean, seed, spared)
    bad = {key for keys in corrupted.values() for key in keys}
    groups = samples.groups or ()
    useful = [group == HARD and key not in bad for group, key in zip(groups, samples.keys, strict=True)]
    return Data(samples, torch.tensor(useful), owner.useful)


def _selection_row(owner: Data, key: Key, selection: Selection) -> dict[str, Any]:
    name, selector, budget = key
    row: dict[str, Any] = {"owner": name.partition("/")[2], "selector": selector, "budget": budget}
    picked = owner.useful[selection.indices]
    row |= {"known_share": owner.share, "selected": float(len(picked)), "useful": float(picked.float().mean())}
    return row | {fact: float(value) for fact, value in selection.facts.items()}


def _retrained(
    recipe: TrainingRecipe,
    baseline: ClassifierTask,
    learning_rate: float,
    mode: Mode,
    train: Samples,
    owners: Mapping[str, Data],
    selections: Mapping[Key, Selection],
    sets: Mapping[str, Samples],
    seed: int,
) -> dict[Key, dict[str, float]]:
    """Train again with each selection, each different one once, and return the scores by selection."""
    if mode == "finetune":
        recipe = _slower(recipe, learning_rate / 5, baseline)
    places = {key: (key[0], tuple(sorted(selection.indices.tolist()))) for key, selection in selections.items()}
    different = list(dict.fromkeys(places.values()))
    answers = [owners[name].samples.take(list(indices)) for name, indices in different]
    found = [accuracies(task, sets) for task in retrain_many(recipe, train, answers, seed, mode)]
    by_place = dict(zip(different, found, strict=True))
    return {key: by_place[place] for key, place in places.items()}


def _slower(recipe: TrainingRecipe, learning_rate: float, baseline: ClassifierTask) -> TrainingRecipe:
    def make(seed: int) -> ClassifierTask:
        task = recipe.make(seed)
        assert isinstance(task, ClassifierTask)
        task.optimizer = partial(SGD, lr=learning_rate, momentum=0.9, weight_decay=1e-4)
        return task

    return replace(recipe, make=make, weights=baseline.state_dict())


def _distances(pool: Pool, queries: Pool) -> Tensor:
    """Return each sample's distance from the median of its class's queries; infinite where there is none."""
    assert pool.features is not None and queries.features is not None
    found = torch.full((len(pool),), math.inf)
    for c in queries.y.unique():
        found[pool.y == c] = psi(pool.features[pool.y == c], geometric_median(queries.features[queries.y == c]))
    return found


def _cheap(
    baseline: ClassifierTask, cases: HardCases, owner: Data, selection: Selection, far: Tensor
) -> dict[str, float]:
    """Return the scores that need no training, the larger the better."""
    answer = owner.samples.take(selection.indices)
    residual = relative_residual(baseline, answer, cases.queries)
    return {"residual": -residual, "psi": -float(far[selection.indices].mean())}


def _rankings(
    owners: Mapping[str, Data],
    selections: Mapping[Key, Selection],
    scores: Mapping[Key, Mapping[str, float]],
    cheap: Mapping[Key, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Compare the order of the owners by held-out accuracy with that by full information and by known share.

    The same for the cheap scores. Kendall's tau; 0 where one side puts all owners level, so that it says nothing.
    """
    rows = []
    shares = [owner.share for owner in owners.values()]
    for selector, budget in dict.fromkeys((selector, budget) for _, selector, budget in selections):
        full = [scores[name, FULL, budget]["held_out"] for name in owners]
        found = {"": [scores[name, selector, budget]["held_out"] for name in owners]}
        if selector != FULL:
            found |= {
                f"{kind}_": [cheap[name, selector, budget][kind] for name in owners] for kind in ("residual", "psi")
            }
        row: dict[str, Any] = {"selector": selector, "budget": budget}
        for kind, values in found.items():
            row |= {f"{kind}tau_full": _tau(values, full), f"{kind}tau_share": _tau(values, shares)}
        rows.append(row)
    return rows


def _tau(values: Sequence[float], truth: Sequence[float]) -> float:
    tau = kendall(values, truth)
    return 0.0 if math.isnan(tau) else tau


def digest(sets: Sequence[Samples]) -> str:
    """Return a hash of inputs and labels."""
    found = hashlib.sha256()
    for samples in sets:
        found.update(samples.x.contiguous().numpy().tobytes() + samples.y.numpy().tobytes())
    return found.hexdigest()[:16]
