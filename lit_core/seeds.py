"""The seed of a run, which its parts take unless they have one of their own."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lit_core.errors import UserError

#: Where Lightning's ``seed_everything`` leaves the seed, for this process and those that it starts.
_RUN = "PL_GLOBAL_SEED"
#: NumPy takes no larger one.
_LIMIT = 2**32


def seed_generators(seed: int) -> None:
    """Seed the global generators and what has no seed of its own, as Lightning's ``seed_everything``, but without it.

    Those of NumPy and torch are seeded where these are imported, as they are by whatever has parts that draw from them.

    Args:
        seed: The seed, from 0 to 2**32 - 1.
    """
    os.environ[_RUN] = str(seed)
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)


def part_seed(seed: int | None = None) -> int:
    """Return the seed of a part: its own, or that of the run, which ``seed_everything`` set; 0 without either.

    Args:
        seed: The part's own seed, from 0 to 2**32 - 1; None takes that of the run.

    Raises:
        UserError: If the seed is out of range.

    Example:
        >>> from lightning.pytorch import seed_everything
        >>> seed_everything(3, verbose=False)
        3
        >>> part_seed(None), part_seed(5)
        (3, 5)
    """
    return (run_seed() or 0) if seed is None else checked_seed("seed", seed)


def run_seed() -> int | None:
    """Return the seed of the run, which ``seed_everything`` set; None without one."""
    return int(os.environ[_RUN]) if _RUN in os.environ else None


def checked_seed(argument: str, seed: int) -> int:
    """Return a seed; `UserError` names the argument if it is not from 0 to 2**32 - 1."""
    if not 0 <= seed < _LIMIT:
        raise UserError(f"{argument} is {seed}, but must be 0 or more and below 2**32; give such a number.")
    return int(seed)


def forget_run_seed() -> None:
    """Let parts without a seed of their own take 0, until the next ``seed_everything``."""
    os.environ.pop(_RUN, None)


def drawn_seed(*, agreed: bool) -> int:
    """Return a random seed.

    Args:
        agreed: Whether this process takes the one that the process that started it has drawn.
    """
    return part_seed() if agreed else random.SystemRandom().randrange(_LIMIT)


def seeds_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Return which seed holds for what in a run.

    Args:
        config: The config of the run, as plain values; it is also in each of its checkpoints.

    Returns:
        The seed of the run under ``seed_everything``, and that of each part that has one under its key.

    Example:
        >>> model = {"class_path": "lit_moe.MoELanguageModel", "init_args": {"seed": None}}
        >>> seeds_of({"seed_everything": 3, "model": model, "data": {"class_path": "Data", "init_args": {"seed": 5}}})
        {'seed_everything': 3, 'model.init_args.seed': 3, 'data.init_args.seed': 5}
    """
    chosen = config.get("seed_everything")
    run = chosen if isinstance(chosen, int) and not isinstance(chosen, bool) else 0
    own = {key: run if seed is None else seed for key, seed in _typed(config, "")}
    return {"seed_everything": run, **own}


def _typed(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in pairs:
        inner = f"{path}.{key}" if path else str(key)
        if key == "seed":
            yield inner, value
        else:
            yield from _typed(value, inner)
