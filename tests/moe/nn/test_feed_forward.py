import copy
import pickle

import pytest
import torch
from all_routers import ROUTERS
from torch.utils.checkpoint import checkpoint

from lit_core.errors import UserError
from lit_moe.nn import (
    FeedForward,
    MoEConfig,
    MoEFeedForward,
    PenaltyRouter,
    SinkhornRouter,
    TopKRouter,
    UniformRouter,
    auxiliary_losses,
    moe_layers,
    preset,
)


def make(config, router=PenaltyRouter, seed=0, dtype=torch.float32, activation="silu"):
    generator = torch.Generator().manual_seed(seed)
    layer = MoEFeedForward(16, config, router, activation)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    x = torch.randn(2, 20, 16, generator=generator).to(dtype).requires_grad_()
    return layer.to(dtype), x


@pytest.mark.parametrize("backend", ["loop", "grouped_mm"])
@pytest.mark.parametrize("kind", ROUTERS)
@pytest.mark.parametrize(
    "config",
    [
        dict(n_experts=8, top_k=1, expert_width=24),
        dict(n_experts=31, top_k=3, expert_width=8, n_shared=1),
        dict(n_experts=6, top_k=2, expert_width=8, n_shared=2, shared_gate=True, normalize_top_k=True),
    ],
)
def test_equals_a_loop_over_tokens(config, kind, backend):
    layer, x = make(MoEConfig(**config, backend=backend), kind)
    torch.manual_seed(0)
    out = layer(x)
    assert layer.router.normalize_top_k == config.get("normalize_top_k", False)
    torch.manual_seed(0)  # for a router that draws
    indices, weights, _ = layer.router(layer.gate(layer.router.perturb(x.reshape(-1, 16))))
    total = []
    for t, token in enumerate(x.reshape(-1, 16)):
        y = torch.zeros(16)
        for e, w in zip(indices[t].tolist(), weights[t], strict=True):
            gate, up = (layer.experts.gate_up[e] @ token).chunk(2)
            y = y + w * (layer.experts.down[e] @ (torch.nn.functional.silu(gate) * up))
        if layer.shared is not None:
            shared = layer.shared.down.weight @ (
                torch.nn.functional.silu(layer.shared.gate.weight @ token) * (layer.shared.up.weight @ token)
            )
            y = y + (shared if layer.shared_gate is None else torch.sigmoid(layer.shared_gate(token)) * shared)
        total.append(y)
    expected = torch.stack(total).view_as(x)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    leaves = [x, *layer.parameters()]
    ours = torch.autograd.grad(out.pow(2).sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad(expected.pow(2).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_equals_mixtral_block():
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    theirs = MixtralSparseMoeBlock(
        MixtralConfig(hidden_size=16, intermediate_size=24, num_local_experts=6, num_experts_per_tok=2)
    )
    layer, x = make(MoEConfig(n_experts=6, top_k=2, expert_width=24, normalize_top_k=True), TopKRouter)
    with torch.no_grad():
        theirs.gate.weight.copy_(layer.gate.weight)
        theirs.experts.gate_up_proj.copy_(layer.experts.gate_up)
        theirs.experts.down_proj.copy_(layer.experts.down)
    expected = theirs(x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_equals_qwen2_block_with_gated_shared_expert():
    from transformers import Qwen2MoeConfig
    from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock

    theirs = Qwen2MoeSparseMoeBlock(
        Qwen2MoeConfig(
            hidden_size=16,
            moe_intermediate_size=8,
            shared_expert_intermediate_size=16,
            num_experts=6,
            num_experts_per_tok=2,
            norm_topk_prob=False,
        )
    )
    layer, x = make(MoEConfig(n_experts=6, top_k=2, expert_width=8, n_shared=2, shared_gate=True), TopKRouter)
    with torch.no_grad():
        theirs.gate.weight.copy_(layer.gate.weight)
        theirs.experts.gate_up_proj.copy_(layer.experts.gate_up)
        theirs.experts.down_proj.copy_(layer.experts.down)
        theirs.shared_expert.gate_proj.weight.copy_(layer.shared.gate.weight)
        theirs.shared_expert.up_proj.weight.copy_(layer.shared.up.weight)
        theirs.shared_expert.down_proj.weight.copy_(layer.shared.down.weight)
        theirs.shared_expert_gate.weight.copy_(layer.shared_gate.weight)
    expected = theirs(x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["switch", "granular"])
@pytest.mark.parametrize("kind", ROUTERS)
def test_auxiliary_and_language_loss_reach_every_parameter(kind, name):
    layer, x = make(preset(name, 32), kind)
    (layer(x).pow(2).sum() + auxiliary_losses(layer)).backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert layer.gate.weight.grad.abs().max() > 0


def test_balance_loss_trains_the_router_without_a_language_loss():
    layer, x = make(preset("granular", 32), lambda n, k: PenaltyRouter(n, k, z_weight=0.0))
    layer(x)
    auxiliary_losses(layer).backward()
    x_TD, logits = x.detach().reshape(-1, 16), layer.gate(x.detach().reshape(-1, 16)).detach()
    p = logits.softmax(-1)
    f = layer.stats.counts / (40 * 3)
    by_logits = 0.01 * 31 / 40 * p * (f - (p * f).sum(-1, keepdim=True))
    torch.testing.assert_close(layer.gate.weight.grad, by_logits.t() @ x_TD, rtol=1e-4, atol=1e-7)
    assert layer.experts.down.grad is None


def test_sum_of_auxiliary_losses_over_layers():
    layers = torch.nn.ModuleList(make(preset("granular", 32), seed=seed)[0] for seed in range(3))
    assert auxiliary_losses(layers) == 0 and auxiliary_losses(torch.nn.Linear(2, 2)) == 0
    for layer in layers:
        layer(torch.randn(3, 16))
    expected = sum(layer.stats.balance_loss + layer.stats.z_loss for layer in layers)
    torch.testing.assert_close(auxiliary_losses(layers), expected)
    assert list(moe_layers(layers)) == ["0", "1", "2"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputation_leaves_statistics_alone(reentrant):
    layer, x = make(preset("granular", 32), SinkhornRouter)
    out = checkpoint(layer, x, use_reentrant=reentrant)
    before = layer.stats
    out.sum().backward()
    assert layer.stats is before and before.counts.sum() == 2 * 20 * 3


def test_masked_tokens_enter_nothing():
    layer, x = make(preset("granular", 32))
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(0)) > 0.4
    out = layer(x, mask)
    masked = layer.stats
    alone = layer(x[mask])
    torch.testing.assert_close(out[mask], alone)
    assert torch.equal(masked.counts, layer.stats.counts) and masked.tokens == mask.sum()
    torch.testing.assert_close(masked.balance_loss, layer.stats.balance_loss)
    torch.testing.assert_close(masked.z_loss, layer.stats.z_loss)


def test_router_stays_in_float32_under_autocast():
    layer, x = make(preset("granular", 32))
    layer(x)
    exact = layer.stats
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    assert torch.equal(layer.stats.counts, exact.counts)
    assert torch.equal(layer.stats.probs_mean, exact.probs_mean)
    assert layer.gate(x.bfloat16()).dtype == torch.float32


def test_bfloat16_model_is_near_the_float32_one():
    layer, x = make(preset("granular", 32), dtype=torch.bfloat16)
    out = layer(x)
    assert out.dtype == torch.bfloat16 and layer.stats.raw_balance_loss.dtype == torch.float32
    expected = layer.float()(x.float())
    torch.testing.assert_close(out.float() / expected.abs().max(), expected / expected.abs().max(), rtol=0, atol=0.03)


def test_can_be_copied_and_pickled_after_a_step():
    layer, x = make(preset("granular", 32))
    layer(x).sum().backward()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.stats is None and torch.equal(twin(x), layer(x))


def test_keeps_only_weights_in_the_checkpoint():
    layer, x = make(preset("granular", 32))
    names = set(layer.state_dict())
    layer(x)
    assert set(layer.state_dict()) == names == {name for name, _ in layer.named_parameters()}
    assert not list(layer.buffers())


@pytest.mark.parametrize("name", ["switch", "granular"])
def test_presets_cost_what_the_dense_layer_costs(name):
    from torch.utils.flop_counter import FlopCounterMode

    d_ff, tokens = 32, 40
    layer, x = make(preset(name, d_ff), UniformRouter)
    dense = FeedForward(16, d_ff)
    flops = []
    for module in (layer, dense):
        with FlopCounterMode(display=False) as counter:
            module(x.detach())
        flops.append(counter.get_total_flops())
    router = 2 * tokens * 16 * preset(name, d_ff).n_experts
    assert flops[0] - router == flops[1] == 2 * 3 * 16 * d_ff * tokens
    assert preset("dense", 32) is None


def test_presets_have_the_published_shapes():
    assert preset("switch", 2816) == MoEConfig(n_experts=8, top_k=1, expert_width=2816)
    assert preset("granular", 2816) == MoEConfig(n_experts=31, top_k=3, expert_width=704, n_shared=1)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (dict(n_experts=8, top_k=9), "top_k is 9"),
        (dict(n_experts=8, top_k=1, normalize_top_k=True), "normalize_top_k"),
        (dict(n_experts=8, top_k=1, expert_width=0), "expert_width is 0"),
        (dict(n_experts=8, top_k=1, n_shared=-1), "n_shared is -1"),
        (dict(n_experts=8, top_k=1, shared_gate=True), "shared_gate"),
    ],
)
def test_refuses_impossible_shapes(values, named):
    with pytest.raises(UserError, match=named):
        MoEConfig(**{"expert_width": 8, **values})
