"""Gates of other people's mixtures, read by hooks, against what transformers itself says of its routing."""

import copy
import pickle

import pytest
import torch
from hf_models import MIXTURES, make, spread, tokens
from torch import nn

from lit_core.errors import UserError
from lit_moe.nn import auxiliary_losses, moe_layers, watch_gates

transformers = pytest.importorskip("transformers")


def naive(logits, n_experts, top_k, mask):
    """Counts, balance loss and z-loss in float64, token by token, of a layer's logits."""
    counts, probs, square, seen = [0] * n_experts, torch.zeros(n_experts, dtype=torch.float64), 0.0, 0
    for row, real in zip(logits.double(), mask, strict=True):
        if not real:
            continue
        seen += 1
        probs = probs + row.softmax(-1)
        square = square + row.logsumexp(-1) ** 2
        for expert in sorted(range(n_experts), key=lambda e: -row[e].item())[:top_k]:
            counts[expert] += 1
    shares = torch.tensor(counts, dtype=torch.float64) / (top_k * seen)
    return counts, n_experts * (shares * probs / seen).sum(), square / seen


def padded(rows=3, length=7):
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[0, 4:], mask[1, :2] = 0, 0
    return mask


@pytest.mark.parametrize("with_padding", [False, True])
@pytest.mark.parametrize("kind", MIXTURES)
def test_a_gate_is_read_as_transformers_reads_it(kind, with_padding):
    model, ids = make(kind), tokens(3, 7)
    mask = padded() if with_padding else None
    before = model(ids, attention_mask=mask, output_router_logits=True)
    layers = moe_layers(model)
    after = model(ids, attention_mask=mask)
    assert torch.equal(before.logits, after.logits), "a hook changes nothing"
    assert [name.split(".")[-1] for name in layers] == ["gate", "gate"]
    load_balancing_loss = __import__(type(model).__module__, fromlist=["_"]).load_balancing_loss_func
    real = torch.ones(21, dtype=torch.bool) if mask is None else mask.bool().flatten()
    for layer, logits in zip(layers.values(), before.router_logits, strict=True):
        n_experts, top_k = layer.router.n_experts, layer.router.top_k
        assert (n_experts, top_k) == (6, MIXTURES[kind]["num_experts_per_tok"])
        counts, balance, z = naive(logits, n_experts, top_k, real)
        assert layer.stats.counts.tolist() == counts and int(layer.stats.tokens) == int(real.sum())
        assert torch.equal(layer.stats.indices, logits.float().softmax(-1).topk(top_k).indices)
        assert float(layer.stats.raw_balance_loss) == pytest.approx(balance.item(), rel=1e-5)
        assert float(layer.stats.raw_z_loss) == pytest.approx(z.item(), rel=1e-5)
        theirs = load_balancing_loss((logits,), n_experts, top_k, mask)
        assert top_k * float(layer.stats.raw_balance_loss) == pytest.approx(theirs.item(), rel=1e-5)
        alike = load_balancing_loss((logits,) * 5, n_experts, top_k, mask)  # where ours would add up 5 layers' losses
        assert alike.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert auxiliary_losses(model) == 0


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", MIXTURES)
def test_losses_that_are_switched_on_reach_the_gate(kind, recompute):
    model, ids = make(kind).train(), tokens(3, 7)
    if recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    watch_gates(model, balance_weight=0.5, z_weight=0.25)
    logits = model(ids).logits
    auxiliary = auxiliary_losses(model)
    seen = [layer.stats for layer in moe_layers(model).values()]
    (auxiliary + 0 * logits.sum()).backward()
    assert all(layer.stats is stats for layer, stats in zip(moe_layers(model).values(), seen, strict=True))

    plain = make(kind).train()
    router_logits = plain(ids, output_router_logits=True).router_logits
    top_k = MIXTURES[kind]["num_experts_per_tok"]
    parts = [naive(row, 6, top_k, [True] * 21)[1:] for row in router_logits]
    expected = sum(0.5 * balance + 0.25 * z for balance, z in parts)
    expected.backward()
    assert auxiliary.item() == pytest.approx(expected.item(), rel=1e-5)
    gates = [dict(m.named_modules()) for m in (model, plain)]
    for name in moe_layers(model):
        mine, theirs = (modules[name].weight.grad for modules in gates)
        assert mine.abs().max() > 1e-4
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


class OwnMixture(nn.Module):
    """Somebody's mixture whose gate is a plain linear layer."""

    def __init__(self, wrapped):
        super().__init__()
        self.router = nn.Linear(8, 5, bias=False)
        self.wrapped = wrapped

    def forward(self, x):
        logits = self.router(x)
        return logits if self.wrapped is None else x + self.wrapped(x)


def test_a_linear_gate_is_found_by_its_name():
    torch.manual_seed(0)
    model = nn.Sequential(OwnMixture(nn.Linear(8, 8)), OwnMixture(None))
    assert not moe_layers(model)
    watched = watch_gates(model, "router", top_k=2, z_weight=0.5)
    logits = model(torch.randn(2, 3, 8))
    assert list(moe_layers(model)) == list(watched) == ["0.router", "1.router"]
    assert torch.equal(watched["1.router"].stats.indices, logits.reshape(6, 5).topk(2).indices)
    auxiliary_losses(model).backward()
    assert model[0].router.weight.grad.abs().max() > 0
    assert watch_gates(model, "router", top_k=3)["1.router"].router.top_k == 3
    assert watched["1.router"] is moe_layers(model)["1.router"], "it is watched once"


def test_a_gate_that_chooses_otherwise_is_believed():
    """DeepSeek-V3 chooses among the experts of the best group; its gate returns logits, weights and experts."""
    shape = dict(
        vocab_size=64, hidden_size=16, intermediate_size=24, moe_intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, n_routed_experts=8, num_experts_per_tok=2, n_group=2,
        topk_group=1, first_k_dense_replace=1, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4,
        v_head_dim=4,
    )  # fmt: skip
    model = spread(transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**shape))).eval()
    mixture, seen = model.model.layers[1].mlp, {}
    mixture.experts.register_forward_pre_hook(lambda module, args: seen.update(chosen=args[1]))
    mixture.gate.register_forward_hook(lambda module, args, output: seen.update(logits=output[0]))
    (layer,) = watch_gates(model, r"mlp\.gate", top_k=2).values()
    model(tokens(2, 5))
    assert torch.equal(layer.stats.indices, seen["chosen"])
    largest = seen["logits"].topk(2).indices
    assert not torch.equal(layer.stats.indices.sort().values, largest.sort().values)


@pytest.mark.parametrize("kind", ["mixtral"])
def test_a_cache_does_not_shift_the_padding(kind):
    model, ids = make(kind), tokens(2, 6)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, :2] = 0
    layer = next(iter(moe_layers(model).values()))
    past = model(ids[:, :4], attention_mask=mask[:, :4], use_cache=True).past_key_values
    assert int(layer.stats.tokens) == 6
    model(ids[:, 4:], attention_mask=mask, past_key_values=past, use_cache=True)
    assert int(layer.stats.tokens) == 4
    model(ids)
    assert int(layer.stats.tokens) == 12, "the mask of an earlier call is forgotten"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_watches_itself(duplicate):
    model = make("olmoe")
    watch_gates(model, balance_weight=0.5)
    model(tokens(2, 5))
    twin = duplicate(model)
    seen = [layer.stats for layer in moe_layers(model).values()]
    twin(tokens(2, 9))
    assert [layer.stats for layer in moe_layers(model).values()] == seen
    for layer in moe_layers(twin).values():
        assert int(layer.stats.tokens) == 18 and layer.router.balance_weight == 0.5
    assert model.state_dict().keys() == make("olmoe").state_dict().keys()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (dict(gates="gatter", top_k=2), ["`gates` is gatter", "no module's name ends so"]),
        (dict(gates="("), ["`gates` is (", "not a valid regular expression"]),
        (dict(gates="router"), ["`gates` names 0.router", "set `top_k`"]),
        (dict(gates="router", top_k=6), ["top_k is 6", "5 routed experts"]),
        (dict(gates="wrapped", top_k=2), ["names 0.wrapped, a ReLU without a weight"]),
        (dict(gates="router", top_k=2, z_weight=-1.0), ["z_weight is -1.0"]),
    ],
)
def test_what_is_no_gate_is_refused(arguments, parts):
    with pytest.raises(UserError) as error:
        watch_gates(nn.Sequential(OwnMixture(nn.ReLU())), **arguments)
    assert all(part in str(error.value) for part in parts), error.value


def test_an_output_that_is_no_routing_is_refused():
    model = nn.Sequential(OwnMixture(None))
    model[0].router.forward = lambda x: x
    watch_gates(model, "router", top_k=2)
    with pytest.raises(UserError, match=r"The gate 0.router .* returns \(3, 8\), but must return logits of 5 experts"):
        model(torch.randn(3, 8))


def test_gates_that_return_probabilities_are_refused(monkeypatch):
    monkeypatch.setattr("lit_moe.nn.hf_gates._RETURN_LOGITS", False)
    with pytest.raises(UserError, match=r"The gate MixtralTopKRouter needs `transformers>=5.6`"):
        moe_layers(make("mixtral"))
