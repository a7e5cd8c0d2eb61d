"""Empty texts, lists and mappings that were typed, as by ``--root "$UNSET"``, and paths that no file can have."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace

from lit_core.cli.numbers import values_in
from lit_core.errors import UserError

#: Arguments of a verb whose empty text says something: a text that begins anew, or all configs.
_MEANT = ("prompt", "words")
#: Arguments at any depth that name a place, where an empty text would be the working directory, or nothing.
_PLACES = ("path", "folder", "root", "ckpt_path", "branch_from", "run")
#: Bytes of the longest name of a file or folder.
_LONGEST = 255


def refuse_empty(config: Namespace, verb: Callable[..., Any] | None = None) -> None:
    """Refuse empty texts, empty lists and mappings of what is needed, and paths that no file can have.

    Args:
        config: A parsed config, before anything is built from it.
        verb: The function that takes it; None for a command of Lightning, of which only the names of places count.

    Raises:
        UserError: If an argument is empty, or a name in a path too long.
    """
    if verb is not None:
        needed = [name for name, one in inspect.signature(verb).parameters.items() if one.default is one.empty]
        for name, value in [*config.items(branches=True)]:
            outer = name.partition(".")[0]
            is_text = value == "" and name not in _MEANT and (name == outer or outer == "trainer")
            if is_text or (value in ([], {}) and name in needed):
                raise UserError(f"{name} is empty; give a value{'' if name in needed else ', or leave it out'}.")
    own = {} if verb is None else inspect.signature(verb).parameters
    for name, _, value in values_in(config):
        is_place = name.rpartition(".")[2] in _PLACES
        if value == "" and is_place:
            raise UserError(f"{name} is empty; give a value, or leave it out.")
        outer = name.partition(".")[0]
        if isinstance(value, str) and (is_place or (outer in own and outer not in (*_MEANT, "trainer"))):
            check_name(name, value)


def check_name(argument: str, path: str) -> None:
    """Refuse what can be the path of no file.

    Args:
        argument: Name of the argument, for the message.
        path: Its value.

    Raises:
        UserError: If a name in it is too long, or has a null character.
    """
    if "\0" in path:
        raise UserError(f"{argument} is {path!r}, but no name has a null character; correct it.")
    longest = max(map(len, os.fsencode(path).split(b"/")))
    if longest > _LONGEST and not any(mark.isspace() for mark in path):  # which is prose
        raise UserError(
            f"{argument} is {path[:40]}…, of which a part has {longest} bytes, but a name has {_LONGEST} or fewer; "
            "correct the path."
        )
