"""Scores of labels and values against torchmetrics and scikit-learn, in uneven batches."""

import pytest
import torch
from sklearn import metrics
from torchmetrics.classification import MultilabelF1Score

from lit_core.errors import UserError
from lit_valuation.metrics import MultiLabelScores, RegressionScores

N, NAMES = 57, ("a", "b", "c")


def batches(*columns):
    return zip(*(column.split([20, 1, 36]) for column in columns), strict=True)


def test_scores_of_labels_are_those_of_torchmetrics_and_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(N, 3, generator=generator) < 0.4).float()
    predicted = torch.rand(N, 3, generator=generator) < 0.5
    losses = torch.rand(N, generator=generator)
    scores = MultiLabelScores(NAMES)
    for batch in batches(losses, predicted, y):
        scores.update(*batch)
    found = scores.compute()
    assert float(found["loss"]) == pytest.approx(float(losses.mean()), rel=1e-6)
    assert float(found["accuracy"]) == pytest.approx(1 - metrics.hamming_loss(y, predicted))
    assert float(found["exact_match"]) == pytest.approx(metrics.accuracy_score(y, predicted.float()))
    for average in ("micro", "macro"):
        reference = MultilabelF1Score(3, average=average)(predicted.float(), y.int())
        assert float(found[f"f1_{average}"]) == pytest.approx(float(reference))
        assert float(reference) == pytest.approx(metrics.f1_score(y, predicted.float(), average=average))


def test_scores_of_values_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(1)
    wanted = torch.randn(N, 3, generator=generator) * torch.tensor([1.0, 5.0, 0.1])
    outputs = wanted + torch.randn(N, 3, generator=generator) / 3
    losses = (outputs - wanted).square().sum(1) / 2
    scores = RegressionScores(NAMES)
    for batch in batches(losses, outputs, wanted):
        scores.update(*batch)
    found = scores.compute()
    expected = {
        "rmse": metrics.mean_squared_error(wanted, outputs, multioutput="raw_values") ** 0.5,
        "mae": metrics.mean_absolute_error(wanted, outputs, multioutput="raw_values"),
        "r2": metrics.r2_score(wanted, outputs, multioutput="raw_values"),
    }
    for name, values in expected.items():
        assert [float(found[f"{name}/{column}"]) for column in NAMES] == pytest.approx(values.tolist(), rel=1e-4)
    assert float(found["r2"]) == pytest.approx(metrics.r2_score(wanted, outputs), rel=1e-4)
    assert float(found["loss"]) == pytest.approx(float(losses.mean()), rel=1e-5)


def test_one_score_alone_and_nothing_to_score():
    one = RegressionScores(NAMES, value="mae/b")
    one.update(torch.zeros(2), torch.ones(2, 3), torch.zeros(2, 3))
    assert float(one.compute()) == 1
    assert RegressionScores(NAMES).compute()["r2"].isnan() and MultiLabelScores(NAMES).compute()["f1_macro"].isnan()
    with pytest.raises(UserError, match="mae/d"):
        RegressionScores(NAMES, value="mae/d")
