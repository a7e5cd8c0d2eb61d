"""Whether a network that loads a checkpoint's weights computes what they were trained for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule

from lit_core.errors import UserError
from lit_core.lightning.internals import trainer_of
from lit_core.references import has_reference
from lit_core.screen import rank_zero_warn

#: How many arguments a message names.
_NAMED = 3


def check_same_function(module: LightningModule, now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Refuse to resume, and otherwise warn, if arguments of a network are not those of the checkpoint.

    Args:
        module: The module that loads the checkpoint.
        now: Values of its arguments on which the network's function depends, besides weights, by name.
        then: Those of the checkpoint. Names that only one of both has, and references, are not compared.

    Raises:
        UserError: If a run is resumed and a value differs.
    """
    compared = [key for key in now if key in then and not has_reference(now[key]) and not has_reference(then[key])]
    changed = [key for key in compared if now[key] != then[key]]
    if not changed:
        return
    told = [f"`{key}` is {_shown(now[key])}, but {_shown(then[key])} in the checkpoint" for key in changed[:_NAMED]]
    said = ", ".join(told) + (f", and {len(changed) - _NAMED} more differ" if len(changed) > _NAMED else "")
    them = "it" if len(changed) == 1 else "them"
    trainer: Any = trainer_of(module)
    if trainer is not None and trainer.training and trainer.ckpt_path is not None:
        raise UserError(
            f"{said}, and a resume cannot change what the network computes; leave {them} out, or start a new run from "
            "the checkpoint with --branch_from."
        )
    rank_zero_warn(
        f"{said}, so the network does not compute what its weights were trained for; leave {them} out if that is not "
        "meant."
    )


def flat(value: Any, name: str) -> dict[str, Any]:
    """Return the values inside mappings by their dotted names.

    Args:
        value: A value, or a mapping of names to values or to further mappings.
        name: Its own name.
    """
    if not isinstance(value, Mapping):
        return {name: list(value) if isinstance(value, tuple) else value}
    return {key: inner for part, each in value.items() for key, inner in flat(each, f"{name}.{part}").items()}


def _shown(value: Any) -> str:
    return "null" if value is None else f"{value:.60}" if isinstance(value, str) else f"{value!r:.60}"
