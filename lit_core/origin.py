"""How objects were built, as plain data: the class paths and arguments by which a config would name them."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeVar, get_type_hints

import numpy as np
from torch import Tensor, nn

#: Key of the mapping that stands for an argument that plain data cannot describe; its value says what the argument was.
NOT_KEPT = "not_kept"
_ORIGIN = "_origin"

Made = TypeVar("Made")


class KeepsOrigin:
    """Base of classes whose objects know the arguments that they were built from; `described` reads them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make the object and note its arguments as plain data, before anything can change them."""
        made = super().__new__(cls)
        object.__setattr__(made, _ORIGIN, _call(cls, args, kwargs))
        return made


def keeps_origin(function: Callable[..., Made]) -> Callable[..., Made]:
    """Decorate a function or class method, so that what it returns is described by a call of it.

    Args:
        function: Returns a new object; as a class method, it is decorated below ``classmethod``.
    """

    @functools.wraps(function)
    def build(*args: Any, **kwargs: Any) -> Made:
        made = function(*args, **kwargs)
        owner = args[0] if args and isinstance(args[0], type) else None
        named = build if owner is None else getattr(owner, function.__name__)
        object.__setattr__(made, _ORIGIN, _call(named, args if owner is None else args[1:], kwargs))
        return made

    return build


def origin(made: Any) -> dict[str, Any] | None:
    """Return ``class_path`` and ``init_args`` of an object that knows them; None of any other."""
    return getattr(made, "__dict__", {}).get(_ORIGIN)


def described(value: Any, annotation: Any = None) -> Any:
    """Return a value as a config would name it: numbers, strings, lists, mappings, class paths with arguments.

    Args:
        value: The value.
        annotation: Type of the argument that takes the value; None if not known.

    Returns:
        Plain data. What has no such form is ``{"not_kept": what it is}``.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return value.name
    plain: Any
    for kind, plain in ((str, str), (Integral, int), (Real, float), (os.PathLike, os.fspath)):
        if isinstance(value, kind):
            return plain(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Tensor) and value.dim() == 0:
        return python_number(value)
    if origin(value) is not None:
        return origin(value)
    if isinstance(value, type):
        path = import_path(value)
        return {"class_path": path} if path else _not_kept(value)
    if is_dataclass(value):
        return {item.name: described(getattr(value, item.name)) for item in fields(value) if item.init}
    if isinstance(value, Mapping):
        return {key: described(item) for key, item in value.items()}
    if isinstance(value, Sequence | Set):
        return [described(item) for item in value]
    if isinstance(value, functools.partial) and (named := class_of(value)) is not None:
        call = _call(named, (), value.keywords, partial=True)
        return call if call["class_path"] else _not_kept(named)
    if inspect.isroutine(value):
        path = import_path(value)
        return path if path and _can_be_named(path, value, annotation) else _not_kept(value)
    return _not_kept(value)


def python_number(value: Any) -> Any:
    """Return a number of NumPy or torch as one of Python, and anything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray | Tensor) and value.ndim == 0):
        return value.item()
    return value


def class_of(partial: functools.partial[Any]) -> type | None:
    """Return the class that a partial builds with arguments given by name, also if jsonargparse made the partial."""
    if getattr(partial.func, "__module__", "").startswith("jsonargparse"):  # it gives the class to functions of its own
        return next((argument for argument in partial.args if isinstance(argument, type)), None)
    return partial.func if isinstance(partial.func, type) and not partial.args else None


def to_be_filled(made: Callable[..., Made], count: int) -> Callable[..., Made]:
    """Return a factory without the None that a parser gives its first arguments, if these have no annotation.

    Args:
        made: The factory, of a config.
        count: Number of arguments that the caller gives it by position.
    """
    if not isinstance(made, functools.partial) or (kind := class_of(made)) is None:
        return made
    first = list(inspect.signature(kind).parameters)[:count]
    given = {name: value for name, value in made.keywords.items() if value is not None or name not in first}
    return functools.partial(made.func, *made.args, **given)


def unkept(plain: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the description of each value in plain data that `described` could not keep.

    Args:
        plain: The data.
        key: Path of the data itself.
    """
    if isinstance(plain, dict) and plain.keys() == {NOT_KEPT}:
        yield key, plain[NOT_KEPT]
        return
    inner = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for name, value in inner:
        shown = [] if name in ("class_path", "init_args") else [str(name)]
        yield from unkept(value, ".".join([*([key] if key else []), *shown]))


def import_path(named: Any) -> str | None:
    """Return the shortest path from which a class or function can be imported; None if there is none."""
    module, name = getattr(named, "__module__", None), getattr(named, "__qualname__", None)
    if not module or not name:
        return None
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        package = ".".join(parts[:length])
        if _at(sys.modules.get(package), name) == named:
            return f"{package}.{name}"
    return None


def _at(owner: Any, name: str) -> Any:
    for part in name.split("."):
        owner = getattr(owner, part, None)
    return owner


def _call(named: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], partial: bool = False) -> Any:
    """Return the description of a call; its ``class_path`` is None if it can't be imported."""
    signature = inspect.signature(named)
    try:
        bound = (signature.bind_partial if partial else signature.bind)(*args, **kwargs)
    except TypeError:  # the call itself raises it, with a better message; or a copy is made, which is given its origin
        return None
    if not partial:
        bound.apply_defaults()
    hints = _hints(named)
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= {key: described(item) for key, item in value.items()}
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            names = _names_in_base(named)
            known = len(value) <= len(names)
            arguments |= zip(names, map(described, value), strict=False) if known else {name: _not_kept(value)}
            continue
        if parameter.default is value and callable(value):
            continue  # it is the default then too
        arguments[name] = described(value, hints.get(name))
    return {"class_path": import_path(named), "init_args": arguments}


def _names_in_base(named: Any) -> list[str]:
    """Return the names of what a class hands on to its base as ``*args``; jsonargparse checks that it does so."""
    for base in getattr(named, "__mro__", ())[1:]:
        parameters = inspect.signature(base).parameters.values()
        if not any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
            return [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    return []


def _hints(named: Any) -> dict[str, Any]:
    try:
        return get_type_hints(getattr(named, "__init__") if isinstance(named, type) else named)  # noqa: B009
    except Exception:  # whatever the annotations of a foreign class raise when they are evaluated
        return {}


def _can_be_named(path: str, function: Any, annotation: Any) -> bool:
    """Tell whether a config can name a function as the value of an argument, which depends on its annotations."""
    if annotation is None:
        return False
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=annotation)
        return parser.instantiate_classes(parser.parse_object({"value": path})).value == function
    except Exception:  # whatever the parser, or a function that it calls without arguments, raises
        return False


def _not_kept(value: Any) -> dict[str, str]:
    kind = type(value).__name__
    if inspect.isroutine(value) or isinstance(value, type):
        name = value.__name__
        what = "a lambda" if name == "<lambda>" else f"{name}, which a config cannot name"
    elif isinstance(value, nn.Module):
        what = f"a {kind} that was built before"
    else:
        what = f"a {kind}"
    return {NOT_KEPT: what}
