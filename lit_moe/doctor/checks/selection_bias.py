"""A pretrained selection bias goes on balancing: it moves by the load of the whole step, exact in every precision."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_moe.doctor.check import Finding
from lit_moe.doctor.routing import routed
from lit_moe.doctor.specimen import Specimen
from lit_moe.nn import step_routers
from lit_moe.nn.hf_gates import selection_biases

_RATE, _ROWS, _LENGTH, _MICRO_BATCHES = 0.01, 2, 9, 2


def check(specimen: Specimen) -> Finding:
    """Compare the biases after a step of two micro-batches with the rule, with and without recomputation.

    Args:
        specimen: The model.
    """
    plain = specimen.decoder().train()
    blocks = {name: plain.model.get_submodule(name.rpartition(".")[0]) for name in plain.watched}
    if not any(selection_biases(plain.model.get_submodule(name), block) for name, block in blocks.items()):
        return Finding("n/a", "No gate has a selection bias.")
    fields = {"selection_bias": "loss_free", "bias_rate": _RATE}
    try:
        decoders = [specimen.decoder(**fields)]
    except UserError as error:
        return Finding("refused", str(error))
    try:
        decoders.append(specimen.decoder(activation_checkpointing=True, **fields))
    except UserError:  # transformers has no recomputation for the model
        pass
    before = {name: _bias(decoders[0].watched[name]) for name in plain.watched}
    loads: dict[str, Tensor] = {}
    gates = {name: gate.router.n_experts for name, gate in plain.watched.items()}
    for draw in range(_MICRO_BATCHES):
        torch.manual_seed(draw)
        with routed(plain.model, gates) as seen, torch.no_grad():
            plain.hidden(specimen.tokens(_ROWS, _LENGTH, draw))
        for name, indices in seen.indices.items():
            count = torch.bincount(indices.flatten(), minlength=len(before[name]))
            loads[name] = loads.get(name, 0) + count
    for decoder in decoders:
        for draw in range(_MICRO_BATCHES):
            torch.manual_seed(draw)
            decoder.train().hidden(specimen.tokens(_ROWS, _LENGTH, draw)).sum().backward()
        step_routers(decoder)
        for name, load in loads.items():
            moves = [_RATE * ((load.sum() > n * len(load)).item() - (load.sum() < n * len(load)).item()) for n in load]
            expected = before[name] + torch.tensor(moves) - sum(moves) / len(moves)
            moved = _bias(decoder.watched[name])
            if not torch.allclose(moved, expected, atol=1e-6):
                return Finding("fail", f"The selection bias of {name} does not follow the load of the step.")
    saved = decoders[0].state_dict()
    half = decoders[0].to(torch.bfloat16)
    again = specimen.decoder()
    again.load_state_dict(saved)
    for name in loads:
        gate = again.model.get_submodule(name)
        owner, attribute = selection_biases(gate, again.model.get_submodule(name.rpartition(".")[0]))[0]
        reloaded = getattr(owner, attribute).flatten()
        if not torch.equal(_bias(half.watched[name]), reloaded) or torch.equal(reloaded, before[name]):
            return Finding("fail", f"The selection bias of {name} is rounded, or not saved.")
    return Finding("pass")


def _bias(gate: object) -> Tensor:
    bias: Tensor = gate.router.bias.tensor  # type: ignore[attr-defined]
    return bias.flatten().clone()
