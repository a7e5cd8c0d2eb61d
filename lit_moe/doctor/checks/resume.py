"""A run that is stopped and resumed ends with the bits of one that was never stopped."""

from __future__ import annotations

from typing import Any

import torch

from lit_core.errors import UserError
from lit_core.files.temporary import scratch
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_moe.doctor.check import Finding
from lit_moe.doctor.resuming import STEPS, STOP, fit, resume_difference
from lit_moe.doctor.specimen import Specimen
from lit_moe.lm import load_module

#: What a run may keep from step to step, from all of it to nothing: a model takes the first that it has gates for.
_EXTRAS: tuple[dict[str, Any], ...] = (
    {"global_weight": 0.1, "selection_bias": "loss_free"},
    {"global_weight": 0.1},
    {},
)


def check(specimen: Specimen) -> Finding:
    """Compare weights, moments and counters after a resume from a checkpoint, by which alone the model is built again.

    Args:
        specimen: The small model.
    """
    with scratch("doctor") as home:
        extras = _extras(specimen)
        whole = fit(specimen.module(extras), specimen, home / "whole", STEPS)
        begun = fit(specimen.module(extras), specimen, home / "begun", STOP)
        resumed = fit(load_module(begun)[0], specimen, home / "resumed", STEPS, begun)
        if difference := resume_difference(whole, resumed):
            return Finding("fail", f"After the resume, {difference}.")
        expected = load_checkpoint_file(whole)
        first = load_checkpoint_file(begun)["state_dict"]
        if all(torch.equal(first[name], value) for name, value in expected["state_dict"].items()):
            return Finding("fail", "Training changes no weight.")
    return Finding("pass")


def _extras(specimen: Specimen) -> dict[str, Any]:
    for extras in _EXTRAS[:-1]:
        try:
            specimen.decoder(**extras)
        except UserError:  # it has no such part
            continue
        return extras
    return _EXTRAS[-1]
