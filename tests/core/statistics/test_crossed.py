import numpy as np
import pytest
from scipy import stats

from lit_core.statistics.crossed import crossed_mean, holm


def quasi_f(values, level=0.95):
    """The same from numpy's sums and scipy's distribution."""
    rows, columns = values.shape
    mean, of_rows, of_columns = values.mean(), values.mean(1), values.mean(0)
    by_row, by_column = columns * of_rows.var(ddof=1), rows * of_columns.var(ddof=1)
    degrees = (rows - 1) * (columns - 1)
    rest = ((values - of_rows[:, None] - of_columns + mean) ** 2).sum() / degrees
    both = max(by_row + by_column - rest, by_row, by_column)
    free = both**2 / (by_row**2 / (rows - 1) + by_column**2 / (columns - 1) + rest**2 / degrees)
    free = min(max(free, 1), columns - 1)
    errors = [(np.sqrt(both / values.size), free), (np.sqrt(by_row / values.size), rows - 1)]
    p = max(2 * stats.t.sf(abs(mean) / error, df) for error, df in errors)
    half = max(error * stats.t.ppf((1 + level) / 2, df) for error, df in errors)
    return p, mean - half, mean + half


@pytest.mark.parametrize("shape", [(2, 30), (3, 8), (20, 10), (5, 100)])
def test_scipy_says_the_same(shape):
    generator = np.random.default_rng(0)
    for shift in (0.0, 0.5, 1.0):
        values = generator.normal(shift, 1, shape) + generator.normal(size=(1, shape[1])) / 2
        found = crossed_mean(values.tolist())
        p, low, high = quasi_f(values)
        floor = 2.0 ** (1 - shape[1])
        assert found.p == pytest.approx(max(p, floor), rel=1e-9)
        assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
        assert (found.p <= 0.05) == (found.interval.low > 0 or found.interval.high < 0)


def test_of_equal_rows_it_is_the_t_test_over_columns():
    values = np.random.default_rng(1).normal(0.4, 1, 25)
    found, theirs = crossed_mean([values.tolist()] * 4), stats.ttest_1samp(values, 0)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_few_columns_or_rows_tell_nothing():
    for values in ([[1.0] * 5] * 20, [[1.0] * 50], [[1.0], [1.0]], []):
        found = crossed_mean(values)
        assert found.p == 1 and found.interval.low == -np.inf
    assert crossed_mean([[1.0] * 6] * 2).p == 2**-5
    few = crossed_mean([[1.0] * 4 + [0.0] * 96] * 5)  # four of a hundred differ
    assert few.p == 2**-3 and few.interval.low <= 0
    assert crossed_mean([[0.0] * 50] * 5).p == 1


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []


def test_of_real_values_of_uneven_size_equal_trainings_are_told_apart_no_more_often_than_stated():
    """Differences of squared errors of like trainings: cases differ in difficulty, seeds in what they learn."""
    generator = np.random.default_rng(0)

    def errors(hard, seeds=5, cases=20):
        of_case, of_seed = generator.normal(0, 0.3, (1, cases)), generator.normal(0, 0.2, (seeds, 1))
        return (hard * (1 + of_case) + of_seed + generator.normal(0, 0.3, (seeds, cases))) ** 2

    found = []
    for _ in range(400):
        hard = generator.lognormal(0, 0.5, 20)
        found.append(crossed_mean((errors(hard) - errors(hard)).tolist()).p <= 0.05)
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
