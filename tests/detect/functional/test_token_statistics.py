import numpy as np
import pytest
import scipy.stats
import torch

from lit_detect.functional.token_statistics import TOKEN_STATISTICS, token_statistics


def draw(count, seed):
    generator = np.random.default_rng(seed)
    log_prob = -generator.exponential(3.0, count)
    rank = generator.integers(1, 3000, count) ** generator.integers(0, 2, count)
    return log_prob, rank, -generator.exponential(2.0, count), generator.exponential(4.0, count) + 0.1


def by_hand(log_prob, rank, expected, variance):
    """The statistics by numpy and scipy, one expression each."""
    n, entropy, excess = len(log_prob), -expected, log_prob - expected
    middle = np.sort(entropy)[(n - 1) // 2]
    size = min(24, n)
    windows = [log_prob[i : i + size].mean() for i in range(0, n - size + 1, max(1, size // 2))]
    certain = excess[entropy < middle]
    c = log_prob - log_prob.mean()
    return {
        "log_prob": log_prob.mean(),
        "log_rank": -np.log(rank).mean(),
        "lrr": -log_prob.sum() / max(np.log(rank).sum(), np.log(2)),
        "curvature": excess.sum() / np.sqrt(variance.sum()) / np.sqrt(n),
        "entropy": entropy.mean(),
        "entropy_spread": entropy.std(),
        "log_prob_spread": log_prob.std(),
        **{f"log_prob_{q}": np.percentile(log_prob, q) for q in (10, 25, 50, 75, 90)},
        "first": (rank == 1).mean(),
        "among_10": scipy.stats.percentileofscore(rank, 10, "weak") / 100,
        "among_100": scipy.stats.percentileofscore(rank, 100, "weak") / 100,
        "beyond_1000": 1 - scipy.stats.percentileofscore(rank, 1000, "weak") / 100,
        "excess_spread": excess.std(),
        "excess_uncertain": excess[entropy >= middle].mean(),
        "excess_certain": certain.mean() if len(certain) else 0.0,
        "neighbours": float(c[1:] @ c[:-1]) / max(float(c @ c), 1e-9),
        "window_spread": np.std(windows),
        "window_low": min(windows),
        "window_high": max(windows),
        "log_tokens": np.log(n),
    }


@pytest.mark.parametrize("count", [1, 2, 23, 24, 60, 301])
def test_each_statistic_is_what_numpy_computes(count):
    arrays = draw(count, seed=count)
    found = dict(zip(TOKEN_STATISTICS, token_statistics(*map(torch.from_numpy, arrays)).tolist(), strict=True))
    expected = by_hand(*arrays)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_a_text_of_certain_tokens_has_finite_statistics():
    ones = torch.ones(30)
    assert torch.isfinite(token_statistics(0 * ones, ones.long(), 0 * ones, 0 * ones)).all()
