import math

import pytest
import torch
import torch.nn.functional as F

from lit_moe.functional.token_nll import IGNORED, token_nll
from lit_moe.metrics import BitsPerByte, TokenLoss

TEXT = "It is a truth universally acknowledged, that a single man — wanting a wife — has a good fortune. Größe: 1,80 m."


@pytest.fixture
def scored():
    """Random logits for the bytes of a real sentence, in float64 for the reference."""
    labels = torch.tensor(list(TEXT.encode()))
    logits = torch.randn(len(labels), 256, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return logits, labels


def nats(logits, labels):
    rows = zip(logits.tolist(), labels.tolist(), strict=True)
    return sum(math.log(sum(math.exp(x) for x in row)) - row[label] for row, label in rows)


def test_bits_per_byte_equal_the_definition_over_batches_of_any_size(scored):
    logits, labels = scored
    loss, bits = TokenLoss(), BitsPerByte()
    for part in (slice(0, 50), slice(50, 51), slice(51, None)):
        nll = F.cross_entropy(logits[part], labels[part], reduction="none")
        loss.update(nll, torch.ones_like(labels[part], dtype=torch.bool))
        bits.update(nll, torch.ones_like(labels[part]))
    total = nats(logits, labels)
    assert float(loss.compute()) == pytest.approx(total / len(labels), rel=1e-6)
    assert float(bits.compute()) == pytest.approx(total / math.log(2) / len(TEXT.encode()), rel=1e-6)
    assert bits.text_bytes == len(TEXT.encode())


def test_many_small_values_are_summed_without_loss():
    metric = TokenLoss()
    metric.update(torch.tensor([2.0**24]), torch.tensor([True]))
    for _ in range(1000):
        metric.update(torch.tensor([1.0]), torch.tensor([True]))
    assert float(metric.nll) == 2**24 + 1000


def test_masked_tokens_count_in_nothing(scored):
    logits, labels = scored
    hidden = logits.float()
    masked = labels.clone()
    masked[10:] = IGNORED
    nll = token_nll(hidden, masked, lambda x: x, 256)
    assert torch.count_nonzero(nll[10:]) == 0
    metric = TokenLoss()
    metric.update(nll, masked != IGNORED)
    assert float(metric.compute()) == pytest.approx(nats(logits[:10], labels[:10]) / 10, rel=1e-5)


def test_bits_per_byte_are_not_known_where_text_is_unknown():
    bits = BitsPerByte()
    bits.update(torch.ones(3), torch.tensor([1.0, 0.0, math.nan]))
    with pytest.warns(UserWarning, match="Bits per byte are not known"):
        assert math.isnan(bits.compute())
    assert bits.text_bytes is None


def test_no_token_at_all_is_nan():
    assert math.isnan(TokenLoss().compute())


@pytest.mark.parametrize("max_logits", [97, 97 * 5, 97 * 11, 97 * 12])
def test_a_chunked_loss_has_the_values_and_gradients_of_the_whole(max_logits):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 4, 8, generator=generator, requires_grad=True)
    weight = torch.randn(97, 8, generator=generator, requires_grad=True)
    labels = torch.randint(97, (3, 4), generator=generator)
    labels[1, 2] = IGNORED

    def run(limit):
        largest = 0

        def head(rows):
            nonlocal largest
            largest = max(largest, len(rows) * 97)
            return rows @ weight.T

        nll = token_nll(hidden, labels, head, 97, limit)
        return nll, torch.autograd.grad(nll.square().sum(), (hidden, weight)), largest

    whole, whole_gradients, _ = run(1 << 20)
    chunked, gradients, largest = run(max_logits)
    assert largest <= max_logits
    assert chunked.shape == (3, 4)
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(gradients, whole_gradients)
