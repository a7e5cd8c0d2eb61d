"""Intervals and correlations against scipy's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lit_core.study import kendall, spearman, t_interval, t_quantile


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 29, 100])
@pytest.mark.parametrize("probability", [0.5, 0.6, 0.9, 0.975, 0.9995])
def test_t_quantile(degrees, probability):
    assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-8, abs=1e-11)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12))
def test_t_interval(values):
    if max(values) - min(values) < 1e-6:
        return
    found = t_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high, found.n) == (pytest.approx(low), pytest.approx(high), len(values))


def test_one_value_has_no_interval():
    assert (t_interval([0.5]).low, t_interval([0.5]).high) == (-math.inf, math.inf)
    assert "no interval" in str(t_interval([0.5]))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_rank_correlations_with_ties(pairs):
    x, y = zip(*pairs, strict=True)
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert math.isnan(kendall(x, y)) and math.isnan(spearman(x, y))
        return
    assert kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
