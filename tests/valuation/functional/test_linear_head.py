import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from lit_core.errors import RunFailure
from lit_valuation.functional.linear_head import fit_linear_head, principal_groups


@pytest.mark.parametrize(("scale", "width"), [(1.0, 64), (20.0, 64), (1.0, 400)])  # also more columns than samples
def test_the_head_is_scikit_learns(scale, width):
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:300], dtype=torch.float32), torch.tensor(y[:300])
    if width > 64:
        x = (x @ torch.randn(64, width, generator=torch.Generator().manual_seed(0))).relu()
    x = scale * F.normalize(x, dim=1)
    weight, bias = fit_linear_head(x, y, 10)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000, solver="newton-cg").fit(
        x.double().numpy(), y.numpy()
    )
    torch.testing.assert_close(weight, torch.tensor(theirs.coef_).float(), atol=2e-5, rtol=1e-4)
    intercept = torch.tensor(theirs.intercept_)
    torch.testing.assert_close(bias, (intercept - intercept.mean()).float(), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_gradient_is_zero_at_the_head_whatever_the_scale_of_features(scale):
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x[:200]) * scale, torch.tensor(y[:200])
    weight, bias = (part.double().requires_grad_() for part in fit_linear_head(x, y, 10))
    (F.cross_entropy(x @ weight.T + bias, y, reduction="sum") + weight.square().sum() / 2).backward()
    assert float(weight.grad.abs().max()) < 1e-3 * scale and float(bias.grad.abs().max()) < 1e-3


def test_features_that_are_not_finite_are_refused():
    x = torch.zeros(4, 2)
    x[1, 0] = torch.nan
    with pytest.raises(RunFailure, match="infinite; check the encoder"):
        fit_linear_head(x, torch.tensor([0, 1, 0, 1]), 2)


def test_a_class_without_samples_gets_no_probability_of_note():
    x, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    weight, bias = fit_linear_head(x, y, 3)
    assert (x @ weight.T + bias).softmax(1)[:, 2].max() < 0.01


@pytest.mark.parametrize(
    ("n", "most", "fewest", "sizes"),
    [(12, 3, 4, [6, 6]), (16, 4, 4, [4] * 4), (9, 5, 1, [1, 2, 2, 2, 2]), (3, 4, 2, [3])],
)
def test_no_group_is_smaller_than_the_fewest(n, most, fewest, sizes):
    points = torch.randn(n, 5, generator=torch.Generator().manual_seed(n))
    labels = principal_groups(points @ points.T, most, fewest)
    assert sorted(labels.bincount().tolist()) == sizes


def test_groups_are_those_of_the_principal_axis():
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(20, 6, generator=generator) * torch.tensor([9.0, 1, 1, 1, 1, 1])
    centred = (points - points.mean(0)).double()
    axis = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    low = {*(centred @ axis).argsort()[:10].tolist()}
    labels = principal_groups(points @ points.T, 2, 1)
    halves = [{*(labels == number).nonzero().squeeze(1).tolist()} for number in (0, 1)]
    assert low in halves
