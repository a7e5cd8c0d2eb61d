"""What the owners of a simulated exchange compare: pool and queries with features and gradients."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from lit_core.study.parts import Part
from lit_valuation.data.hard_cases import HardCases
from lit_valuation.encoders import Encoder, TaskFeatures, embed
from lit_valuation.encoders.base import Inputs
from lit_valuation.exchange.probe import head_gradients
from lit_valuation.functional.gradients import SampleGradients
from lit_valuation.functional.linear_head import fit_linear_head
from lit_valuation.functional.median import geometric_median, psi
from lit_valuation.last_layer import gather_gradients
from lit_valuation.module import ClassifierTask
from lit_valuation.samples import Samples
from lit_valuation.selectors import Pool
from lit_valuation.study.options import ExchangeOptions
from lit_valuation.training.retrain import TrainingRecipe
from lit_valuation.training.retrain_many import retrain_many


@lru_cache(maxsize=1)
def shared_encoder(encoder: Part[Encoder]) -> Encoder:
    """Return the encoder, which the cells of a study share."""
    return _RememberingEncoder(encoder.build())


@dataclass(frozen=True)
class Views:
    """How the owners of a simulated exchange see their samples and the queries.

    Args:
        recipe: How the owners train.
        train: The trainer's samples.
        baseline: The trainer's model.
        cases: The hard cases of the trainer.
        encoder: The public encoder.
        seed: Seed of the owners' training.
        options: The options of the cell.
    """

    recipe: TrainingRecipe
    train: Samples
    baseline: ClassifierTask
    cases: HardCases
    encoder: Encoder
    seed: int
    options: ExchangeOptions

    def pools(self, owners: Mapping[str, Samples]) -> dict[str, tuple[Pool, Pool]]:
        """Return pool and queries as each owner sees them: at its own model, the trainer's, or a probe.

        Args:
            owners: Samples of the owners by name.
        """
        moment = max(1, round(self.options.checkpoint * self.recipe.steps))
        nobody, samples = self.cases.queries.take([]), list(owners.values())
        own_models: list[ClassifierTask | None] = [None] * len(samples)
        if self.options.gradients == "owner" or self.options.features == "task":
            own_models = [*retrain_many(self.recipe, nobody, samples, self.seed, steps=[moment])]
        return {
            name: (self._pool(part, task), self._pool(self.cases.queries, task))
            for (name, part), task in zip(owners.items(), own_models, strict=True)
        }

    def _pool(self, part: Samples, task: ClassifierTask | None) -> Pool:
        if self.options.features == "task":
            assert task is not None
            features = embed(TaskFeatures(task), part.x)
        else:
            features = embed(self.encoder, part.x)
        return Pool(part.y, part.inputs().flatten(1), features, self._gradients(part, task))

    def _gradients(self, part: Samples, task: ClassifierTask | None) -> SampleGradients:
        if self.options.gradients == "probe":
            return head_gradients(*self._head, embed(self.encoder, part.x), part.y)
        model = self.baseline if self.options.gradients == "trainer" else task
        assert model is not None
        return gather_gradients(model, [(part.inputs(), part.y)]).gradients

    @cached_property
    def _head(self) -> tuple[Tensor, Tensor]:
        return fit_linear_head(embed(self.encoder, self.train.x), self.train.y, len(self.train.classes))


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
