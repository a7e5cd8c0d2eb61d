"""The checks that train small models, with adapters and on two processes, see what they are for."""

import pytest
from lightning.pytorch.strategies import Strategy

from lit_moe.doctor import losses
from lit_moe.doctor.check import Finding, checks
from lit_moe.doctor.checks import adapters
from lit_moe.doctor.examine import found
from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn.adapters import add_adapters, is_of_adapter, merge_adapters

pytest.importorskip("transformers")
pytest.importorskip("peft")


@pytest.fixture(scope="module")
def specimen():
    return Specimen(small_config("mixtral"), seed=0)


def trains_all(monkeypatch):
    """Leave all weights to be trained beside the adapters."""

    def add(network, config):
        add_adapters(network, config)
        network.requires_grad_(True)

    monkeypatch.setattr("lit_moe.module.add_adapters", add)


def drops(monkeypatch):
    """Remove adapters as if they had learnt nothing."""

    def without(network):
        for name, weight in network.named_parameters():
            if is_of_adapter(name):
                weight.data.zero_()
        merge_adapters(network)

    monkeypatch.setattr("lit_moe.module.merge_adapters", without)


def forgets(monkeypatch):
    """Begin the moments of a resumed run anew."""
    monkeypatch.setattr(Strategy, "load_optimizer_state_dict", lambda self, checkpoint: None)


@pytest.mark.slow  # a model is trained three times
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda monkeypatch: None, ""),
        (trains_all, "which is frozen, has changed"),
        (drops, "The logits of the merged model differ by"),
        (forgets, "After the resume, "),
    ],
)
def test_faults_of_adapters_are_seen(specimen, monkeypatch, fault, said):
    fault(monkeypatch)
    finding = found(checks()["adapters"], specimen)
    assert finding.verdict == ("fail" if said else "pass") and said in finding.reason, finding


def test_adapters_are_not_examined_without_peft(specimen, monkeypatch):
    monkeypatch.setattr(adapters, "RequirementCache", lambda requirement: False)
    said = 'peft is not installed; install it with `pip install "lit-shift[peft]"`.'
    assert found(checks()["adapters"], specimen) == Finding("n/a", said)


@pytest.mark.parametrize("kind", ["mixtral", "deepseek_v3", "gpt_oss"])
def test_adapters_are_on_attention_experts_and_routers(kind):
    specimen = Specimen(small_config(kind))
    names = adapters._targets(specimen.decoder())
    for part in ("self_attn.q", "self_attn.o_proj.weight", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"):
        assert any(part in name for name in names), part
    assert any(name.endswith(("mlp.gate.weight", "mlp.router.weight")) for name in names)
    assert len(set(names)) == len(names) and not any("norm" in name or "embed" in name for name in names)


@pytest.mark.slow  # two processes train
@pytest.mark.parametrize("factor", losses.FACTORS)
def test_each_balance_loss_of_two_processes_is_compared(specimen, monkeypatch, factor):
    monkeypatch.setattr(losses, "FACTORS", losses.FACTORS | {factor: 0.0})  # of the reference
    finding = found(checks()["data_parallel"], specimen)
    assert finding.verdict == "fail" and "After step 1, " in finding.reason, finding


@pytest.mark.slow  # as the former
def test_counts_of_one_device_alone_are_seen(specimen, monkeypatch):
    monkeypatch.setattr("lit_moe.nn.penalty_router.sum_over_devices", lambda counts: counts)
    finding = found(checks()["data_parallel"], specimen)
    assert finding.verdict == "fail" and "After step 1, " in finding.reason, finding
