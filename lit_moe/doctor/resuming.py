"""Trainings that are stopped and resumed, and what differs between their checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lit_core.callbacks import RunCheckpoint
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_moe.doctor.specimen import Specimen
from lit_moe.doctor.training import SpecimenData, small_trainer

#: Optimizer steps of a training, and after how many it is stopped.
STEPS, STOP = 2, 1
_COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "training_meter", "callbacks")


def fit(module: Any, specimen: Specimen, folder: Path, steps: int, ckpt_path: Path | None = None) -> Path:
    """Train a module, and return its checkpoint.

    Args:
        module: The LightningModule.
        specimen: The small model.
        folder: Folder of the checkpoint.
        steps: Optimizer steps, with those before the resume.
        ckpt_path: Checkpoint to resume; None begins anew.
    """
    trainer = small_trainer(folder, steps, RunCheckpoint(dirpath=folder))
    trainer.fit(module, datamodule=SpecimenData(specimen), ckpt_path=ckpt_path, weights_only=True)
    return folder / "last.ckpt"


def resume_difference(whole: Path, resumed: Path) -> str:
    """Return in words how the checkpoint of a resumed run differs from that of one that was never stopped.

    Args:
        whole: The latter.
        resumed: The former.

    Returns:
        Weights, moments or counters that differ; empty if all are the same to the bit.
    """
    expected, actual = load_checkpoint_file(whole), load_checkpoint_file(resumed)
    found = (_difference(_comparable(expected[key]), _comparable(actual[key]), key) for key in _COMPARED)
    return next((said for said in found if said), "")


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
