"""Targets beyond one class: samples, per-sample gradients and losses of the tasks, against autograd and plain loops."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation import MultiLabelTask, RegressionTask
from lit_valuation.last_layer import find_last_linear, gather_gradients
from lit_valuation.nn import MLP
from lit_valuation.samples import Samples, merge_samples, target_statistics
from lit_valuation.training.retrain import case_losses, case_scores

pytestmark = pytest.mark.usefixtures("seeded")
N, NAMES = 30, ("a", "b", "c")


def samples(target, n=N, names=NAMES):
    x = torch.randn(n, 5)
    y = x[:, : len(names)] * 40 + 300 if target == "values" else (x[:, : len(names)] > 0).float()
    return Samples(x, y, names, tuple(f"k{i}" for i in range(n)), target=target)


def model(target, of):
    if target == "labels":
        return MultiLabelTask(MLP((5,), 3, [7]), NAMES, (5,))
    mean, scale = target_statistics(of.y, of.classes)
    return RegressionTask(MLP((5,), 3, [7]), NAMES, (5,), target_mean=mean.tolist(), target_scale=scale.tolist())


def loss_of(target, task, x, y):
    """The loss of one sample, written out."""
    outputs = task(x[None])[0]
    if target == "labels":
        return sum(F.binary_cross_entropy(output.sigmoid(), wanted) for output, wanted in zip(outputs, y, strict=True))
    return sum(
        ((output - (value - mean) / scale) ** 2) / 2
        for output, value, mean, scale in zip(outputs, y, task.target_mean, task.target_scale, strict=True)
    )


@pytest.mark.parametrize("target", ["labels", "values"])
def test_gradients_and_losses_are_those_of_autograd_sample_by_sample(target):
    of = samples(target)
    task = model(target, of)
    found = gather_gradients(task, [(of.x[:16], of.y[:16]), (of.x[16:], of.y[16:])])
    head = find_last_linear(task)
    assert found.wrong is None and found.y.tolist() == [0] * N
    losses = case_losses(task, of)
    torch.testing.assert_close(found.losses, losses)
    for i in range(N):
        loss = loss_of(target, task, of.x[i], of.y[i])
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        full = torch.cat([weight, bias[:, None]], 1)
        torch.testing.assert_close(found.gradients.take([i]).sum(), full, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(losses[i], loss.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("target", ["labels", "values"])
def test_the_gradient_of_a_fitted_linear_model_of_scikit_learn_is_its_penalty(target):
    """At scikit-learn's minimum of loss and ridge penalty, the gradients sum to minus the gradient of the penalty."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multioutput import MultiOutputClassifier

    from lit_valuation.functional.gradients import last_layer_gradients

    of = samples(target, 200)
    x, y = of.x.double(), of.y.double()
    if target == "values":
        y = (y - y.mean(0)) / y.std(0)
        fitted = Ridge(alpha=2.0).fit(x.numpy(), y.numpy())
        weight, bias, loss, alpha = fitted.coef_, fitted.intercept_, "squared", 2.0
    else:
        y[::7] = 1 - y[::7]  # so that no label can be told from the columns alone
        fitted = MultiOutputClassifier(LogisticRegression(C=0.5, tol=1e-10, max_iter=1000)).fit(x.numpy(), y.numpy())
        weight = np.concatenate([one.coef_ for one in fitted.estimators_])
        bias = np.concatenate([one.intercept_ for one in fitted.estimators_])
        loss, alpha = "logistic", 2.0
    weight, bias = torch.tensor(weight), torch.tensor(bias)
    total = last_layer_gradients(x @ weight.T + bias, x, y, loss).sum()
    torch.testing.assert_close(total[:, :-1], -alpha * weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(total[:, -1], torch.zeros(3).double(), atol=1e-4, rtol=0)


def test_a_case_scores_its_right_labels_or_minus_its_error_in_training_variances():
    of = samples("labels")
    task = model("labels", of)
    with torch.no_grad():
        rows = zip(task(of.x), of.y, strict=True)
        right = [[float((p > 0) == (y > 0.5)) for p, y in zip(*row, strict=True)] for row in rows]
    assert case_scores(task, of).tolist() == pytest.approx([sum(row) / 3 for row in right])

    of = samples("values")
    task = model("values", of)
    with torch.no_grad():
        predicted = task(of.x) * of.y.std(0, correction=0) + of.y.mean(0)
    errors = ((predicted - of.y) ** 2 / of.y.var(0, correction=0)).mean(1)
    torch.testing.assert_close(case_scores(task, of), -errors, atol=1e-4, rtol=1e-4)


def test_columns_are_matched_by_name():
    of = samples("values")
    turned = of.renumbered(("c", "a", "b"))
    assert torch.equal(turned.y, of.y[:, [2, 0, 1]]) and turned.classes == ("c", "a", "b")
    both = merge_samples(
        [of, Samples(turned.x, turned.y, turned.classes, tuple(f"o{i}" for i in range(N)), None, "values")]
    )
    assert torch.equal(both.y[N:], of.y) and both.target == "values"
    assert of.strata().tolist() == [0] * N and of.counts() == dict.fromkeys(NAMES, N)
    labels = samples("labels")
    assert labels.counts() == {name: int((labels.y[:, i] == 1).sum()) for i, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: samples("values").renumbered(("a", "b")), "target columns a, b, c"),
        (lambda: samples("labels").of_classes(["a"]), "labels a, b, c"),
        (lambda: merge_samples([samples("labels"), samples("values")]), "labels and values"),
        (lambda: Samples(torch.rand(1, 2), torch.tensor([[0.5]]), ("a",), ("k",), target="labels"), "0 or 1"),
        (
            lambda: Samples(torch.rand(1, 2), torch.tensor([[torch.nan]]), ("a",), ("k",), target="values"),
            "a of sample k",
        ),
        (lambda: Samples(torch.rand(1, 2), torch.tensor([1.0]), ("a",), ("k",), target="values"), "a column per name"),
        (lambda: target_statistics(torch.full((4, 1), 7.0), ("a",)), "has the value 7 in all 4"),
        (lambda: RegressionTask(MLP, NAMES, (5,), target_mean=[1.0]), "1 values, but there are 3"),
        (lambda: RegressionTask(MLP, NAMES, (5,), target_scale=[1.0, 0.0, 1.0]), "target_scale"),
    ],
)
def test_what_is_no_such_target_is_refused(make, reason):
    with pytest.raises(UserError, match=reason):
        make()
