"""Routers that learn from whole optimizer steps, on one device."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lit_core.errors import UserError
from lit_moe.functional import routing as F
from lit_moe.nn import (
    BiasRouter,
    Decoder,
    DecoderConfig,
    MoEConfig,
    MoEFeedForward,
    PenaltyRouter,
    SinkhornRouter,
    auxiliary_losses,
    moe_layers,
    step_routers,
)

SHAPES = [(8, 1), (31, 3)]


def global_penalty(n_experts, top_k):
    return PenaltyRouter(n_experts, top_k, balance_weight=0.3, scope="global_batch")


def make_layer(kind=BiasRouter, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer = MoEFeedForward(16, MoEConfig(n_experts=8, top_k=2, expert_width=8), kind)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return layer


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_bias_follows_the_rule(n_experts, k):
    """Against plain Python, token by token and expert by expert, over steps of three micro-batches."""
    router, bias = BiasRouter(n_experts, k, update_rate=0.05), [0.0] * n_experts
    skew = draw(n_experts, seed=9)
    for step in range(6):
        load = [0] * n_experts
        for micro in range(3):
            logits = draw(40, n_experts, seed=3 * step + micro) + skew
            indices, weights, stats = router(logits)
            scores = logits.double().sigmoid().tolist()
            for t, row in enumerate(scores):
                chosen = sorted(range(n_experts), key=lambda i: -(row[i] + bias[i]))[:k]
                assert indices[t].tolist() == chosen
                assert weights[t].tolist() == pytest.approx([row[i] for i in chosen], rel=1e-5)
                for i in chosen:
                    load[i] += 1
            assert torch.equal(stats.counts, stats.raw_counts)
        step_routers(router)
        mean = sum(load) / n_experts
        bias = [b + 0.05 * ((mean > c) - (mean < c)) for b, c in zip(bias, load, strict=True)]
        bias = [b - sum(bias) / n_experts for b in bias]
        assert router.bias.tolist() == pytest.approx(bias, abs=1e-6)
        assert abs(float(router.bias.sum())) < 1e-5
    assert max(bias) > 0.1


def test_a_bias_evens_a_skewed_load_in_inference_too():
    layer, x = make_layer(lambda n, k: BiasRouter(n, k, update_rate=0.02)), draw(2000, 16) + 0.5
    layer(x)
    before = F.mri(layer.stats.counts, 2000)
    for _ in range(100):
        layer(x)
        step_routers(layer)
    layer.eval()(x)
    assert F.mri(layer.stats.counts, 2000) < 0.29 < 0.35 < before  # the floor is 0.25
    assert layer.router.step_counts is None


@pytest.mark.parametrize("kind", [BiasRouter, global_penalty])
def test_four_micro_batches_count_as_one_batch(kind):
    layer, x = make_layer(kind), draw(4, 50, 16)
    whole = copy.deepcopy(layer)
    whole(x)
    for part in x:
        layer(part)
    assert torch.equal(layer.router.step_counts, whole.router.step_counts)
    assert torch.equal(layer.stats.indices, whole.stats.indices[-50:])
    layer.eval()(x)
    assert layer.router.step_counts.sum() == 4 * 50 * 2  # evaluation counts nothing
    step_routers(layer), step_routers(whole)
    assert layer.router.step_counts is None
    if kind is BiasRouter:
        assert torch.equal(layer.router.bias, whole.router.bias) and layer.router.bias.abs().max() > 0


@pytest.mark.parametrize("kind", [BiasRouter, global_penalty])
@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_changes_no_bias_and_no_gradient(kind, reentrant):
    plain = make_layer(kind)
    again = copy.deepcopy(plain)
    for step in range(3):
        for micro in range(2):
            x = draw(30, 16, seed=2 * step + micro)
            for layer in (plain, again):
                run = x.clone().requires_grad_()
                out = layer(run) if layer is plain else checkpoint(layer, run, use_reentrant=reentrant)
                loss = out.square().sum()
                # reentrant checkpointing keeps no graph of what is not returned
                (loss if reentrant else loss + auxiliary_losses(layer)).backward()
            assert torch.equal(plain.router.step_counts, again.router.step_counts)
            for ours, theirs in zip(plain.parameters(), again.parameters(), strict=True):
                assert torch.equal(ours.grad, theirs.grad)
        step_routers(plain), step_routers(again)
    if kind is BiasRouter:
        assert torch.equal(plain.router.bias, again.router.bias) and plain.router.bias.abs().max() > 0


def test_a_checkpointed_decoder_moves_each_layer_by_its_own_load():
    shape = {"n_layers": 2, "d_model": 16, "n_heads": 2, "feed_forward": MoEConfig(8, 2, 8)}
    decoders = [Decoder(DecoderConfig(64, activation_checkpointing=on, **shape), BiasRouter) for on in (False, True)]
    decoders[1].load_state_dict(decoders[0].state_dict())
    for step in range(3):
        ids = torch.randint(64, (2, 12), generator=torch.Generator().manual_seed(step))
        for decoder in decoders:
            decoder(ids).square().sum().backward()
            step_routers(decoder)
    biases = [[layer.router.bias for layer in moe_layers(decoder).values()] for decoder in decoders]
    assert all(torch.equal(a, b) for a, b in zip(*biases, strict=True))
    assert not torch.equal(*biases[0])
    decoders[0].reset_parameters()
    assert all(not layer.router.bias.any() for layer in moe_layers(decoders[0]).values())


@pytest.mark.parametrize(("n_experts", "k"), SHAPES)
def test_the_global_balance_loss_is_that_of_its_formula(n_experts, k):
    """In float64: f counts the step's tokens so far, the probabilities are those of the micro-batch."""
    router = PenaltyRouter(n_experts, k, balance_weight=0.3, z_weight=0.0, scope="global_batch")
    for step in range(2):
        so_far = torch.zeros(n_experts, dtype=torch.float64)
        for micro in range(3):
            logits = draw(40, n_experts, seed=3 * step + micro).double().requires_grad_()
            indices, _, stats = router(logits)
            for i in indices.flatten().tolist():
                so_far[i] += 1
            p, f = logits.detach().softmax(-1), so_far / (40 * (micro + 1) * k)
            torch.testing.assert_close(stats.balance_loss, 0.3 * n_experts * (f * p.mean(0)).sum())
            stats.balance_loss.backward()
            expected = 0.3 * n_experts / 40 * p * (f - (p * f).sum(-1, keepdim=True))
            torch.testing.assert_close(logits.grad, expected)
        step_routers(router)
    alone = PenaltyRouter(n_experts, k, balance_weight=0.3, scope="micro_batch")(logits)
    torch.testing.assert_close(router.eval()(logits).stats.balance_loss, alone.stats.balance_loss)


@pytest.mark.parametrize("kind", [BiasRouter, global_penalty])
def test_training_without_steps_of_the_router_is_refused(kind):
    layer, x = make_layer(kind), draw(20, 16)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(4):  # micro-batches of one step
        (layer(x).square().mean() + auxiliary_losses(layer)).backward()
    optimizer.step()
    layer.eval()(x)
    with pytest.raises(UserError, match="step_routers"):
        layer.train()(x)
    step_routers(layer)
    layer(x)
    layer.load_state_dict(layer.state_dict())  # other weights: what was counted is void
    layer(x)
    assert layer.router.step_counts.sum() == 40


def test_other_routers_count_nothing():
    layer = make_layer(SinkhornRouter)
    layer(draw(20, 16))
    step_routers(layer), step_routers(nn.Linear(2, 2))
    assert layer.router.step_counts is None
    two = nn.ModuleList([layer, make_layer(), make_layer(seed=1)])
    two[2](draw(20, 16))
    step_routers(two)  # a layer without tokens does not stop the later ones
    assert not two[1].router.bias.any() and two[2].router.bias.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_bias_stays_exact_in_every_precision(dtype):
    layer = make_layer()
    exact = draw(8) / 3
    layer.router.bias.copy_(exact)
    buffer = layer.router.bias
    layer(draw(20, 16))
    step_routers(layer)
    assert layer.router.bias is buffer  # in place
    exact = buffer.clone()
    layer = layer.to(dtype)
    assert layer.router.bias.dtype == torch.float32 and torch.equal(layer.router.bias, exact)
    assert layer.state_dict()["router.bias"].dtype == torch.float32
    with torch.device("meta"):
        assert make_layer().router.bias.is_meta
    fresh = make_layer(seed=1).to(dtype)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh.router.bias, exact)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert BiasRouter(8, 2).bias.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_jitter_reaches_the_router_alone():
    layer, x = make_layer(lambda n, k: PenaltyRouter(n, k, jitter=0.1)), draw(500, 16)
    seen = {}
    layer.gate.register_forward_pre_hook(lambda module, inputs: seen.update(router=inputs[0]))
    layer.experts.register_forward_pre_hook(lambda module, inputs: seen.update(experts=inputs[0]))
    layer(x)
    factors = seen["router"] / x
    assert factors.min() >= 0.9 - 1e-5 and factors.max() <= 1.1 + 1e-5
    assert abs(float(factors.mean()) - 1) < 0.005 and float(factors.std()) == pytest.approx(0.2 / 12**0.5, rel=0.05)
    assert torch.equal(seen["experts"], x)
    layer(x.bfloat16())
    assert seen["router"].dtype == torch.float32
    layer.eval()(x)
    assert torch.equal(seen["router"], x)


def test_jitter_is_the_same_in_a_recomputation():
    layer, x = make_layer(lambda n, k: PenaltyRouter(n, k, jitter=0.2)), draw(50, 16)
    gradients = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        torch.manual_seed(4)
        layer.zero_grad()
        (run(x).square().sum() + auxiliary_losses(layer)).backward()
        gradients.append([parameter.grad for parameter in layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
