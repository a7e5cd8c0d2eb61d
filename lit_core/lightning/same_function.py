"""Whether a network that loads a checkpoint's weights computes what they were trained for."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from lit_core.errors import UserError
from lit_core.lightning.internals import trainer_of
from lit_core.origin import NOT_KEPT, described
from lit_core.references import has_reference
from lit_core.screen import rank_zero_warn

#: How many arguments a message names.
_NAMED = 3
#: How many characters of a value it shows.
_LONGEST = 60
#: Arguments of any class on which only initial weights, the place of the weights or random changes in training depend.
_IDLE, _IDLE_PARTS = {"seed", "device"}, ("dropout", "drop_")


def check_same_function(module: LightningModule, now: Mapping[str, Any], then: Mapping[str, Any]) -> None:
    """Refuse to resume, and otherwise warn, if arguments of a network are not those of the checkpoint.

    Args:
        module: The module that loads the checkpoint.
        now: Values of its arguments on which the network's function depends, besides weights, by name.
        then: Those of the checkpoint. Names that only one of both has, and references, are not compared; a file or
            folder that was moved and has kept its name is the same.

    Raises:
        UserError: If a run is resumed and a value differs.
    """
    compared = [key for key in now if key in then and not has_reference(now[key]) and not has_reference(then[key])]
    changed = [key for key in compared if now[key] != then[key] and not _is_moved(now[key], then[key])]
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


def built_from(value: Any, name: str, idle: Set[str]) -> dict[str, Any]:
    """Return the classes and arguments that an object is built from, by dotted names.

    An argument that is left out has the default of its class, if the class is imported.

    Args:
        value: The object as a config or `described` names it, or such objects in lists and mappings.
        name: Name of the argument that takes it.
        idle: Names of arguments, of the object's class or of a class inside, on which its function does not depend.
    """
    if isinstance(value, Mapping):
        if value.keys() == {NOT_KEPT}:
            return {f"{name}.{NOT_KEPT}": value[NOT_KEPT]}
        path = value.get("class_path")
        given = (
            value if path is None else _defaults(path) | _mapping(value, "init_args") | _mapping(value, "dict_kwargs")
        )
        inner = {f"{name}.{key}": item for key, item in given.items() if not _is_idle(str(key), idle)}
        found = {} if path is None else {name: _class_name(path)}
    elif isinstance(value, Sequence) and any(isinstance(item, Mapping) for item in value):
        inner = {f"{name}.{index}": item for index, item in enumerate(value)}
        found = {name: f"{len(value)} entries"}
    else:
        return {name: list(value) if isinstance(value, tuple) else value}
    for key, item in inner.items():
        found |= built_from(item, key, idle)
    return found


def _is_idle(key: str, idle: Set[str]) -> bool:
    return key in idle or key in _IDLE or any(part in key for part in _IDLE_PARTS)


def _mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return dict(found) if isinstance(found, Mapping) else {}


def _class_name(path: Any) -> str:
    """Return the last parts of an import path that name a class, with its method, or a function."""
    parts = str(path).split(".")
    return ".".join(parts[-2:] if len(parts) > 1 and parts[-2][:1].isupper() else parts[-1:])


def _defaults(path: Any) -> dict[str, Any]:
    """Return the defaults of a class or function; nothing is imported, since somebody else may have named it."""
    parts = str(path).split(".")
    lengths = (length for length in range(len(parts) - 1, 0, -1) if ".".join(parts[:length]) in sys.modules)
    length = next(lengths, 0)
    made: Any = sys.modules.get(".".join(parts[:length]))
    for part in parts[length:]:
        made = getattr(made, part, None)
    try:
        parameters = inspect.signature(made).parameters.items()
    except (TypeError, ValueError):  # it is no class or function, or one that does not tell its arguments
        return {}
    return {key: described(one.default) for key, one in parameters if one.default is not one.empty}


def _is_moved(now: Any, then: Any) -> bool:
    """Tell whether two texts name one file or folder: by other paths to it, or by a path where it is no more."""
    if not isinstance(now, str) or not isinstance(then, str) or Path(now).name != Path(then).name:
        return False
    return not os.path.exists(then) or (os.path.exists(now) and os.path.samefile(now, then))


def _shown(value: Any) -> str:
    if isinstance(value, str):  # the end of a path says most
        return value if len(value) <= _LONGEST else f"…{value[-_LONGEST:]}"
    return "null" if value is None else f"{value!r:.{_LONGEST}}"
