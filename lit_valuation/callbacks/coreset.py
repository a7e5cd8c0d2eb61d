"""A weighted subset of a pool whose gradient matches that of other samples, class by class, over any number of ranks.

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
from lit_valuation.functional.pursuit import matching_pursuits
from lit_valuation.last_layer import PoolGradients
from lit_valuation.selectors import split_budget


@dataclass(frozen=True)
class Coreset:
    """A weighted subset, the same on every rank.

    Args:
        numbers: Numbers of the chosen samples in the pool, int64 of shape ``(k,)``, class by class.
        weights: Their weights, above 0 and with a mean of 1, float32 of shape ``(k,)``.
        residual: ‖b − Σ wᵢ gᵢ‖ / ‖b‖ over all classes, before the weights were scaled.
        coverage: Share of the matched classes that have a chosen sample.
    """

    numbers: Tensor
    weights: Tensor
    residual: float
    coverage: float


def choose_coreset(
    trainer: Trainer, pool: PoolGradients, target: PoolGradients, budget: int, ridge: float = 0.5
) -> Coreset:
    """Choose samples of a pool whose weighted gradients add up to those of a target, in each class of the target.

    Args:
        trainer: Knows the ranks; each calls this with its own share of pool and target.
        pool: Gradients of this rank's samples, with numbers that are unique over all ranks.
        target: Gradients of what is to be matched; may be the pool. It may be empty on this rank, not on all.
        budget: Most samples to choose, 1 or more; a class gets its share by the number of target samples.
        ridge: Weight of the ridge penalty, as a multiple of the mean squared length of a class's gradients.

    Raises:
        UserError: If no sample of the pool has a class of the target, or every gradient of the target is 0.
    """
    pool_y, target_y = rows_of_all_ranks(trainer, pool.y), rows_of_all_ranks(trainer, target.y)
    shares = split_budget(budget, pool_y, target_y)
    wanted = sorted(target_y.unique().tolist())
    rows = [target.y == c for c in wanted]
    local = torch.stack([target.gradients.take(row.nonzero()[:, 0]).sum() for row in rows])
    targets = sum_over_ranks(trainer, local)
    classes = sorted(shares)
    found = matching_pursuits(
        pool.gradients,
        targets[[wanted.index(c) for c in classes]],
        [shares[c] for c in classes],
        ridge=ridge,
        allowed=torch.stack([pool.y == c for c in classes]),
        numbers=pool.index,
        group=dist.group.WORLD if trainer.world_size > 1 else None,
    )
    numbers, weights = (torch.cat([getattr(one, name) for one in found]) for name in ("support", "weights"))
    numbers, weights = numbers[weights > 0], weights[weights > 0]
    if not len(numbers):
        raise UserError("The gradient to match is 0, so no sample comes nearer to it; use an earlier checkpoint.")
    lengths = [float(one.norm()) for one in targets]
    residuals = dict.fromkeys(wanted, 1.0) | {c: one.residual for c, one in zip(classes, found, strict=True)}
    left = [residuals[c] * length for c, length in zip(wanted, lengths, strict=True)]
    return Coreset(
        numbers=numbers,
        weights=(weights / weights.mean()).float(),
        residual=math.hypot(*left) / math.hypot(*lengths),
        coverage=sum(bool((one.weights > 0).any()) for one in found) / len(target_y.unique()),
    )
