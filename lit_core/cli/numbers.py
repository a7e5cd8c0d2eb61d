"""Numbers of a config that their own classes would take without a word: nan, infinity, and a range that is left."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from jsonargparse import Namespace

from lit_core.errors import UserError

#: Packages whose classes are checked; what others make of a number is their own.
_KNOWN = ("torch.", "lightning.", "lit_core.", "lit_moe.", "lit_valuation.", "lit_detect.")
#: Packages whose classes take numbers of 0 or more, but for those of `NEGATIVE` and `POSITIVE`.
_COUNTS_AND_RATES = ("torch.optim.", "lightning.pytorch.callbacks.")
#: Their arguments that may be below 0, and how far; the classes check these themselves where there is more to say.
NEGATIVE = {
    **{"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.num_sanity_val_steps": -1, "trainer.devices": -1},
    **{"save_top_k": -1, "max_depth": -1, "last_epoch": -1, "base_momentum": -math.inf, "pruning_dim": -math.inf},
    **{"beta2_decay": -math.inf, "ns_coefficients": -math.inf, "pruning_norm": -math.inf, "rtol": -math.inf},
    **{"stopping_threshold": -math.inf, "divergence_threshold": -math.inf, "min_delta": -math.inf},
}
#: Arguments of the Trainer under which 0 would divide by 0, or train, validate or log nothing.
_OF_TRAINER = (
    *("accumulate_grad_batches", "check_val_every_n_epoch", "devices", "limit_train_batches", "log_every_n_steps"),
    *("max_epochs", "max_steps", "num_nodes", "val_check_interval"),
)
#: Arguments of torch's optimizers and schedules, and of callbacks, under which 0 would do so.
_OF_PARTS = (
    *("T_0", "T_max", "T_mult", "d", "div_factor", "epochs", "eps", "etas", "factor", "final_div_factor", "gamma"),
    *("history_size", "initial_denom_lr", "lr", "max_iter", "max_lr", "start_factor", "step_size", "step_size_up"),
    *("step_sizes", "steps_per_epoch", "total_steps"),
)
POSITIVE = {*(f"trainer.{name}" for name in _OF_TRAINER), *_OF_PARTS}
#: Arguments that are times, or may be.
TIMES = ("max_time", "val_check_interval", "duration", "train_time_interval")

#: What a command of Lightning that only evaluates must read.
_NEEDED = {
    "validate": "trainer.limit_val_batches",
    "test": "trainer.limit_test_batches",
    "predict": "trainer.limit_predict_batches",
}


def check_numbers(config: Namespace, command: str | None = None) -> None:
    """Refuse numbers that nothing below the command line would refuse, as nan or a negative gradient clipping.

    Args:
        config: A parsed config, before anything is built from it.
        command: Command of Lightning that it is for, which must have something to do; None for another one.

    Raises:
        UserError: If a number is not finite or out of its range, or a time is none.
    """
    needed = _NEEDED.get(command or "")
    for path, owner, value in values_in(config):
        name = next(part for part in reversed(path.split(".")) if not part.isdigit())
        if not isinstance(value, int | float):
            if name in TIMES and _is_no_time(value):
                raise UserError(f"`{path}` is {value}, but must be a time above 0, as 00:01:30:00; change it.")
            continue
        if not math.isfinite(value):
            raise UserError(f"`{path}` is {value}, but must be a finite number; change it.")
        is_trainer = not owner and path.startswith("trainer.")
        if is_trainer or owner.startswith(_COUNTS_AND_RATES):
            key = path if is_trainer else name
            least = NEGATIVE.get(key, 0)
            if key in POSITIVE or key == needed:
                if value == 0 or value < least:
                    rule = "1 or more" if isinstance(value, int) else "above 0"
                    raise UserError(f"`{path}` is {value}, but must be {rule}{', or -1' if least else ''}; change it.")
            elif value < least:
                raise UserError(f"`{path}` is {value}, but must be {least} or more; change it.")


def _is_no_time(value: Any) -> bool:
    """Tell whether a time, in any form that Lightning takes, is 0."""
    if isinstance(value, str):
        return re.search("[1-9]", value) is None
    return not (value if isinstance(value, timedelta) else any(dict(value).values()))


def values_in(node: Any, path: str = "", owner: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield each number, text and time with its path and its class; the empty string for arguments of the command.

    Those of classes of other projects are left out.
    """
    known = not owner or owner.startswith(_KNOWN)
    if isinstance(node, bool) or node is None:
        return
    if isinstance(node, int | float | str | timedelta):
        if known:
            yield path, owner, node
    elif isinstance(node, Namespace | dict):
        inner = vars(node) if isinstance(node, Namespace) else node
        owner = str(inner.get("class_path", owner))
        if known and path.endswith(TIMES):
            yield path, owner, inner
        for name, value in inner.items():
            yield from values_in(value, f"{path}.{name}" if path else str(name), owner)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from values_in(value, f"{path}.{index}", owner)
