import numpy as np
import pytest
import torch
from scipy import stats

from lit_valuation.exchange.comparison import bootstrap, difference, rank_owners, verdict


def trained(rate, seeds=5, cases=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(seeds, cases, generator=generator) < rate


def test_intervals_are_scipys():
    better, worse = trained(0.7), trained(0.5, seed=1)
    found = difference(better, worse)
    gain = better.double() - worse.double()
    t = stats.ttest_1samp(gain.mean(1), 0).confidence_interval(0.95)
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx((t.low, t.high))
    values = (gain.mean(0).numpy(),)
    theirs = stats.bootstrap(values, np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert (found.over_cases.low, found.over_cases.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_owners_are_in_order_only_where_both_intervals_say_so():
    found = rank_owners(
        {"good": trained(0.8), "bad": trained(0.3, seed=1), "alike": trained(0.8, seed=2)}, trained(0.3, seed=3)
    )
    by_name = {place.name: place for place in found}
    assert {by_name["good"].rank, by_name["alike"].rank} == {"1–2"} and by_name["bad"].rank == "3"
    assert by_name["good"].alike == ("alike",) and by_name["bad"].alike == ()
    assert by_name["good"].gain.sign == 1 and by_name["bad"].gain.sign == 0
    assert "not distinguishable from each other" in verdict(found)
    assert verdict(found).endswith("alike, good distinguishably help, compared with nothing shared.")
    assert "distinguishably so" in verdict(
        rank_owners({"good": trained(0.8), "bad": trained(0.3, seed=1)}, trained(0.3))
    )
    alone = rank_owners({"good": trained(0.3)}, trained(0.3, seed=1))
    assert verdict(alone) == "good is the only answer. Nobody distinguishably helps, compared with nothing shared."


def test_few_cases_or_seeds_tell_nothing():
    assert "not distinguishable" in verdict(
        rank_owners({"a": trained(0.9, cases=3), "b": trained(0.5, cases=3, seed=1)}, trained(0.5, cases=3))
    )
    assert difference(trained(0.9, seeds=1), trained(0.1, seeds=1, seed=1)).sign == 0
    assert bootstrap(torch.ones(9)).low == -float("inf")
    same = trained(0.5)
    assert difference(same, same).sign == 0
