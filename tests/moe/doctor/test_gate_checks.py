"""The checks of gates, losses and selection biases see what they are for."""

import pytest
import torch

pytest.importorskip("transformers")

from lit_moe.doctor.check import Finding, checks
from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn import gate_router, hf_bias, watched_gate


@pytest.fixture(scope="module")
def specimen():
    made = {}
    return lambda kind: made.setdefault(kind, Specimen(small_config(kind), seed=0))


def largest(monkeypatch):
    """Count the experts with the largest logits, without the selection bias."""
    read = gate_router.GateRouter.read
    monkeypatch.setattr(
        gate_router.GateRouter,
        "read",
        lambda self, logits, indices, *rest: read(self, logits, logits.topk(self.top_k).indices, *rest),
    )


def softmax(monkeypatch):
    """Take the probabilities of a softmax, whatever the gate computes."""
    monkeypatch.setattr(gate_router, "probabilities", lambda score, logits: logits.softmax(-1))


def twice(monkeypatch):
    """Count the tokens of a recomputation again."""
    monkeypatch.setattr("lit_moe.nn.router.recomputing", lambda: False)
    monkeypatch.setattr(watched_gate, "recomputing", lambda: False)


def other_way(monkeypatch):
    """Move a bias away from an even load."""
    shift = hf_bias.shift_bias
    monkeypatch.setattr(hf_bias, "shift_bias", lambda bias, counts, rate: shift(bias, counts, -rate))


def rounded(monkeypatch):
    """Let a bias be converted with the weights."""
    monkeypatch.setattr("lit_moe.nn.hf_decoder.exact_biases", lambda biases: torch.no_grad())


@pytest.mark.parametrize(
    ("name", "kind", "fault", "said"),
    [
        ("gates", "deepseek_v3", largest, "are off by"),
        ("auxiliary_losses", "deepseek_v3", softmax, "The losses are"),
        ("auxiliary_losses", "mixtral", twice, "with recomputation"),
        ("selection_bias", "deepseek_v3", other_way, "does not follow the load"),
        ("selection_bias", "laguna", rounded, "is rounded"),
    ],
)
def test_a_fault_is_seen(specimen, monkeypatch, name, kind, fault, said):
    fault(monkeypatch)
    finding = checks()[name](specimen(kind))
    assert finding.verdict == "fail" and said in finding.reason, finding


# slow: the walk over all families of test_doctor.py shows it too
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gates", "auxiliary_losses", "selection_bias"])
def test_what_is_right_passes(specimen, name):
    assert checks()[name](specimen("deepseek_v3")) == Finding("pass")


def test_what_has_no_gates_or_no_bias_is_not_called_wrong(specimen):
    verdicts = {name: checks()[name](specimen("doge")).verdict for name in ("gates", "auxiliary_losses")}
    assert verdicts == {"gates": "refused", "auxiliary_losses": "refused"}
    assert checks()["selection_bias"](specimen("mixtral")).verdict == "n/a"
    assert checks()["selection_bias"](specimen("zaya")).verdict == "refused"
