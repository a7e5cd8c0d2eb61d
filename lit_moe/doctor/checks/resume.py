"""A run that is stopped and resumed ends with the bits of one that was never stopped."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from lit_core.callbacks import RunCheckpoint
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_moe.doctor.check import Finding
from lit_moe.doctor.specimen import Specimen
from lit_moe.doctor.training import SpecimenData, small_trainer
from lit_moe.lm import load_module

_STEPS, _STOP = 2, 1
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
    with tempfile.TemporaryDirectory() as home:
        extras = _extras(specimen)
        whole = _fit(specimen.module(extras), specimen, Path(home, "whole"), _STEPS)
        begun = _fit(specimen.module(extras), specimen, Path(home, "begun"), _STOP)
        module, _ = load_module(begun)
        resumed = _fit(module, specimen, Path(home, "resumed"), _STEPS, begun)
        expected, actual = load_checkpoint_file(whole), load_checkpoint_file(resumed)
        for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "training_meter", "callbacks"):
            if difference := _difference(_comparable(expected[key]), _comparable(actual[key]), key):
                return Finding("fail", f"After the resume, {difference}.")
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


def _fit(module: Any, specimen: Specimen, folder: Path, steps: int, ckpt_path: Path | None = None) -> Path:
    trainer = small_trainer(folder, steps, RunCheckpoint(dirpath=folder))
    trainer.fit(module, datamodule=SpecimenData(specimen), ckpt_path=ckpt_path, weights_only=True)
    return folder / "last.ckpt"


def _comparable(value: Any) -> Any:
    """Return a part of a checkpoint without what names its folder, and without times."""
    if not isinstance(value, dict):
        return value
    return {key: _comparable(one) for key, one in value.items() if not str(key).startswith("RunCheckpoint")}


def _difference(expected: Any, actual: Any, where: str) -> str:
    """Return in words where two nested values differ; empty if they are the same to the bit."""
    if isinstance(expected, torch.Tensor):
        same = isinstance(actual, torch.Tensor) and torch.equal(expected, actual)
        return "" if same else f"{where} differs"
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() != actual.keys():
            return f"{where} has other keys"
        pairs = [(expected[key], actual[key], f"{where}.{key}") for key in expected]
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = [
            (one, other, f"{where}.{index}") for index, (one, other) in enumerate(zip(expected, actual, strict=True))
        ]
    else:
        return "" if expected == actual else f"{where} is {actual}, not {expected}"
    return next((said for pair in pairs if (said := _difference(*pair))), "")
