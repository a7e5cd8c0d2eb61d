import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from lit_core.errors import UserError
from lit_valuation.functional.median import geometric_median, psi


def total(points, at):
    return float((points - at).norm(dim=1).sum())


@pytest.mark.parametrize(("m", "d"), [(2, 1), (3, 2), (7, 2), (30, 5), (16, 64)])
def test_no_place_has_a_smaller_sum_of_distances(m, d):
    for seed in range(5):
        points = torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        found = total(points, geometric_median(points))
        expected = minimize(
            lambda at, points: total(points, torch.tensor(at)), points.mean(0).numpy(), (points,), "BFGS"
        ).fun
        assert found <= expected * (1 + 1e-9)


def test_four_corners_of_a_convex_shape_have_the_crossing_of_the_diagonals():
    corners = torch.tensor([[0.0, 0.0], [4.0, 1.0], [5.0, 5.0], [1.0, 3.0]], dtype=torch.float64)
    a, b = np.linalg.solve(np.array([[5.0, 3.0], [5.0, -2.0]]), np.array([4.0, 1.0]))
    np.testing.assert_allclose(geometric_median(corners), [5 * a, 5 * a], atol=1e-7)
    np.testing.assert_allclose([4 - 3 * b, 1 + 2 * b], [5 * a, 5 * a])


def test_a_median_that_is_a_point_is_returned_as_it_is():
    obtuse = torch.tensor([[-5.0, 1.0], [0.0, 0.0], [5.0, 1.0]])  # an angle above 120 degrees
    assert torch.equal(geometric_median(obtuse), obtuse[1])
    heavy = torch.tensor([[0.3, 0.1], [9.0, 2.0], [0.3, 0.1], [4.0, 7.0], [0.3, 0.1]])
    assert torch.equal(geometric_median(heavy), heavy[0])
    assert torch.equal(geometric_median(heavy[:1]), heavy[0])
    assert torch.equal(geometric_median(torch.tensor([[1.0], [7.0], [2.0], [3.0], [90.0]])), torch.tensor([3.0]))


def test_an_estimate_that_hits_another_point_goes_on():
    points = torch.tensor([[0.0, 0.0], [-3.0, 0.0], [1.0, 1.0], [1.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    assert torch.equal(points.mean(0), points[0])  # where the iteration starts, and 1 / distance is infinite
    assert total(points, geometric_median(points)) < total(points, points[0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=1, max_size=8))
def test_points_on_a_grid_with_repetitions_and_lines(rows):
    points = torch.tensor(rows, dtype=torch.float64)
    found = total(points, geometric_median(points))
    assert found <= min(total(points, point) for point in points) + 1e-7
    for shift in torch.eye(2, dtype=torch.float64) * 0.01:
        for sign in (1, -1):
            assert found <= total(points, geometric_median(points) + sign * shift) + 1e-7


def test_psi_is_the_distance_between_normalised_vectors():
    features, median = torch.randn(6, 4), torch.randn(4)
    angles = torch.nn.functional.cosine_similarity(features, median[None])
    torch.testing.assert_close(psi(features, median), (2 - 2 * angles).clamp(min=0).sqrt(), atol=1e-5, rtol=1e-4)


def test_bad_input_is_refused():
    with pytest.raises(UserError, match="1 or more points"):
        geometric_median(torch.empty(0, 3))
    with pytest.raises(UserError, match="not finite"):
        geometric_median(torch.tensor([[0.0, torch.nan]]))
    with pytest.raises(UserError, match="features of width 3, but the median has 4"):
        psi(torch.ones(2, 3), torch.ones(4))
