"""Gates of any mixture of transformers: found, read as they are, and refused where they cannot be read."""

import pytest
import torch
from hf_models import tokens
from torch import nn

from lit_core.errors import UserError
from lit_moe.nn import auxiliary_losses, moe_layers, step_routers, watch_gates

transformers = pytest.importorskip("transformers")

from lit_moe.doctor.families import small_config  # noqa: E402 transformers is optional
from lit_moe.doctor.specimen import Specimen  # noqa: E402


@pytest.fixture(scope="module")
def specimen():
    made = {}
    return lambda kind: made.setdefault(kind, Specimen(small_config(kind), seed=0))


def test_a_gate_named_inside_or_around_is_the_gate_that_is_recorded(specimen):
    """AFMoE's router adds a bias to what its linear layer returns, and LongCat's never calls its linear layer."""
    for kind, patterns in (("afmoe", ["router.gate", "router"]), ("longcat_flash", ["classifier"])):
        found = list(specimen(kind).decoder().watched)
        for pattern in patterns:
            named = specimen(kind).decoder(gates=pattern, balance_weight=0.5)
            assert list(named.watched) == found
            named.hidden(specimen(kind).tokens(2, 9))
            assert float(auxiliary_losses(named).detach()) > 0


def test_scores_are_those_of_the_weights(specimen):
    expected = {"llama4_text": "sigmoid", "gpt_oss": "softmax", "deepseek_v4": "sqrtsoftplus", "gemma4_text": "softmax"}
    for kind, score in expected.items():
        decoder = specimen(kind).decoder()
        with torch.no_grad():
            decoder.hidden(specimen(kind).tokens(2, 9))
        assert {gate.score for gate in decoder.watched.values()} == {score}, kind


@pytest.mark.parametrize("kind", ["afmoe", "gpt_oss"])
def test_gates_whose_weights_are_still_0_tell_their_scores(specimen, kind):
    decoder = specimen(kind).decoder(balance_weight=0.5).train()
    for name in decoder.watched:
        for parameter in decoder.model.get_submodule(name).parameters():
            nn.init.zeros_(parameter)
    decoder.hidden(specimen(kind).tokens(2, 9))
    assert {gate.score for gate in decoder.watched.values()} == {"sigmoid" if kind == "afmoe" else "softmax"}
    assert float(auxiliary_losses(decoder).detach()) == pytest.approx(0.5 * len(decoder.watched), rel=1e-4)


class Block(nn.Module):
    """A mixture whose gate and experts disagree in a way that a subclass chooses."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = Gate(), Experts()

    def forward(self, x):
        _, weights, indices = self.gate(x)
        return self.experts(x, indices, self.weigh(weights))

    def weigh(self, weights):
        return weights


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.top_k = nn.Parameter(torch.randn(6, 8)), 2

    def forward(self, x):
        logits = x @ self.weight.T
        weights, indices = logits.softmax(-1).topk(2)
        return logits, weights, indices


class Experts(nn.Module):
    def forward(self, x, indices, weights):
        return x


class Rolled(Block):
    """Its experts get the tokens of their neighbours."""

    def forward(self, x):
        _, weights, indices = self.gate(x)
        return self.experts(x, indices.roll(1, 0), weights.roll(1, 0))


class Squared(Block):
    def weigh(self, weights):
        return weights.square()


class Idle(Block):
    def forward(self, x):
        return self.gate(x)[0]


@pytest.mark.parametrize(
    ("kind", "said"),
    [(Rolled, "how it scores experts does not show"), (Squared, "how it scores"), (Idle, "it has not run")],
)
def test_a_gate_that_contradicts_its_experts_is_refused_where_it_has_losses(kind, said):
    torch.manual_seed(0)
    x, model = torch.randn(16, 8), kind()
    watch_gates(model, "gate", balance_weight=0.1)
    with pytest.raises(UserError, match=f"The gate gate cannot be balanced or measured, since {said}"):
        model(x)
        auxiliary_losses(model)
    agreeing = Block()
    (gate,) = watch_gates(agreeing, "gate", balance_weight=0.1).values()
    agreeing(x)
    assert gate.score == "softmax" and float(auxiliary_losses(agreeing).detach()) > 0


def test_a_gate_of_a_model_that_never_runs_is_refused(specimen):
    decoder = specimen("mixtral").decoder(balance_weight=0.1)
    layer = decoder.model.model.layers[1]
    layer.mlp.forward = lambda states: states
    with pytest.raises(UserError, match=r"layers.1.mlp.gate cannot be .* since it never ran"):
        decoder.hidden(specimen("mixtral").tokens(2, 9))


def test_a_model_without_losses_goes_on_unmeasured(specimen, recwarn):
    decoder = specimen("mixtral").decoder()
    decoder.model.model.layers[1].mlp.forward = lambda states: states
    decoder.hidden(specimen("mixtral").tokens(2, 9))
    assert [gate.unread is None for gate in decoder.watched.values()][:2] == [True, False]
    assert [str(w.message) for w in recwarn if "Its routing is not measured: the gate" in str(w.message)]
    doge = specimen("doge").decoder()
    assert not moe_layers(doge) and doge.hidden(specimen("doge").tokens(2, 9)).shape == (2, 9, 64)
    with pytest.raises(UserError, match="no gate was found in DogeForCausalLM"):
        specimen("doge").decoder(z_weight=0.1)


def test_a_step_that_does_not_end_is_told(specimen):
    decoder = specimen("mixtral").decoder(global_weight=0.1).train()
    optimizer = torch.optim.SGD(decoder.parameters(), lr=0.1)
    ids = specimen("mixtral").tokens(2, 9)
    decoder.hidden(ids).sum().backward()
    optimizer.step()
    with pytest.raises(UserError, match="without a call of step_routers"):
        decoder.hidden(ids)
    step_routers(decoder)
    decoder.hidden(ids)
    (load, *_) = [gate.router.step_counts for gate in decoder.watched.values()]
    assert int(load.sum()) == 2 * 9 * 2
    decoder.eval().hidden(ids)
    assert torch.equal(load, next(iter(decoder.watched.values())).router.step_counts), "evaluation counts nothing"


def test_a_model_of_a_lightning_module_is_searched_once():
    from hf_models import make

    around = nn.ModuleDict({"inner": make("olmoe")})
    first = moe_layers(around)
    assert list(first) == [f"inner.model.layers.{layer}.mlp.gate" for layer in (0, 1)]
    around["inner"](tokens(2, 5))
    assert all(layer.stats is not None for layer in first.values())
    assert [layer is again for layer, again in zip(first.values(), moe_layers(around).values(), strict=True)] == [
        True
    ] * 2


def test_padding_is_known_to_a_text_model_inside_another_one(specimen):
    """Gemma 4's text model gets masks of four dimensions from the model around it."""
    decoder, ids = (
        specimen("gemma4").decoder(activation_checkpointing=True, sequence_weight=0.1),
        torch.ones(3, 6).long(),
    )
    mask = torch.arange(6) < torch.tensor([[6], [4], [1]])
    decoder.train().hidden(4 + ids.cumsum(1), mask=mask)
    assert {int(gate.stats.tokens) for gate in decoder.watched.values()} == {11}
    auxiliary_losses(decoder).backward()
