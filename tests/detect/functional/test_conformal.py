"""The conformal rule against brute force, scipy and simulation."""

import math
import sys
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta
from scipy.stats import false_discovery_control as adjusted

from lit_core.errors import UserError
from lit_detect.functional.conformal import (
    allowed_above,
    discoveries,
    expected_fpr,
    p_values,
    texts_needed,
    threshold_at_fpr,
)

# few levels make ties, so that the rule is exercised
tied = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)
free = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=40)
rates = st.sampled_from([0.01, 0.05, 0.1, 0.29, 0.5, 0.99]) | st.floats(0.001, 0.999)
sure = st.sampled_from([None, 0.5, 0.95, 0.999])


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 99), st.integers(2, 1000))
def test_the_number_that_is_allowed_is_exact(n, numerator, denominator):
    share = Fraction(min(numerator, denominator - 1), denominator)
    assert allowed_above(n, float(share)) == math.floor(share * (n + 1)) - 1


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 400), rates, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_with_a_confidence_it_is_the_largest_that_scipys_beta_allows(n, fpr, confidence):
    k = allowed_above(n, fpr, confidence)
    chances = [float(beta.cdf(fpr, k + 1, n - k)) for k in range(n)]
    assert all(chance > confidence - 1e-9 for chance in chances[: k + 1])
    assert all(chance < confidence + 1e-9 for chance in chances[k + 1 :])


@settings(deadline=None)
@given(rates, sure)
def test_the_texts_needed_are_the_fewest(fpr, confidence):
    n = texts_needed(fpr, confidence)
    assert allowed_above(n, fpr, confidence) >= 0
    assert n == 1 or allowed_above(n - 1, fpr, confidence) < 0


def test_what_the_issue_of_small_samples_was():
    assert [texts_needed(0.05), texts_needed(0.05, 0.95), texts_needed(0.01, 0.95)] == [19, 59, 299]
    assert [allowed_above(n, 0.05) for n in (18, 19, 60, 100)] == [-1, 0, 2, 4]  # not floor(fpr n): 3 of 60, 5 of 100
    assert allowed_above(99, 0.29) == 28  # 0.29 * 100 < 29 in floats


@settings(deadline=None)
@given(tied | free, tied | free, rates, sure)
def test_threshold_and_p_value_decide_by_the_same_count(human, scores, fpr, confidence):
    human, scores = tensor(human), tensor(scores)
    counts = [int((human >= score).sum()) for score in scores]
    assert p_values(human, scores).tolist() == [(1 + count) / (len(human) + 1) for count in counts]
    threshold = threshold_at_fpr(human, fpr, confidence)
    allowed = allowed_above(len(human), fpr, confidence)
    assert (scores >= threshold).tolist() == [count <= allowed for count in counts]
    if confidence is None:
        assert (scores >= threshold).tolist() == (p_values(human, scores) <= fpr).tolist()
    if threshold < math.inf:  # and no smaller one does
        at_it = human.sort(descending=True).values[allowed]
        assert threshold in (math.nextafter(at_it, math.inf), sys.float_info.min if at_it == 0 else 0.0)
        assert expected_fpr(human, threshold) == (1 + int((human >= threshold).sum())) / (len(human) + 1)
    if confidence is None or confidence > 1 - 1 / math.e:  # what holds more rarely does not hold on average
        assert expected_fpr(human, threshold) <= fpr


@pytest.mark.parametrize("highest", [0.0, -sys.float_info.min, sys.float_info.min])
def test_a_threshold_next_to_0_holds_where_the_processor_takes_the_smallest_numbers_for_0(highest):
    human = torch.full((20,), highest, dtype=torch.float64)
    assert torch.set_flush_denormal(True)
    try:
        threshold = threshold_at_fpr(human, 0.05)
        assert not (human >= threshold).any() and expected_fpr(human, threshold) <= 0.05
    finally:
        torch.set_flush_denormal(False)
    assert threshold == threshold_at_fpr(human, 0.05) and 0 <= threshold - highest <= sys.float_info.min


@pytest.mark.parametrize(("n", "fpr"), [(19, 0.05), (60, 0.05), (300, 0.01), (20, 0.3)])
def test_fresh_human_texts_are_called_machine_at_the_promised_rate(n, fpr):
    generator = torch.Generator().manual_seed(0)
    human = torch.rand(4000, n, generator=generator, dtype=torch.float64)  # the true rate of a threshold t is 1 - t
    for confidence in (None, 0.95):
        if n < texts_needed(fpr, confidence):
            continue
        true = 1 - tensor([threshold_at_fpr(scores, fpr, confidence) for scores in human[: 4000 if n < 100 else 1000]])
        if confidence is None:
            error = float(true.std()) / math.sqrt(len(true))
            exact = (allowed_above(n, fpr) + 1) / (n + 1)
            assert abs(float(true.mean()) - exact) < 4 * error and exact <= fpr
        else:
            held = float((true <= fpr).double().mean())
            assert held >= confidence - 4 * math.sqrt(0.05 * 0.95 / len(true))


@settings(deadline=None)
@given(st.lists(st.integers(1, 60).map(lambda i: i / 60), min_size=1, max_size=40), st.sampled_from([0.05, 0.1, 0.5]))
def test_discoveries_are_those_of_scipy(p, fdr):
    found = discoveries(tensor(p), fdr)
    expected = adjusted(p)
    near = [abs(value - fdr) < 1e-9 for value in expected]  # rounding may fall to either side
    assert all(a == (b <= fdr) or close for a, b, close in zip(found.tolist(), expected, near, strict=True))


def test_a_text_that_must_not_be_found_counts_and_is_not():
    p = tensor([0.01, 0.02, math.inf, math.inf])
    assert discoveries(p, 0.04).tolist() == [True, True, False, False]
    assert not discoveries(p, 0.03).any() and not discoveries(tensor([]), 0.1).any()


def test_wrong_rates_and_scores_are_refused():
    for fpr in (0, 1.0, -0.1, math.nan):
        with pytest.raises(UserError, match=f"`fpr` is {fpr}"):
            threshold_at_fpr(torch.ones(3), fpr)
    with pytest.raises(UserError, match="`confidence` is 95"):
        allowed_above(100, 0.05, 95)
    with pytest.raises(UserError, match=r"1 of 2 are not finite"):
        threshold_at_fpr(tensor([0, math.nan]), 0.5)
    assert threshold_at_fpr(tensor([]), 0.5) == math.inf and expected_fpr(tensor([]), math.inf) == 0
