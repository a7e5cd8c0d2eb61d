"""Numbers of a config that their own classes would take without a word: nan, infinity, and a range that is left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

from lit_core.errors import UserError

#: Packages whose classes are checked; what others make of a number is their own.
_KNOWN = ("torch", "lightning", "lit_core", "lit_moe", "lit_valuation", "lit_detect")
#: Packages whose classes take numbers of 0 or more, but for those of `NEGATIVE`.
_COUNTS_AND_RATES = ("torch.optim.", "lightning.pytorch.callbacks.")
#: Their arguments that may be below 0, and how far; the classes check these themselves where there is more to say.
NEGATIVE = {
    **{"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.num_sanity_val_steps": -1, "trainer.devices": -1},
    **{"save_top_k": -1, "max_depth": -1, "last_epoch": -1, "base_momentum": -math.inf, "pruning_dim": -math.inf},
    **{"beta2_decay": -math.inf, "ns_coefficients": -math.inf, "pruning_norm": -math.inf, "rtol": -math.inf},
    **{"stopping_threshold": -math.inf, "divergence_threshold": -math.inf, "min_delta": -math.inf},
}
#: Arguments of the Trainer that divide or count from 1.
_FROM_ONE = ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes")
POSITIVE = {f"trainer.{name}" for name in _FROM_ONE}


def check_numbers(config: Namespace) -> None:
    """Refuse numbers that nothing below the command line would refuse, as nan or a negative gradient clipping.

    Args:
        config: A parsed config, before anything is built from it.

    Raises:
        UserError: If a number is not finite or out of its range.
    """
    for path, owner, value in _numbers(config, "", ""):
        if owner and not owner.startswith(tuple(f"{name}." for name in _KNOWN)):
            continue
        if not math.isfinite(value):
            raise UserError(f"`{path}` is {value}, but must be a finite number; change it.")
        is_trainer = not owner and path.startswith("trainer.")
        if is_trainer or owner.startswith(_COUNTS_AND_RATES):
            key = path if is_trainer else next(part for part in reversed(path.split(".")) if not part.isdigit())
            least = 1 if key in POSITIVE and isinstance(value, int) else NEGATIVE.get(key, 0)
            if value < least:
                raise UserError(f"`{path}` is {value}, but must be {least} or more; change it.")


def _numbers(node: Any, path: str, owner: str) -> Iterator[tuple[str, str, float]]:
    """Yield each number with its path and the class whose argument it is; the empty string for those of the command."""
    if isinstance(node, bool) or node is None or isinstance(node, str):
        return
    if isinstance(node, int | float):
        yield path, owner, node
    elif isinstance(node, Namespace | dict):
        inner = vars(node) if isinstance(node, Namespace) else node
        owner = str(inner.get("class_path", owner))
        for name, value in inner.items():
            yield from _numbers(value, f"{path}.{name}" if path else str(name), owner)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _numbers(value, f"{path}.{index}", owner)
