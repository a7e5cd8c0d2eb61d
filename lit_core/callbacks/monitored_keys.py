"""`MonitoredKeys`, which refuses callbacks that monitor what a run does not log."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from lit_core.errors import UserError
from lit_core.lightning.internals import stops_after_validation, validation_loaders
from lit_core.screen import rank_zero_warn

#: Packages of which each class that logs has a table of its keys.
_DOCUMENTED = ("lit_core", "lit_moe", "lit_valuation", "lit_detect")
#: A row of such a table: the key, and what it is if it is no number.
_ROW = re.compile(r"^ *``([^`\s]+)``( \()?", re.MULTILINE)


class MonitoredKeys(Callback):
    """Refuses, before the first step, a `monitor` that is no key of the run, and an `EarlyStopping` that never looks.

    The keys of a run are those in the tables of the docstrings of its module and callbacks, with the names of its
    validation sources. Where one of these classes is not ours, keys without a table may be logged, and Lightning
    refuses an unknown one when it first looks for it.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what can be known to be missing.

        Raises:
            UserError: If something is.
        """
        keys = _keys(trainer, pl_module)
        for name, key in _monitored(trainer):
            if keys is None or any(re.fullmatch(_pattern(known), key) for known in keys):
                continue
            near = get_close_matches(key, keys, n=3, cutoff=0.4) or keys
            raise UserError(
                f"`monitor` of {name} is {key}, which this run does not log; it logs {', '.join(near)}"
                f"{' and others' if len(near) < len(keys) else ''}."
            )
        for callback in _of_kind(trainer, EarlyStopping):
            if stops_after_validation(callback) and not trainer.enable_validation:
                raise UserError(
                    "EarlyStopping looks at its key after each validation, but this run has none; set its "
                    "check_on_train_epoch_end to true, or validate."
                )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of an `EarlyStopping` that has never looked, as where no validation was due."""
        for callback in _of_kind(trainer, EarlyStopping):
            if torch.isinf(torch.as_tensor(callback.best_score)) and callback.stopping_reason_message is None:
                rank_zero_warn(f"EarlyStopping has never seen a value of {callback.monitor}, so it could not stop.")


def _of_kind(trainer: Trainer, *kind: type[Any]) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def _monitored(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """Yield the name and the key of each callback that monitors one."""
    for callback in _of_kind(trainer, EarlyStopping, ModelCheckpoint):
        if callback.monitor is not None and not (isinstance(callback, EarlyStopping) and not callback.strict):
            yield type(callback).__name__, callback.monitor


def _keys(trainer: Trainer, module: LightningModule) -> list[str] | None:
    """Return the keys that may be logged, with placeholders such as ``{ii}``; None if they are not known."""
    keys = ["epoch", "step"]
    sources = _validation_sources(trainer)
    for part in [module, *_of_kind(trainer, Callback)]:
        package, table = type(part).__module__.partition(".")[0], inspect.getdoc(type(part))
        if isinstance(part, LearningRateMonitor):
            keys.append("lr-{optimizer}")
        if package == "lightning":
            continue
        if package not in _DOCUMENTED or type(part).__doc__ is None:
            return None
        rows = [key for key, picture in _ROW.findall(table or "") if "/" in key and not picture]
        for key in (row.replace("{stage}", "val") for row in rows):
            wheres = ["train", "val/{source}"] if "{where}" in key else [""]
            for whole in (key.replace("{where}", where) for where in wheres):
                names = sources if whole.startswith("val/") else ["{source}"]
                keys += [re.sub(r"\{(source|old|new)\}", name, whole) for name in names]
    return list(dict.fromkeys(keys))


def _validation_sources(trainer: Trainer) -> list[str]:
    """Return the names of the validation loaders; empty if the run does not validate."""
    loaders = validation_loaders(trainer) if trainer.enable_validation else None
    if loaders is None:
        return []
    if isinstance(loaders, Mapping):
        return [str(name) for name in loaders]
    return [str(index) for index in range(len(loaders) if isinstance(loaders, list | tuple) else 1)]


def _pattern(key: str) -> str:
    """Return a pattern of a key: a placeholder is any part of a path, and the last one any end."""
    text = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(key))
    return re.sub(r"/\[\^/\]\+$", "/.+", text)
