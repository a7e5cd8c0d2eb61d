"""What the owners of a simulated exchange compare: pool and queries with features and gradients."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from lit_core.study.parts import Part
from lit_valuation.data.hard_cases import HardCases
from lit_valuation.encoders import Encoder, TaskFeatures, embed
from lit_valuation.encoders.base import Inputs
from lit_valuation.functional.median import geometric_median, psi
from lit_valuation.last_layer import gather_gradients
from lit_valuation.samples import Samples
from lit_valuation.selectors import Pool
from lit_valuation.training.retrain import TrainingRecipe
from lit_valuation.training.retrain_many import retrain_many


@lru_cache(maxsize=1)
def shared_encoder(encoder: Part[Encoder]) -> Encoder:
    """Return the encoder, which the cells of a study share."""
    return _RememberingEncoder(encoder.build())


def view_pools(
    recipe: TrainingRecipe,
    cases: HardCases,
    encoder: Encoder,
    seed: int,
    checkpoint: float,
    features: str,
    owners: Mapping[str, Samples],
) -> dict[str, tuple[Pool, Pool]]:
    """Return pool and queries as each owner sees them: with its own model, trained up to the checkpoint.

    Args:
        recipe: How the owners train.
        cases: The hard cases of the trainer.
        encoder: The public encoder.
        seed: Seed of the owners' training.
        checkpoint: When the owners' models are used, as a share of their training.
        features: ``encoder`` or ``task``, whose features the pools hold.
        owners: Samples of the owners by name.
    """
    moment = max(1, round(checkpoint * recipe.steps))
    nobody = cases.queries.take([])
    trained = retrain_many(recipe, nobody, list(owners.values()), seed, steps=[moment])
    seen = {}
    for (name, samples), task in zip(owners.items(), trained, strict=True):
        view = TaskFeatures(task) if features == "task" else encoder
        pools = []
        for part in (samples, cases.queries):
            gradients = gather_gradients(task, [(part.inputs(), part.y)])
            pools.append(Pool(part.y, part.inputs().flatten(1), embed(view, part.x), gradients.gradients))
        seen[name] = (pools[0], pools[1])
    return seen


def query_distances(pool: Pool, queries: Pool) -> Tensor:
    """Return each sample's distance from the median of its class's queries, ``(n,)``; infinite where there is none."""
    assert pool.features is not None and queries.features is not None
    distances = torch.full((len(pool),), math.inf)
    for c in queries.y.unique():
        distances[pool.y == c] = psi(pool.features[pool.y == c], geometric_median(queries.features[queries.y == c]))
    return distances


class _RememberingEncoder(Encoder):
    """Keeps the features of the last inputs, since the cells of a study encode the same images again and again."""

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
