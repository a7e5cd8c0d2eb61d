"""The exact calibration of Gaussian noise, against the definition of differential privacy and the classical bound."""

import math

import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.functional.gaussian import gaussian_delta, gaussian_deviation


def by_integration(deviation, epsilon, sensitivity):
    """The largest of P(S) - e^ε Q(S) over all sets S, for two normal distributions a sensitivity apart."""
    x = torch.linspace(-60 * deviation, 60 * deviation + sensitivity, 2_000_001, dtype=torch.float64)
    first, second = (torch.distributions.Normal(mean, deviation).log_prob(x).exp() for mean in (sensitivity, 0.0))
    return float(torch.trapezoid((first - math.exp(epsilon) * second).clamp(min=0), x))


@pytest.mark.parametrize(("deviation", "epsilon", "sensitivity"), [(1, 1, 1), (0.5, 3, 1), (4, 0.1, 2), (1, 0.01, 0.1)])
def test_delta_is_that_of_the_definition(deviation, epsilon, sensitivity):
    found = gaussian_delta(deviation, epsilon, sensitivity)
    assert found == pytest.approx(by_integration(deviation, epsilon, sensitivity), rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 1, 8, 100, 2000])
@pytest.mark.parametrize("delta", [1e-9, 1e-5, 0.1])
def test_the_deviation_is_the_smallest(epsilon, delta):
    deviation = gaussian_deviation(epsilon, delta, 2.0)
    assert gaussian_delta(deviation, epsilon, 2.0) <= delta < gaussian_delta(deviation * 0.999, epsilon, 2.0)
    if epsilon < 1:  # where the classical calibration holds, it takes more noise
        assert deviation < 2.0 * math.sqrt(2 * math.log(1.25 / delta)) / epsilon
    assert gaussian_deviation(epsilon, delta, 4.0) == pytest.approx(2 * deviation)


@pytest.mark.parametrize(
    "given", [(0, 1e-5, 1), (1, 0, 1), (1, 1, 1), (math.nan, 0.1, 1), (math.inf, 0.1, 1), (1, 0.1, 0)]
)
def test_what_it_refuses(given):
    with pytest.raises(UserError, match=r"^(epsilon|delta|sensitivity) is "):
        gaussian_deviation(*given)
