import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional.gradients import LastLayerGradients, last_layer_gradients

LOSSES = [("cross_entropy", 0.0), ("cross_entropy", 0.1), ("logistic", 0.0), ("squared", 0.0)]


def of_a_sample(loss, smoothing, output, y):
    if loss == "cross_entropy":
        return F.cross_entropy(output, y, label_smoothing=smoothing)
    wanted = F.one_hot(y, len(output)).to(output)
    if loss == "logistic":
        return F.binary_cross_entropy_with_logits(output, wanted, reduction="sum")
    return F.mse_loss(output, wanted, reduction="sum") / 2


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:40] / 16), torch.tensor(y[:40])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("loss", "smoothing"), LOSSES)
def test_factors_are_the_gradients_of_autograd(digits, loss, smoothing, bias):
    torch.manual_seed(0)
    x, y = digits
    body = nn.Sequential(nn.Linear(64, 12), nn.Tanh()).double()
    head = nn.Linear(12, 10, bias=bias).double()
    hidden = body(x)
    found = last_layer_gradients(head(hidden), hidden, y, loss, smoothing, bias)

    rows = []
    for sample, label in zip(x, y, strict=True):
        gradient = torch.autograd.grad(of_a_sample(loss, smoothing, head(body(sample)), label), [*head.parameters()])
        rows.append(torch.cat([gradient[0], *(column[:, None] for column in gradient[1:])], dim=1))
    full = torch.stack(rows)
    flat, weights = full.flatten(1), torch.rand(len(x), dtype=torch.float64)
    torch.testing.assert_close(torch.stack([found.take([i]).sum() for i in range(len(x))]), full)
    torch.testing.assert_close(found.sum(), full.sum(0))
    torch.testing.assert_close(found.sum(weights), (weights[:, None, None] * full).sum(0))
    torch.testing.assert_close(found.dot(full[:7].sum(0)), flat @ flat[:7].sum(0))
    torch.testing.assert_close(found.gram(found.take(torch.arange(5, 9))), flat @ flat[5:9].T)
    torch.testing.assert_close(found.squared_norms(), flat.square().sum(1))
    assert len(found) == 40 and not found.delta.requires_grad


def test_one_output_and_values_as_targets():
    torch.manual_seed(0)
    outputs, hidden, y = torch.randn(6, 1), torch.randn(6, 3), torch.tensor([0, 1, 1, 0, 1, 0])
    by_number = last_layer_gradients(outputs, hidden, y, "logistic")
    torch.testing.assert_close(by_number.delta[:, 0], outputs[:, 0].sigmoid() - y)
    values = torch.randn(6, 1)
    torch.testing.assert_close(last_layer_gradients(outputs, hidden, values, "squared").delta, outputs - values)


def test_half_precision_becomes_float32():
    outputs, hidden = torch.randn(3, 2).bfloat16(), torch.randn(3, 4).bfloat16()
    found = last_layer_gradients(outputs, hidden, torch.tensor([0, 1, 1]))
    assert found.delta.dtype == found.hidden.dtype == torch.float32


def test_bad_input_is_refused():
    outputs, hidden, y = torch.zeros(3, 2), torch.zeros(3, 4), torch.tensor([0, 1, 1])
    with pytest.raises(UserError, match="gradient of sample 1 is not finite"):
        last_layer_gradients(outputs, torch.tensor([[0.0], [torch.nan], [torch.inf]]), y)
    with pytest.raises(UserError, match="gradient of sample 2 is not finite"):
        last_layer_gradients(torch.tensor([[0.0, 0], [1, 2], [torch.nan, 0]]), hidden, y)
    with pytest.raises(UserError, match="loss is 'hinge'"):
        last_layer_gradients(outputs, hidden, y, "hinge")
    with pytest.raises(UserError, match=r"label_smoothing is 0.1 with the squared loss"):
        last_layer_gradients(outputs, hidden, y, "squared", 0.1)
    with pytest.raises(UserError, match="label_smoothing is 2"):
        last_layer_gradients(outputs, hidden, y, label_smoothing=2)
    with pytest.raises(UserError, match="targets runs from 0 to 2, but the model has 2 outputs"):
        last_layer_gradients(outputs, hidden, y + torch.tensor([0, 0, 1]))
    with pytest.raises(UserError, match="one class index per sample"):
        last_layer_gradients(outputs, hidden, y[:2])
    with pytest.raises(UserError, match="one row per sample"):
        LastLayerGradients(torch.zeros(3, 2), torch.zeros(4, 2))
