"""Types of a dataclass's fields, checked where it is built, since a config's parser checks them but Python does not."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lit_core.errors import UserError, did_you_mean
from lit_core.origin import python_number

Made = TypeVar("Made")
_NAMES: dict[Any, str] = {
    **{bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"},
    **{list: "a list", dict: "a mapping"},
}


def as_dataclass(kind: type[Made], value: Any, argument: str) -> Any:
    """Return a dataclass made of a mapping with its fields, as a checkpoint keeps it; other values as they are.

    Args:
        kind: The dataclass.
        value: The value of an argument.
        argument: Name of the argument, for messages.

    Raises:
        UserError: If the mapping has another key, or lacks a field without a default.
    """
    if not isinstance(value, Mapping):
        return value
    known: Any = kind
    needed = [one.name for one in fields(known) if one.default is MISSING and one.default_factory is MISSING]
    names = [one.name for one in fields(known)]
    for key in value:
        if key not in names:
            hint = did_you_mean(str(key), names)
            raise UserError(f"`{argument}` has {key!r}, but its keys are {', '.join(names)}; correct it.{hint}")
    for name in needed:
        if name not in value:
            raise UserError(f"`{argument}` has no {name}, which a {kind.__name__} needs; give it.")
    return kind(**value)


def check_fields(built: Any) -> None:
    """Refuse fields of another type than their annotation; numbers of NumPy and torch become those of Python.

    Args:
        built: The instance of a dataclass, in its ``__post_init__``.

    Raises:
        UserError: If a field has another type.
    """
    hints = get_type_hints(type(built))
    for item in fields(built):
        value, kind = python_number(getattr(built, item.name)), hints[item.name]
        object.__setattr__(built, item.name, value)
        if not _fits(value, kind):
            raise UserError(f"`{item.name}` is {value!r:.80}, but must be {_named(kind)}; change it.")


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (types.UnionType, Union):
        return any(_fits(value, choice) for choice in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is list:
        return isinstance(value, list | tuple) and all(_fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(
            _fits(key, inner[0]) and _fits(one, inner[1]) for key, one in value.items()
        )
    if kind is float:
        return type(value) in (int, float)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _named(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union, Literal):
        return _either([name for choice in inner for name in _names(choice, origin)])
    if origin is list:
        return f"a list, of which each is {_named(inner[0])}"
    if is_dataclass(kind) and isinstance(kind, type):
        return f"the fields of a {kind.__name__}"
    return _NAMES.get(origin or kind, "of another type")


def _names(choice: Any, origin: Any) -> list[str]:
    if origin is Literal:
        return [str(choice)]
    return [str(one) for one in get_args(choice)] if get_origin(choice) is Literal else [_named(choice)]


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
