import pytest
import torch
from digits_data import digits
from torch import nn
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.last_layer import find_last_linear, gather_gradients, hidden_and_logits
from lit_valuation.nn import MLP, ConvNet, LinearHead

pytestmark = pytest.mark.usefixtures("seeded")
X, Y = (tensor[:40] for tensor in digits())


def foreign():
    """A network of somebody else, with batch normalisation and dropout."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 10))


def batches(size=16):
    return [(X[start : start + size], Y[start : start + size]) for start in range(0, len(X), size)]


@pytest.mark.parametrize("make", [lambda: MLP((1, 8, 8), 10, [9]), lambda: ConvNet((1, 8, 8), 10, [4], 7), foreign])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradients_are_those_of_autograd_sample_by_sample(make, smoothing):
    network = make()
    gathered = gather_gradients(network, batches(), label_smoothing=smoothing)
    assert gathered.index.tolist() == list(range(40)) and torch.equal(gathered.y, Y)
    head = find_last_linear(network)
    network.eval()
    for number in range(0, 40, 7):
        loss = F.cross_entropy(network(X[number : number + 1]), Y[number : number + 1], label_smoothing=smoothing)
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        one = gathered.gradients.take([number]).sum()
        torch.testing.assert_close(one, torch.cat([weight, bias[:, None]], 1), atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        assert torch.equal(gathered.wrong, network(X).argmax(1) != Y)


def test_the_module_keeps_its_modes_and_statistics():
    network = foreign()
    network[3].eval()
    before = network[2].running_mean.clone()
    gather_gradients(network, batches())
    assert [part.training for part in network] == [True, True, True, False, True]
    assert torch.equal(network[2].running_mean, before)


def test_padding_is_left_out_and_numbers_are_kept():
    index = torch.tensor([5, 3, -1, -1])
    batch = {"image": X[:4], "label": Y[:4], "index": index}
    gathered = gather_gradients(LinearHead((1, 8, 8), 10), [batch], keys=("image", "label"))
    assert gathered.index.tolist() == [5, 3] and torch.equal(gathered.y, Y[:2])
    assert torch.equal(gathered.gradients.hidden, X[:2].flatten(1))


def test_no_sample_gives_no_gradient():
    assert len(gather_gradients(foreign(), []).gradients) == 0


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.LogSoftmax(1)), "is not that of its last nn.Linear"),
        (nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), "has no nn.Linear"),
        (nn.Sequential(nn.Linear(8, 10)), "is not that of its last nn.Linear"),
    ],
)
def test_a_head_that_is_not_linear_is_refused(network, words):
    with pytest.raises(UserError, match=words):
        gather_gradients(network, batches())


def test_a_head_is_found_by_name():
    network = nn.ModuleDict({"top": nn.Linear(64, 10), "unused": nn.Linear(3, 3)})
    network.forward = lambda x: network["top"](x.flatten(1))
    with pytest.raises(UserError, match="name the layer"):
        hidden_and_logits(network, X)
    assert len(gather_gradients(network, batches(), head="top").y) == 40
    with pytest.raises(UserError, match="of that name; it has top, unused"):
        gather_gradients(network, batches(), head="tpo")
    network.head = "top"  # a module may tell it itself, by name or as the layer
    assert find_last_linear(network) is network["top"]
    network.head = network["top"]
    assert find_last_linear(network) is network["top"]


def test_a_gradient_that_is_not_finite_is_refused_by_its_number():
    spoiled = X.clone()
    spoiled[21, 0, 0, 0] = torch.nan
    with pytest.raises(UserError, match="gradient at sample 21 is not finite"):
        gather_gradients(foreign(), [(spoiled, Y)])


@pytest.mark.parametrize("batch", [X, {"x": X}, (X, Y, Y)])
def test_a_batch_of_another_kind_is_refused(batch):
    with pytest.raises(UserError, match="A batch"):
        gather_gradients(foreign(), [batch])


def test_networks_refuse_sizes_that_cannot_be():
    for make, words in [
        (lambda: ConvNet((64,), 10), "takes images"),
        (lambda: MLP((64,), 0), "n_classes is 0"),
        (lambda: MLP((64,), 3, [0]), "hidden is 0"),
        (lambda: MLP((64,), 3, dropout=1.0), "0 to below 1"),
    ]:
        with pytest.raises(UserError, match=words):
            make()
