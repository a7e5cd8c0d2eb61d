"""Empty texts, lists and mappings that were typed, as by ``--root "$UNSET"``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace

from lit_core.cli.numbers import values_in
from lit_core.errors import UserError

#: Arguments of a verb whose empty text says something: a text that begins anew, or all configs.
_MEANT = ("prompt", "words")
#: Arguments at any depth that name a place, where an empty text would be the working directory, or nothing.
_PLACES = ("path", "folder", "root", "ckpt_path", "branch_from")


def refuse_empty(config: Namespace, verb: Callable[..., Any] | None = None) -> None:
    """Refuse empty texts, and empty lists and mappings of what is needed.

    Args:
        config: A parsed config, before anything is built from it.
        verb: The function that takes it; None for a command of Lightning, of which only the names of places count.

    Raises:
        UserError: If an argument is empty.
    """
    if verb is not None:
        needed = [name for name, one in inspect.signature(verb).parameters.items() if one.default is one.empty]
        for name, value in [*config.items(branches=True)]:
            outer = name.partition(".")[0]
            is_text = value == "" and name not in _MEANT and (name == outer or outer == "trainer")
            if is_text or (value in ([], {}) and name in needed):
                raise UserError(f"{name} is empty; give a value{'' if name in needed else ', or leave it out'}.")
    for name, _, value in values_in(config):
        if value == "" and name.rpartition(".")[2] in _PLACES:
            raise UserError(f"{name} is empty; give a value, or leave it out.")
