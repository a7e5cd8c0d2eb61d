"""Adapters on attention, stacked experts and routers: they alone are trained, resumed exactly, and merged by export."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import nn

from lit_core.files.temporary import scratch
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lm.language_model import evaluating
from lit_moe.doctor.check import Finding
from lit_moe.doctor.resuming import STEPS, STOP, fit, resume_difference
from lit_moe.doctor.specimen import Specimen
from lit_moe.interop.exporting import export_model
from lit_moe.lm import load_module
from lit_moe.nn import AdapterConfig, HFDecoder
from lit_moe.nn.adapters import is_of_adapter
from lit_moe.nn.hf_gates import projection

#: Largest relative difference that float32 rounding explains: merged, a product is summed in another order.
_RTOL = 1e-4


def check(specimen: Specimen) -> Finding:
    """Train a model with adapters, whole and resumed, and compare its logits with those that transformers loads.

    Args:
        specimen: The small model.
    """
    if not RequirementCache("peft>=0.21.2"):
        return Finding("n/a", 'peft is not installed; install it with `pip install "lit-shift[peft]"`.')
    adapter = AdapterConfig(_targets(specimen.decoder()), rank=2)
    with scratch("doctor") as home:
        begun = fit(specimen.module(adapter=adapter), specimen, home / "begun", STOP)
        start = specimen.module(adapter=adapter).state_dict()
        whole = fit(specimen.module(adapter=adapter), specimen, home / "whole", STEPS)
        if said := _untrained(start, load_checkpoint_file(whole)):
            return Finding("fail", said)
        resumed = fit(load_module(begun)[0], specimen, home / "resumed", STEPS, begun)
        if difference := resume_difference(whole, resumed):
            return Finding("fail", f"After the resume, {difference}.")
        return _merged(specimen, whole, home / "exported")


def _targets(decoder: HFDecoder) -> list[str]:
    """Return the names of the linear layers of attention, of stacked experts, and of gates."""
    found = []
    for name, parameter in decoder.model.named_parameters():
        owner, _, leaf = name.rpartition(".")
        linear = isinstance(decoder.model.get_submodule(owner), nn.Linear) and leaf == "weight"
        attention = (
            linear
            and parameter.requires_grad
            and any("attn" in part or "attention" in part for part in owner.split("."))
        )
        if attention or (parameter.dim() == 3 and "experts" in owner):
            found.append(name)
    for name in decoder.watched:
        gate = decoder.model.get_submodule(name)
        inner = projection(gate)
        weight = getattr(gate, "weight", None) if inner is None else inner.weight
        found += [other for other, one in decoder.model.named_parameters() if one is weight]
    return list(dict.fromkeys(found))


def _untrained(start: dict[str, Any], checkpoint: dict[str, Any]) -> str:
    """Return in words which weight was trained, or was not, against its name; empty if all are right."""
    for name, weight in checkpoint["state_dict"].items():
        trained = not torch.equal(weight, start[name])
        if trained and not is_of_adapter(name):
            return f"{name}, which is frozen, has changed."
        if not trained and "lora_B" in name and weight.any():
            return f"The adapter {name} has not changed."
    moments = sum(len(state["state"]) for state in checkpoint["optimizer_states"])
    adapters = sum(map(is_of_adapter, start))
    return "" if moments == adapters else f"The optimizer has states of {moments} weights, but there are {adapters}."


def _merged(specimen: Specimen, ckpt_path: Path, output: Path) -> Finding:
    from transformers import AutoModelForCausalLM

    with contextlib.redirect_stdout(io.StringIO()):
        export_model(str(ckpt_path), str(output))
    theirs, report = AutoModelForCausalLM.from_pretrained(
        output, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
    )
    wrong = [f"{len(names)} {kind.replace('_', ' ')}" for kind, names in report.items() if names]
    if wrong:
        return Finding("fail", f"transformers reports {', '.join(wrong)} when it loads what was merged.")
    module, tokens = load_module(ckpt_path)[0], specimen.tokens(2, 24)
    with evaluating(module), torch.no_grad():
        assert isinstance(module.decoder, HFDecoder)
        expected = module.decoder.call(input_ids=tokens, use_cache=False).logits
        actual = theirs.eval()(input_ids=tokens, use_cache=False).logits
    difference = float((actual - expected).norm() / expected.norm())
    if difference > _RTOL:
        return Finding("fail", f"The logits of the merged model differ by {difference:.1g}.")
    return Finding("pass")
