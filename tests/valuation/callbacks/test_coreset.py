"""What a chosen coreset says of itself, from explicit gradients."""

from types import SimpleNamespace

import pytest
import torch

from lit_valuation.callbacks.coreset import choose_coreset
from lit_valuation.functional.gradients import LastLayerGradients
from lit_valuation.last_layer import PoolGradients


def pool(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    gradients = LastLayerGradients(torch.randn(n, 3, generator=generator), torch.randn(n, 4, generator=generator))
    y = torch.arange(n) % classes
    return PoolGradients(gradients, y, torch.arange(n), torch.zeros(n, dtype=torch.bool), torch.zeros(n))


def matrices(found):
    hidden = torch.cat([found.gradients.hidden, torch.ones(len(found.y), 1)], dim=1)
    return found.gradients.delta[:, :, None] * hidden[:, None]


@pytest.mark.parametrize(("pool_classes", "budget"), [(5, 2), (3, 30), (5, 30)])
def test_the_residual_counts_classes_that_got_no_share(pool_classes, budget):
    ours, target = pool(30, pool_classes, 0), pool(40, 5, 1)
    found = choose_coreset(SimpleNamespace(world_size=1), ours, target, budget, ridge=0.0)
    left = whole = 0.0
    for c in range(5):
        wanted = matrices(target)[target.y == c].sum(0).double()
        chosen = [i for i in found.numbers.tolist() if int(ours.y[i]) == c]
        best = torch.zeros_like(wanted)
        if chosen:
            atoms = matrices(ours)[chosen].flatten(1).double()
            best = (torch.linalg.lstsq(atoms.T, wanted.flatten()).solution @ atoms).view_as(wanted)
        left, whole = left + float((wanted - best).square().sum()), whole + float(wanted.square().sum())
    assert found.residual == pytest.approx((left / whole) ** 0.5, rel=1e-4)
