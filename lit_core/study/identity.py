"""The identity of a study's cell: a hash of its config that is the same for all import paths of a class or function."""

from __future__ import annotations

import hashlib
import json
import pydoc
from collections.abc import Mapping
from functools import cache
from typing import Any

from lit_core.files import json_files
from lit_core.moved_names import current_path
from lit_core.trust import OWN


def identity(config: Any) -> str:
    """Return a short hash of plain values, whatever import paths they hold for the same classes and functions.

    Args:
        config: Plain values, of this version of the packages or of an earlier one.
    """
    text = json.dumps(_canonical(plain(config)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Return a value as it comes back from a JSON file."""
    return json_files.plain(value, str)


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    return _defined_path(value) if isinstance(value, str) and value.startswith(OWN) else value


@cache
def _defined_path(path: str) -> str:
    """Return the path of a class or function in the module that defines it; other strings as they are."""
    try:
        component = pydoc.locate(current_path(path))
    except pydoc.ErrorDuringImport:
        return path
    module, name = getattr(component, "__module__", None), getattr(component, "__qualname__", None)
    return f"{module}.{name}" if module and name else path
