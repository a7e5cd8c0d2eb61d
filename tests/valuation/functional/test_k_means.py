import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, load_wine

from lit_core.errors import UserError
from lit_valuation.functional.k_means import k_means, lloyd, points_of_gram

IRIS = torch.tensor(load_iris().data)
WINE = torch.tensor(load_wine().data)[:60]


def spread(points, labels):
    return sum(float((points[labels == k] - points[labels == k].mean(0)).square().sum()) for k in labels.unique())


@pytest.mark.parametrize("points", [IRIS, WINE])
def test_from_the_same_centres_it_ends_where_scikit_learn_ends(points):
    centres = points[[3, 30, 50]]
    theirs = KMeans(3, init=centres.numpy(), n_init=1, algorithm="lloyd", tol=0).fit(points.numpy())
    labels, means = lloyd(points, centres)
    assert np.array_equal(labels.numpy(), theirs.labels_)
    torch.testing.assert_close(means, torch.tensor(theirs.cluster_centers_))


@pytest.mark.parametrize("points", [IRIS, WINE])
@pytest.mark.parametrize("n_clusters", [1, 2, 3, 5])
def test_the_sum_of_squares_is_that_of_scikit_learn_and_the_largest_cluster_is_the_first(points, n_clusters):
    theirs = KMeans(n_clusters, n_init=30, random_state=0).fit(points.numpy())
    labels = k_means(points, n_clusters, seed=0)
    assert spread(points, labels) <= theirs.inertia_ * 1.001
    sizes = labels.bincount().tolist()
    assert len(sizes) == n_clusters and sizes == sorted(sizes, reverse=True)


def test_the_same_seed_gives_the_same_clusters_and_copies_make_no_cluster():
    assert torch.equal(k_means(IRIS, 4, seed=1), k_means(IRIS, 4, seed=1))
    assert k_means(torch.tensor([[1.0], [2.0], [2.0], [1.0], [2.0]]), 4, seed=0).tolist() == [1, 0, 0, 1, 0]
    with pytest.raises(UserError, match="n_clusters is 0"):
        k_means(IRIS, 0)


def test_points_of_a_gram_matrix_have_its_products():
    rows = torch.randn(6, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[3] = rows[1]
    points = points_of_gram(rows @ rows.T)
    torch.testing.assert_close(points @ points.T, rows @ rows.T)
