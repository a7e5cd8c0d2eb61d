import pytest
import torch
from sklearn.datasets import load_digits

from lit_core.errors import UserError
from lit_valuation.functional import coresets
from lit_valuation.functional.coresets import facility_location_mi, k_center


@pytest.fixture(scope="module")
def digits():
    return torch.tensor(load_digits().data, dtype=torch.float32) - 5  # some cosines are negative


def information(chosen, pool, queries, variant, eta):
    """Kaushal et al. 2021, written down from full matrices."""
    unit = torch.nn.functional.normalize
    pool, queries = unit(pool.double(), dim=1), unit(queries.double(), dim=1)
    to_queries, within = (pool @ queries.T).clamp(min=0), (pool @ pool.T).clamp(min=0)
    if variant == "queries":
        return float(to_queries[chosen].amax(dim=0).sum() + eta * to_queries[chosen].amax(dim=1).sum())
    return float(torch.minimum(within[chosen].amax(dim=0), eta * to_queries.amax(dim=1)).sum())


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("variant", ["queries", "pool"])
def test_lazy_is_greedy(digits, variant, eta, monkeypatch):
    monkeypatch.setattr(coresets, "_BLOCK", 1000)
    pool, queries = digits[:90], digits[1000:1005]
    chosen, gains = facility_location_mi(pool, queries, 12, variant, eta)
    taken, before = [], 0.0
    for number, gain in zip(chosen.tolist(), gains.tolist(), strict=True):
        rest = [j for j in range(len(pool)) if j not in taken]
        best = max(information([*taken, j], pool, queries, variant, eta) for j in rest)
        taken.append(number)
        reached = information(taken, pool, queries, variant, eta)
        assert reached == pytest.approx(best, abs=1e-5) and gain == pytest.approx(reached - before, abs=1e-5)
        before = reached
    assert len(set(taken)) == 12 and taken[:5] == facility_location_mi(pool, queries, 5, variant, eta)[0].tolist()


def test_centres_against_a_loop(digits):
    pool = digits[:200].double()
    chosen, radius = k_center(pool, 15)
    distances = torch.cdist(pool, pool, compute_mode="donot_use_mm_for_euclid_dist")
    assert chosen[0] == (pool - pool.mean(0)).norm(dim=1).argmin()
    for step in range(1, 15):
        to_centres = distances[:, chosen[:step]].amin(dim=1)
        assert to_centres[chosen[step]] == pytest.approx(float(to_centres.max()))
        assert radius[step - 1] == pytest.approx(float(to_centres.max()))


def test_equal_samples_are_taken_once_each(digits):
    same = digits[:1].repeat(6, 1)
    assert sorted(k_center(same, 6)[0].tolist()) == list(range(6))
    assert sorted(facility_location_mi(same, digits[5:7], 6)[0].tolist()) == list(range(6))


def test_what_cannot_be(digits):
    for select in (lambda k: k_center(digits[:4], k), lambda k: facility_location_mi(digits[:4], digits[:2], k)):
        for k in (0, 5):
            with pytest.raises(UserError, match=f"k is {k}, but must be from 1 to the 4"):
                select(k)
    with pytest.raises(UserError, match="eta is -1"):
        facility_location_mi(digits[:4], digits[:2], 2, eta=-1)
