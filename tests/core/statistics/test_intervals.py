"""Intervals against scipy's and formulas by hand; how often they hold the truth is simulated."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from lit_core.errors import UserError
from lit_core.statistics.beta import beta_probability, beta_quantile
from lit_core.statistics.interval import Interval, missing
from lit_core.statistics.proportion import effective_number, exact_ends, f1_interval, share_interval
from lit_core.statistics.roc import auroc_interval, tpr_interval

positive_numbers = st.floats(0.05, 5000)


@settings(deadline=None)
@given(st.floats(0, 1), positive_numbers, positive_numbers)
def test_the_beta_distribution_is_scipys(x, a, b):
    assert beta_probability(x, a, b) == pytest.approx(beta.cdf(x, a, b), abs=1e-9)


def test_quantiles_at_the_ends():
    assert (beta_quantile(0.3, 0, 2), beta_quantile(0.3, 2, 0)) == (0, 1)
    assert beta_quantile(0.3, 2, 5) == pytest.approx(beta.ppf(0.3, 2, 5), abs=1e-12)


def test_what_an_interval_says():
    assert str(Interval(0.5, 0.25, 0.75, 8)) == "0.500 [0.250, 0.750]"
    assert Interval(0.25, 0.125, 0.5, 8).complement == Interval(0.75, 0.5, 0.875, 8)
    assert str(missing("7 of 99 human texts", 7)) == "– (7 of 99 human texts)"


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 2000), st.data())
def test_the_interval_is_scipys(n, data):
    hits = data.draw(st.integers(0, n))
    theirs = binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert exact_ends(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-8)


def test_the_interval_covers_the_rate_of_a_threshold_chosen_on_the_same_texts():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        human = torch.rand(300, generator=generator, dtype=torch.float64)
        low, high = exact_ends(3, 300)
        covered += low <= 1 - float(human.sort().values[-4]) <= high  # three pass, and a share of these of all texts
    assert covered >= 0.95 * 400
    assert low < beta.ppf(0.025, 4, 297) and high == pytest.approx(beta.ppf(0.975, 4, 297), abs=1e-9)


def test_hits_out_of_range_are_refused():
    with pytest.raises(UserError, match="`hits` is 5"):
        exact_ends(5, 4)


def test_five_texts_of_which_none_evades_do_not_show_that_none_ever_does():
    found = share_interval(torch.zeros(5, dtype=torch.bool))
    assert (found.mean, found.low, found.n) == (0, 0, 5)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 5))  # .52, where a bootstrap has 0
    assert share_interval(torch.ones(0)).reason == "no texts"


def test_f1_is_that_of_its_counts_and_1_is_not_certain():
    found, true = (torch.tensor([int(digit) for digit in row]) == 1 for row in ("1110010", "1101110"))
    assert f1_interval(found, true).mean == pytest.approx(2 * 3 / (4 + 5))
    share = exact_ends(5, 5)[0]
    assert f1_interval(true, true).low == pytest.approx(2 * share / (1 + share))
    assert f1_interval(~true & true, ~true & true).reason == "no texts"


def test_texts_of_a_group_count_less_than_independent_ones():
    generator = torch.Generator().manual_seed(0)
    hits = torch.rand(40, generator=generator) < 0.4
    alone = share_interval(hits)
    assert share_interval(hits, torch.arange(40)) == alone
    copies = share_interval(hits.repeat(5), torch.arange(40).repeat(5))
    assert copies.mean == alone.mean and copies.n == 200
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.15)
    none = share_interval(torch.zeros(200), torch.arange(40).repeat(5))  # shows no variance between groups
    assert (none.low, none.high) == pytest.approx(exact_ends(0, 40))


def test_the_effective_number_of_independent_texts_is_their_number():
    hits = torch.arange(400) % 4 == 0
    number = effective_number(0.25, (hits.double() - 0.25) / 400, torch.arange(400), 300, 500)
    assert number == pytest.approx(400, rel=0.03)  # Student's t, and the possible 300, take a little


def test_the_variance_of_an_auroc_is_delongs():
    generator = torch.Generator().manual_seed(0)
    human, machine = torch.randn(500, generator=generator), torch.randn(400, generator=generator) + 1
    wins = (machine[:, None] > human[None, :]).double()
    variance = wins.mean(1).var() / 400 + wins.mean(0).var() / 500
    positive = torch.arange(900) >= 500
    found = auroc_interval(torch.cat((human, machine)), positive)
    assert found.mean == pytest.approx(float(wins.mean()))
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.06)


@pytest.mark.parametrize("n", [1, 5, 20])
def test_an_auroc_of_1_or_0_has_the_interval_of_as_many_pairs_in_order(n):
    scores, positive = torch.arange(2.0 * n), torch.arange(2 * n) >= n
    found = auroc_interval(scores, positive)
    assert (found.mean, found.high) == (1, 1) and found.low == pytest.approx(0.025 ** (1 / n))
    turned = auroc_interval(-scores, positive)
    assert (turned.mean, turned.low) == (0, 0) and turned.high == pytest.approx(1 - 0.025 ** (1 / n))
    assert auroc_interval(torch.zeros(2 * n), positive).mean == 0.5  # ties count half
    assert auroc_interval(scores, torch.zeros(2 * n, dtype=torch.bool)).reason == "no texts of a class"


def test_a_threshold_is_interpolated_and_too_few_human_texts_have_none():
    scores, positive = torch.arange(40.0), torch.arange(40) >= 30
    scores[30:] = torch.tensor([29.5, 28.5, 27.5, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.2])
    found = tpr_interval(scores, positive, 2 / 31)  # the second highest of 30 human scores
    assert found.mean == pytest.approx(0.2)
    assert tpr_interval(scores, positive, 2.5 / 31).mean == pytest.approx(0.25)
    assert found.low == 0  # of 30 human texts none may be above the true threshold
    few = tpr_interval(scores, positive, 0.01)
    assert math.isnan(few.mean) and few.reason == "30 of 99 human texts"
    with pytest.raises(UserError, match="`fpr` is 0"):
        tpr_interval(scores, positive, 0)


def test_each_domain_has_its_own_threshold():
    scores, positive = torch.arange(80.0).remainder(40), torch.arange(80).remainder(40) >= 30
    domains = torch.arange(80) // 40
    alone = tpr_interval(scores[:40], positive[:40], 0.05)
    both = tpr_interval(scores + 1000 * domains, positive, 0.05, domains=domains)
    assert both.mean == alone.mean == 1 and both.low >= alone.low
    few = domains * positive + ~positive * (torch.arange(80) >= 75)
    assert "human texts" in tpr_interval(scores, positive, 0.05, domains=few).reason


@pytest.mark.parametrize(("n", "draws"), [(5, 60), (20, 60), (100, 60)])
def test_intervals_hold_the_truth(n, draws):
    generator, held = torch.Generator().manual_seed(n), {"auroc": 0, "tpr": 0}
    positive, groups = torch.arange(2 * n) >= n, torch.arange(n).repeat(2)
    for _ in range(draws):
        topic = torch.randn(n, generator=generator, dtype=torch.float64).repeat(2) / 2
        scores = topic + positive * 2 + torch.randn(2 * n, generator=generator, dtype=torch.float64)
        spread = math.sqrt(1.25)
        auroc = auroc_interval(scores, positive, groups)
        held["auroc"] += auroc.low <= 0.5 * math.erfc(-2 / spread / 2) <= auroc.high
        tpr = tpr_interval(scores, positive, 0.05, groups)
        held["tpr"] += bool(tpr.reason) or tpr.low <= 0.5 * math.erfc((1.644854 - 2 / spread) / 2**0.5) <= tpr.high
    assert min(held.values()) >= 0.93 * draws
