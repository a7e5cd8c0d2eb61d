"""Bootstrap intervals against a naive bootstrap, and what is drawn."""

import math

import pytest
import torch

from lit_detect.functional.bootstrap import bootstrap_many, ratio_statistic


def bootstrap(statistic, *arguments, **options):
    return bootstrap_many({"": statistic}, *arguments, **options)[""]


def test_the_interval_of_a_rate_is_that_of_a_naive_bootstrap():
    generator = torch.Generator().manual_seed(0)
    hits = (torch.rand(80, generator=generator) < 0.3).double()
    ours = bootstrap(ratio_statistic(hits, torch.ones(80)), torch.ones(80), resamples=4000, seed=3)
    means = hits[torch.randint(80, (4000, 80), generator=generator)].mean(1)
    assert ours.mean == pytest.approx(float(hits.mean())) and ours.n == 80
    assert ours.low == pytest.approx(float(means.quantile(0.025)), abs=0.015)
    assert ours.high == pytest.approx(float(means.quantile(0.975)), abs=0.015)


def test_groups_are_drawn_whole():
    # ten copies of each of twenty texts say no more than twenty texts
    generator = torch.Generator().manual_seed(0)
    hits = (torch.rand(20, generator=generator) < 0.5).double().repeat_interleave(10)
    groups = torch.arange(20).repeat_interleave(10)
    statistic = ratio_statistic(hits, torch.ones(200))
    grouped = bootstrap(statistic, torch.ones(200), groups, seed=1)
    alone = bootstrap(statistic, torch.ones(200), seed=1)
    assert grouped.n == 20
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)
    twin = bootstrap(statistic, torch.ones(200), groups, seed=1)
    assert (twin.low, twin.high) == (grouped.low, grouped.high)


def test_each_resample_has_both_classes():
    labels = torch.tensor([0] * 50 + [1])
    counted = []
    bootstrap(lambda weights: counted.append(weights) or weights[:, -1], labels, resamples=50)
    assert all((weights[:, labels == 0].sum(1) == 50).all() for weights in counted)
    assert all((weights[:, -1] == 1).all() for weights in counted)


def test_one_group_has_no_interval():
    interval = bootstrap(ratio_statistic(torch.ones(3), torch.ones(3)), torch.ones(3), torch.zeros(3))
    assert interval.mean == 1 and math.isinf(interval.low) and interval.n == 1
