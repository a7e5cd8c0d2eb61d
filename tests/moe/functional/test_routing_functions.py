import math

import numpy as np
import ot
import pytest
import torch

from lit_moe.functional import routing as F


def paper_sinkhorn(logits, iterations):
    """The scaling as published, in the linear domain and in float64."""
    C = np.exp(logits.double().numpy())
    n_tokens, n_experts = C.shape
    d1 = np.ones(n_experts)
    for _ in range(iterations):
        d0 = 1 / n_tokens / (C @ d1)
        d1 = 1 / n_experts / (d0 @ C)
    return d0[:, None] * C * d1


@pytest.mark.parametrize("shape", [(64, 8), (200, 31), (5, 7)])
def test_sinkhorn_equals_optimal_transport_library(shape):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
    uniform = [np.full(n, 1 / n) for n in shape]
    reference = ot.sinkhorn(*uniform, -logits.numpy(), reg=1.0, stopThr=1e-14, numItermax=100_000)
    balanced = F.sinkhorn(logits, tolerance=1e-14, max_iterations=100_000)
    np.testing.assert_allclose(balanced.numpy(), reference, rtol=1e-8)
    np.testing.assert_allclose(F.sinkhorn(logits.float(), 1e-7, 1000).numpy(), reference, rtol=1e-4)


@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_sinkhorn_equals_published_iteration(iterations):
    logits = torch.randn(50, 6, generator=torch.Generator().manual_seed(1))
    balanced = F.sinkhorn(logits, tolerance=0, max_iterations=iterations)
    np.testing.assert_allclose(balanced.numpy(), paper_sinkhorn(logits, iterations), rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "offset"), [(1.0, 0.0), (300.0, 0.0), (1e4, 0.0), (1.0, 1e4), (1.0, -1e4), (1e-3, 0.0)]
)
def test_sinkhorn_survives_extreme_logits(scale, offset):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(256, 31, generator=generator) * scale + offset * torch.randn(31, generator=generator)
    balanced = F.log_sinkhorn(logits, 0, 30)
    reference = F.log_sinkhorn(logits.double(), 0, 30)
    assert balanced.isfinite().all()
    torch.testing.assert_close(balanced.double(), reference, rtol=1e-5, atol=1e-5 * max(scale, abs(offset), 1))
    columns = reference.exp().sum(0)
    torch.testing.assert_close(columns, torch.full_like(columns, 1 / 31))


def test_sinkhorn_with_an_expert_nobody_wants_or_all_want():
    logits = torch.randn(128, 8, generator=torch.Generator().manual_seed(3))
    logits[:, 0] -= 1000
    logits[:, 1] += 1000
    balanced = F.sinkhorn(logits, 1e-6, 2000)
    torch.testing.assert_close(balanced.sum(0), torch.full((8,), 1 / 8), rtol=1e-4, atol=0)
    torch.testing.assert_close(balanced.sum(1), torch.full((128,), 1 / 128), rtol=1e-3, atol=0)


def test_sinkhorn_stops_at_the_tolerance_and_at_the_cap():
    logits = torch.randn(64, 8, generator=torch.Generator().manual_seed(4))
    stopped = F.log_sinkhorn(logits, tolerance=0.01, max_iterations=1000)
    equal = [n for n in range(1, 20) if torch.equal(stopped, F.log_sinkhorn(logits, 0, n))]
    assert len(equal) == 1 and 1 < equal[0] < 10
    change = F.log_sinkhorn(logits, 0, equal[0]).exp().sum(1).mul(64).sub(1).abs().max()
    assert change < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_sinkhorn_leaves_masked_tokens_out(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, mask = torch.randn(40, 5, generator=generator), torch.rand(40, generator=generator) > 0.4
    balanced = F.sinkhorn(logits, 1e-6, 100, mask)
    torch.testing.assert_close(balanced[mask], F.sinkhorn(logits[mask], 1e-6, 100))
    assert (balanced[~mask] == 0).all()


def test_sinkhorn_has_no_gradient():
    assert not F.sinkhorn(torch.randn(4, 3, requires_grad=True)).requires_grad


def test_counts_equal_a_loop():
    generator = torch.Generator().manual_seed(0)
    indices, mask = torch.randint(0, 9, (50, 3), generator=generator), torch.rand(50, generator=generator) > 0.5
    counts, masked = [0] * 9, [0] * 9
    for row, real in zip(indices.tolist(), mask.tolist(), strict=True):
        for expert in row:
            counts[expert] += 1
            masked[expert] += real
    assert F.count_experts(indices, 9).tolist() == counts
    assert F.count_experts(indices, 9, mask).tolist() == masked


def test_balance_loss_equals_its_formula_and_gradient():
    generator = torch.Generator().manual_seed(0)
    tokens, n_experts, k = 30, 7, 2
    logits = torch.randn(tokens, n_experts, generator=generator, dtype=torch.float64, requires_grad=True)
    chosen = logits.topk(k, dim=-1).indices
    loss = F.balance_loss(logits.softmax(-1).mean(0), F.count_experts(chosen, n_experts), tokens, k)
    loss.backward()

    z = logits.detach().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    f = np.array([sum(i in row for row in chosen.tolist()) for i in range(n_experts)]) / (k * tokens)
    assert loss.item() == pytest.approx(n_experts * sum(f[i] * p[:, i].mean() for i in range(n_experts)))
    gradient = n_experts / tokens * p * (f - (p * f).sum(1, keepdims=True))  # softmax's Jacobian by hand
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-10)


def test_balance_loss_ranges_from_one_to_the_number_of_experts_over_k():
    even = F.balance_loss(torch.full((8,), 1 / 8), torch.full((8,), 4), 16, 2)
    assert even.item() == pytest.approx(1)
    collapsed = F.balance_loss(torch.eye(8)[0], torch.eye(8)[0] * 16, 16, 1)
    assert collapsed.item() == pytest.approx(8)


def test_z_loss_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    logits, mask = torch.randn(20, 5, generator=generator), torch.rand(20, generator=generator) > 0.5
    squares = [math.log(sum(math.exp(z) for z in row)) ** 2 for row in logits.tolist()]
    assert F.z_loss(logits).item() == pytest.approx(sum(squares) / 20, rel=1e-5)
    real = [square for square, counts in zip(squares, mask.tolist(), strict=True) if counts]
    assert F.z_loss(logits, mask).item() == pytest.approx(sum(real) / len(real), rel=1e-5)
    assert F.z_loss(torch.full((3, 4), 1e4)).isfinite()


def test_losses_of_no_token_are_zero():
    nobody = torch.zeros(4, dtype=torch.bool)
    assert F.z_loss(torch.randn(4, 3), nobody) == 0
    assert F.balance_loss(torch.zeros(3), torch.zeros(3), 0, 1) == 0


def test_mri_equals_its_definition():
    indices = torch.rand(60, 31, generator=torch.Generator().manual_seed(0)).topk(3).indices
    definition = max(sum(i in row for row in indices.tolist()) / 60 for i in range(31))
    assert F.mri(F.count_experts(indices, 31), 60).item() == pytest.approx(definition)
    layers = torch.tensor([[4, 0], [2, 2]])
    assert F.mri(layers, 4).tolist() == [1.0, 0.5]
    assert F.mri(torch.zeros(3, dtype=torch.int64), 0).isnan()


def test_load_statistics():
    counts = torch.tensor([[2, 2, 2, 2], [8, 0, 0, 0], [0, 0, 0, 0], [4, 2, 1, 1]])
    entropy = torch.distributions.Categorical(counts[3] / 8).entropy().item() / math.log(4)
    assert F.load_entropy(counts).tolist() == pytest.approx([1, 0, math.nan, entropy], nan_ok=True)
    assert F.max_load(counts).tolist() == pytest.approx([1, 4, math.nan, 2], nan_ok=True)
    assert F.min_load(counts).tolist() == pytest.approx([1, 0, math.nan, 0.5], nan_ok=True)
    assert F.dead_experts(counts).tolist() == [0, 3, 4, 0]
    assert F.load_entropy(torch.tensor([[5]])).tolist() == [0]


def test_columns_are_scaled_to_given_shares():
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * 3
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    balanced = F.log_sinkhorn(logits, 1e-6, 500, log_shares_E=shares.log()).exp()
    torch.testing.assert_close(balanced.sum(0), shares, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(balanced.sum(1), torch.full((200,), 1 / 200), rtol=1e-3, atol=1e-5)
    even = F.log_sinkhorn(logits, log_shares_E=torch.full((4,), 0.25).log())
    torch.testing.assert_close(even, F.log_sinkhorn(logits))
