"""Coresets: weighted subsets of a pool whose gradient matches that of target samples, class by class and over ranks.

After Killamsetty et al. 2021, GRAD-MATCH, arXiv 2103.00123.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor

from lit_core.errors import UserError
from lit_core.lightning.step_logging import rows_of_all_ranks, sum_over_ranks
from lit_valuation.functional.pursuit import PursuitOptions, matching_pursuits
from lit_valuation.last_layer import PoolGradients
from lit_valuation.selectors import split_budget


@dataclass(frozen=True)
class Coreset:
    """A weighted subset, the same on every rank.

    Args:
        numbers: Indices of the chosen samples in the pool, int64 of shape ``(k,)``, class by class.
        weights: Weights of the chosen samples, above 0 and with a mean of 1, float32 of shape ``(k,)``.
        residual: ‖b − Σ wᵢ gᵢ‖ / ‖b‖ over all classes, before the weights were scaled.
        coverage: Share of the matched classes that have a chosen sample, from 0 to 1.
    """

    numbers: Tensor
    weights: Tensor
    residual: float
    coverage: float


def choose_coreset(
    trainer: Trainer, pool: PoolGradients, target: PoolGradients, budget: int, ridge: float = 0.5
) -> Coreset:
    """Choose samples of a pool whose weighted gradients match the gradient of target samples, class by class.

    Args:
        trainer: The Trainer; each of its ranks calls this function with its own share of pool and target.
        pool: Gradients of this rank's samples, whose indices are unique over all ranks.
        target: Gradients of this rank's target samples, which may be the pool. Some ranks may have none.
        budget: Most samples to choose, 1 or more; classes get shares in proportion to their target samples.
        ridge: Ridge penalty, as a multiple of the mean squared norm of a class's gradients, 0 or more.

    Returns:
        The coreset, the same on every rank.

    Raises:
        UserError: If the pool has no sample of the target's classes, or every gradient of the target is 0.
    """
    pool_y, target_y = rows_of_all_ranks(trainer, pool.y), rows_of_all_ranks(trainer, target.y)
    shares = split_budget(budget, pool_y, target_y)
    target_classes = sorted(target_y.unique().tolist())
    rows = [target.y == c for c in target_classes]
    local = torch.stack([target.gradients.take(row.nonzero()[:, 0]).sum() for row in rows])
    targets = sum_over_ranks(trainer, local)
    classes = sorted(shares)
    pursuits = matching_pursuits(
        pool.gradients,
        targets[[target_classes.index(c) for c in classes]],
        [shares[c] for c in classes],
        PursuitOptions(ridge=ridge),
        allowed=torch.stack([pool.y == c for c in classes]),
        numbers=pool.index,
        group=dist.group.WORLD if trainer.world_size > 1 else None,
    )
    numbers, weights = (torch.cat([getattr(one, name) for one in pursuits]) for name in ("support", "weights"))
    numbers, weights = numbers[weights > 0], weights[weights > 0]
    if not len(numbers):
        raise UserError("The gradient to match is 0, so no sample reduces the residual; use an earlier checkpoint.")
    lengths = [float(one.norm()) for one in targets]
    residuals = dict.fromkeys(target_classes, 1.0) | {c: one.residual for c, one in zip(classes, pursuits, strict=True)}
    unmatched = [residuals[c] * length for c, length in zip(target_classes, lengths, strict=True)]
    return Coreset(
        numbers=numbers,
        weights=(weights / weights.mean()).float(),
        residual=math.hypot(*unmatched) / math.hypot(*lengths),
        coverage=sum(bool((one.weights > 0).any()) for one in pursuits) / len(target_y.unique()),
    )
