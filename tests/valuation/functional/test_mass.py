"""Weights of a mass, against the weighted loss that they stand for."""

import math

import pytest
import torch
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional.mass import sample_weights


@pytest.mark.parametrize("mass", [None, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0, 1.0], [0.0, 3.0, 1e-30], [1e300, 2e300, 1e308]])
def test_the_weighted_loss_is_that_of_two_means(mass, values):
    """(1 - m) times the mean over own samples, and m times the weighted mean over added ones."""
    generator = torch.Generator().manual_seed(0)
    own, k = 7, len(values)
    logits = torch.randn(own + k, 4, generator=generator, dtype=torch.float64)
    loss = F.cross_entropy(logits, torch.randint(4, (own + k,), generator=generator), reduction="none")
    share = k / (own + k) if mass is None else mass
    added = sum(v / max(values) * float(one) for v, one in zip(values, loss[own:], strict=True))
    added /= sum(v / max(values) for v in values)
    weights = sample_weights(own, mass, torch.tensor(values, dtype=torch.float64))
    assert float((weights * loss).mean()) == pytest.approx((1 - share) * float(loss[:own].mean()) + share * added)
    assert float(weights.mean()) == pytest.approx(1) and weights.dtype == torch.float32
    assert float(weights[own:].sum() / weights.sum()) == pytest.approx(share)


def test_equal_values_without_a_mass_weigh_1_each():
    assert torch.equal(sample_weights(30, None, torch.full((11,), 0.3)), torch.ones(41))
    assert torch.equal(sample_weights(5, 0.4, torch.empty(0)), torch.ones(5))


def test_what_it_refuses():
    for mass in (0.0, 1.0, -0.1, math.nan, math.inf):
        with pytest.raises(UserError, match=f"mass is {mass}, but must be a share above 0 and below 1"):
            sample_weights(3, mass, torch.ones(2))
    with pytest.raises(UserError, match="are all 0"):
        sample_weights(3, 0.5, torch.zeros(2))
