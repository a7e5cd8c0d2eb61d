"""Selection biases of pretrained gates: moved by the rule, exact, saved, or left as they are."""

import pytest
import torch

from lit_core.errors import UserError
from lit_moe.functional.routing import shift_bias
from lit_moe.nn import HFConfig, step_routers

pytest.importorskip("transformers")

from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen

MOVED = {"selection_bias": "loss_free", "bias_rate": 0.02}


@pytest.fixture(scope="module")
def specimen():
    made = {}
    return lambda kind: made.setdefault(kind, Specimen(small_config(kind), seed=0))


def test_a_bias_follows_the_rule_and_keeps_its_mean():
    """Against plain Python, expert by expert."""
    bias, counts = [7.0, 7.5, 6.0, 8.5], [4, 1, 3, 0]
    moves = [0.1 * ((2 > n) - (2 < n)) for n in counts]
    expected = [b + move - sum(moves) / 4 for b, move in zip(bias, moves, strict=True)]
    moved = shift_bias(torch.tensor(bias), torch.tensor(counts), 0.1)
    assert moved.tolist() == pytest.approx(expected, abs=1e-6) and float(moved.mean()) == pytest.approx(7.25)


def biases(decoder):
    return {name: gate.router.bias.tensor.flatten().clone() for name, gate in decoder.watched.items()}


@pytest.mark.parametrize("kind", ["deepseek_v3", "afmoe"])  # a buffer of the gate, and a parameter of the block around
def test_a_bias_balances_a_skewed_load_and_is_all_that_moves(specimen, kind):
    decoder = specimen(kind).decoder(**MOVED).train()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    ids = specimen(kind).tokens(4, 16)
    loads = []
    for _ in range(12):
        with torch.no_grad():
            decoder.hidden(ids)
        loads.append([int(gate.stats.counts.max()) for gate in decoder.watched.values()])
        step_routers(decoder)
    assert sum(loads[-1]) < 0.85 * sum(loads[0])
    moved = {name for name, value in decoder.state_dict().items() if not torch.equal(value, before[name])}
    assert len(moved) == len(decoder.watched) and all(name.endswith("bias") for name in moved)


def test_padding_and_evaluation_move_nothing(specimen):
    decoder = specimen("deepseek_v3").decoder(**MOVED)
    start, ids = biases(decoder), specimen("deepseek_v3").tokens(4, 8)
    decoder.eval().hidden(ids)
    step_routers(decoder)
    assert all(torch.equal(bias, start[name]) for name, bias in biases(decoder).items())
    mask = torch.ones(4, 8, dtype=torch.bool)
    mask[:, 5:] = False
    decoder.train().hidden(ids, mask=mask)
    assert {int(gate.router.step_counts.sum()) for gate in decoder.watched.values()} == {4 * 5 * 2}


def test_a_bias_stays_exact_in_16_bits(specimen):
    for kind in ("deepseek_v3", "afmoe"):
        decoder = specimen(kind).decoder(**MOVED)
        start = biases(decoder)
        half = decoder.to(torch.bfloat16).train()
        assert all(torch.equal(bias, start[name]) for name, bias in biases(half).items())
        with torch.no_grad():
            half.hidden(specimen(kind).tokens(2, 9))
        step_routers(half)
        assert all(bias.dtype == torch.float32 and not torch.equal(bias, start[n]) for n, bias in biases(half).items())


def test_what_is_frozen_is_said(specimen, monkeypatch):
    said = []
    monkeypatch.setattr("lit_moe.nn.gates.rank_zero_info", said.append)
    specimen("mixtral").decoder().say_frozen()
    frozen = specimen("gpt_oss").module(freeze=["router"]).decoder  # whose bias is trained as its weights are
    frozen.say_frozen()
    specimen("deepseek_v3").decoder(**MOVED).say_frozen()
    assert said == []
    specimen("deepseek_v3").decoder().say_frozen()
    (line,) = said
    assert "gates of DeepseekV3ForCausalLM stays as it is" in line and "`selection_bias: loss_free`" in line


@pytest.mark.parametrize(
    ("kind", "has"), [("mixtral", "no selection bias"), ("zaya", "an entry for what is no expert")]
)
def test_gates_without_a_bias_to_move_are_refused(specimen, kind, has):
    with pytest.raises(UserError, match=f"`selection_bias` is loss_free, but the gate .* has .*{has}"):
        specimen(kind).decoder(**MOVED)


def test_a_bias_that_the_choice_does_not_follow_is_refused(specimen):
    decoder = specimen("deepseek_v3").decoder(**MOVED)
    gate = decoder.model.get_submodule(next(iter(decoder.watched)))
    forward, bias = gate.forward, gate.e_score_correction_bias.clone()

    def ignoring(states):
        gate.e_score_correction_bias.copy_(bias)
        return forward(states)

    gate.forward = ignoring
    with pytest.raises(UserError, match=r"the choice of experts does not follow .*e_score_correction_bias"):
        decoder.hidden(specimen("deepseek_v3").tokens(2, 9))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (dict(selection_bias="moved"), "must be frozen or loss_free"),
        (dict(selection_bias="loss_free", bias_rate=0.0), "bias_rate is 0.0"),
        (dict(bias_rate=0.01), "`bias_rate` is 0.01, but a frozen bias does not move"),
    ],
)
def test_fields_out_of_range_are_refused(fields, said):
    with pytest.raises(UserError, match=said):
        HFConfig(config={"model_type": "mixtral"}, **fields)
