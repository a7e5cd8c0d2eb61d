"""The record of a training that Python runs without our command line; `CheckpointModule` keeps it in checkpoints."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lit_core import record
from lit_core.lightning.devices import devices_of
from lit_core.lightning.internals import CLASS_PATH, INSTANTIATOR
from lit_core.origin import import_path
from lit_core.seeds import run_seed, seeds_of

_PARTS = {
    "model": LightningModule.CHECKPOINT_HYPER_PARAMS_KEY,
    "data": LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY,
}


class PythonRecord:
    """What a module knows of where its weights come from, and the record of its present training.

    The record has what can be known without a command line: the script, the arguments of module and data module,
    seeds, devices, versions, what the process has read since its last training with the hashes, the parent, and the
    history of resumes.
    """

    _before = 0  # how many files the process had read when its last training began

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}  # path and record of the checkpoint from which Python built the module
        self._resumed: dict[str, Any] = {}  # step and record of the checkpoint that a trainer loaded last
        self._start = record.now()
        self._read: list[Path] = []
        self._made: tuple[int, dict[str, Any]] = (0, {})  # of which trainer

    def note_loaded(self, path: str | Path, checkpoint: Mapping[str, Any]) -> None:
        """Note the checkpoint from which the module was built."""
        self._loaded = {"path": str(path), **_history(checkpoint)}

    def note_resumed(self, checkpoint: Mapping[str, Any]) -> None:
        """Note the checkpoint that is loaded into the module."""
        self._resumed = _history(checkpoint)

    def begin(self) -> None:
        """Note that a training begins."""
        self._start, self._made = record.now(), (0, {})
        read = record.read_so_far()
        self._read, PythonRecord._before = read[PythonRecord._before :], len(read)

    def of(self, trainer: Trainer, module: LightningModule, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record for a checkpoint that is about to be written.

        Args:
            trainer: The trainer.
            module: The module.
            checkpoint: The checkpoint without it.
        """
        if self._made[0] != id(trainer):
            self._made = id(trainer), self._make(trainer, module, checkpoint)
        made = self._made[1]
        last = {**made["sessions"][-1], "step": int(checkpoint["global_step"])}
        return {**made, "sessions": [*made["sessions"][:-1], last]}

    def _make(self, trainer: Trainer, module: LightningModule, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        former = self._resumed if trainer.ckpt_path is not None else {}
        known = former.get(record.KEY) or {}
        branched = next((own for c in trainer.callbacks if (own := getattr(c, "ancestor", None))), None)  # type: ignore[attr-defined]
        parent = branched or known.get("parent") or (self._parent() if not former else None)
        config = config_of(checkpoint, module, getattr(trainer, "datamodule", None))
        seeds = seeds_of({**config, "seed_everything": run_seed()})
        if run_seed() is None:
            del seeds["seed_everything"]
        command = shlex.join(map(record.hide_secrets, sys.argv))
        began = {"command": command, "start": self._start, "end": None, "exit": None}
        sessions = [*known.get("sessions", []), began | {"from_step": former.get("global_step", 0), "step": None}]
        origins = [path for path in (trainer.ckpt_path, self._loaded.get("path")) if path]
        facts: dict[str, Any] = {"config": config, "seeds": seeds, "devices": devices_of(trainer)}
        facts["inputs"] = record.inputs(origins, self._read)
        return dict(record.hidden_values(record.new_record(**facts, parent=parent, sessions=sessions)))

    def _parent(self) -> dict[str, Any] | None:
        if not self._loaded:
            return None
        if Path(self._loaded["path"]).exists():
            return record.ancestor(self._loaded["path"], self._loaded)
        known = self._loaded[record.KEY] or {}
        own = {"path": self._loaded["path"], "sha256": None, "step": self._loaded["global_step"]}
        return own | {"sessions": known.get("sessions", []), "parent": known.get("parent")}


def config_of(checkpoint: Mapping[str, Any], *parts: Any) -> dict[str, Any]:
    """Return what the hyperparameters in a checkpoint tell, in the form of a config.

    Args:
        checkpoint: Content of the checkpoint.
        parts: The module and the data module, where they are at hand, for their classes.
    """
    config = {}
    classes = [import_path(type(part)) for part in parts] or [None, None]
    for (name, key), own in zip(_PARTS.items(), classes, strict=True):
        arguments = dict(checkpoint.get(key) or {})
        class_path = arguments.pop(CLASS_PATH, own)
        arguments.pop(INSTANTIATOR, None)
        if arguments:
            config[name] = {"class_path": class_path, "init_args": arguments}
    return config


def _history(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    return {record.KEY: checkpoint.get(record.KEY), "global_step": int(checkpoint.get("global_step", 0))}
