"""Gradients, losses and checks where the last layer sees each token of a text, against autograd on each sample."""

import pytest
import torch
from own_llama import VOCABULARY, Llama
from torch import nn
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.encoders import Identity, TaskFeatures, TokenCounts, embed
from lit_valuation.functional.gradients import LastLayerGradients
from lit_valuation.functional.token_gradients import TokenGradients
from lit_valuation.last_layer import find_last_linear, fitted, gather_gradients, rows_at_once
from lit_valuation.nn import TokenConvNet
from lit_valuation.samples import NEXT_TOKEN, Samples, next_tokens
from lit_valuation.tagging import TaggingTask
from lit_valuation.training.retrain import case_losses, case_scores

TAGS = ("a", "b", "c")


def texts(length=9, n=7, vocabulary=50, seed=0):
    """Token ids of texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(vocabulary, (n, length), generator=generator)
    for row, size in enumerate(torch.randint(2, length + 1, (n,), generator=generator).tolist()):
        x[row, size:] = -1
    return x


def tagged(x, seed=1):
    y = torch.randint(len(TAGS), x.shape, generator=torch.Generator().manual_seed(seed)).where(x >= 0, -100)
    y[:, 1::3] = -100  # as further tokens of a word
    return Samples(x, y, TAGS, tuple(map(str, range(len(x)))), target="tags")


def plain(x):
    return Samples(x, next_tokens(x), (NEXT_TOKEN,), tuple(map(str, range(len(x)))), target="text")


def tagger(positions="mean", vocabulary=50):
    net = TokenConvNet((9,), 3, vocabulary, width=8, hidden=(6,))
    return TaggingTask(net, TAGS, (9,), positions=positions).eval()


def by_autograd(module, samples, reduction, ignored=()):
    """Gradient of each sample's loss by the last layer, one at a time, of the layer's use as a head alone."""
    head, rows, losses = find_last_linear(module), [], []
    for x, y in zip(samples.x, samples.y, strict=True):
        seen = []
        hook = head.register_forward_hook(lambda _, inputs, output, seen=seen: seen.append(inputs[0].detach()))
        with torch.no_grad():
            module(x[None])
        hook.remove()
        weight, bias = head.weight.detach().clone().requires_grad_(), None
        if head.bias is not None:
            bias = head.bias.detach().clone().requires_grad_()
        counted = (y != -100) & ~torch.isin(y, torch.tensor(ignored, dtype=torch.int64))
        loss = F.cross_entropy(F.linear(seen[0][0], weight, bias)[counted], y[counted], reduction=reduction)
        loss.backward()
        rows.append(torch.cat([weight.grad] + ([] if bias is None else [bias.grad[:, None]]), dim=1).flatten())
        losses.append(loss.detach())
    return torch.stack(rows), torch.stack(losses)


def compare(module, samples, reduction, kind, ignored=()):
    rows, losses = by_autograd(module, samples, reduction, ignored)
    batches = [(samples.x[:4], samples.y[:4]), (samples.x[4:], samples.y[4:])]
    found = gather_gradients(module, batches)
    assert isinstance(found.gradients, kind)
    torch.testing.assert_close(found.gradients.gram(found.gradients), rows @ rows.T, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.gradients.sum().flatten(), rows.sum(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.losses, losses, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(case_losses(module, samples), losses, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("positions", ["mean", "sum"])
def test_tags(positions):
    compare(tagger(positions), tagged(texts()), positions, LastLayerGradients)


@pytest.mark.parametrize(("tied", "positions"), [(True, "mean"), (False, "sum")])
def test_a_language_model_of_transformers(tied, positions):
    torch.manual_seed(0)
    module = Llama(tied, positions=positions).eval()
    assert (module.model.lm_head.weight is module.model.model.embed_tokens.weight) == tied
    compare(module, plain(texts(vocabulary=VOCABULARY)), positions, TokenGradients)


def test_positions_of_the_index_that_a_loss_ignores_do_not_count():
    samples = tagged(texts(n=30))
    samples = samples.take([i for i, y in enumerate(samples.y) if (y > 0).any()])
    compare(IgnoresFirst(), samples, "mean", LastLayerGradients, (0,))


def test_scores_are_the_share_of_right_tags_and_minus_the_loss_per_token():
    samples, module = tagged(texts()), tagger("sum")
    right = (module(samples.x).argmax(2) == samples.y) & (samples.y != -100)
    share = right.sum(1) / (samples.y != -100).sum(1)
    torch.testing.assert_close(case_scores(module, samples), share)
    torch.manual_seed(0)
    module, of_text = Llama(positions="sum").eval(), plain(texts(vocabulary=VOCABULARY))
    _, losses = by_autograd(module, of_text, "mean")
    torch.testing.assert_close(case_scores(module, of_text), -losses, rtol=1e-4, atol=1e-6)


def test_padding_and_the_rest_of_a_batch_change_nothing():
    module, samples = tagger(), tagged(texts(length=9))
    alone = torch.stack([module(x[x >= 0][None])[0, 0] for x in samples.x])
    torch.testing.assert_close(module(samples.x)[:, 0], alone, rtol=1e-4, atol=1e-5)


def test_few_texts_go_through_a_wide_model_at_once():
    module = nn.Sequential(nn.Linear(2, 50_000))
    x = torch.zeros(1, 512, dtype=torch.int64)
    assert rows_at_once(module, plain(x)) == 2**25 // (512 * 50_000) == 1


class IgnoresFirst(nn.Module):
    """A module of somebody else's, whose loss leaves the first tag out."""

    def __init__(self):
        super().__init__()
        self.net, self.loss = TokenConvNet((9,), 3, 50, width=8, hidden=(6,)), nn.CrossEntropyLoss(ignore_index=0)

    def forward(self, x):
        return self.net(x)


class OneRow(nn.Module):
    """Returns one row of logits for each text, and not one for each token."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 3)

    def forward(self, x):
        return self.head(x.float().mean(1, keepdim=True))


class Shortened(OneRow):
    """Returns logits of all tokens but the last."""

    def forward(self, x):
        return self.head(x[:, :-1, None].float())


class Transposed(OneRow):
    """Returns the tags before the tokens, as torch's loss takes them."""

    def forward(self, x):
        return self.head(x[..., None].float()).transpose(1, 2)


def test_what_does_not_fit_is_refused():
    samples = tagged(texts())
    for module in (OneRow(), Transposed()):
        with pytest.raises(UserError, match=r"return the logits \(batch, positions, classes\)"):
            fitted(samples, module)
    with pytest.raises(UserError, match="sees 8 positions of texts with 9"):
        gather_gradients(Shortened(), [(samples.x, samples.y)])
    with pytest.raises(UserError, match="whose loss is cross_entropy"):
        gather_gradients(tagger(), [(samples.x, samples.y)], loss="squared")
    with pytest.raises(UserError, match="learns tags"):
        fitted(plain(texts()), tagger())
    module = tagger()
    module.loss = "logistic"
    with pytest.raises(UserError, match="need cross_entropy"):
        fitted(samples, module)
    module = tagger()
    module.positions = "max"
    with pytest.raises(UserError, match="must be mean or sum"):
        fitted(samples, module)
    with pytest.raises(UserError, match="has the token 49"):
        tagger(vocabulary=20)(torch.tensor([[1, 49]]))
    with pytest.raises(UserError, match="257 outputs, but the texts have the token 300"):
        fitted(plain(torch.tensor([[1, 300]])), Llama().eval())
    with pytest.raises(UserError, match="no target at any of its tokens"):
        plain(torch.tensor([[1, -1]]))
    with pytest.raises(UserError, match="TokenCounts"):
        embed(Identity(), samples.x)
    with pytest.raises(UserError, match="counts token ids"):
        embed(TokenCounts(), torch.rand(2, 3))


def test_features_of_texts():
    x = torch.tensor([[1, 2, 2, -1], [5, -1, -1, -1]])
    assert TokenCounts(4).encode(x).tolist() == [[0, 1, 2, 0], [0, 1, 0, 0]]
    module, samples = tagger(), tagged(texts())
    features = TaskFeatures(module).encode(samples.x)
    assert features.shape == (7, 6)
    longer = torch.cat([samples.x, samples.x.new_full((7, 3), -1)], dim=1)
    torch.testing.assert_close(TaskFeatures(module).encode(longer), features)
