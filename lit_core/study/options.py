"""Plain values of a study, read against the annotations of a cell's function or of its options object."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lit_core.errors import UserError, did_you_mean
from lit_core.study.parts import Given, Part

T = TypeVar("T")
#: Name of the argument of a cell's function that takes its fields from the flat values of the study.
OPTIONS = "options"
#: The name of an argument at the beginning of an error.
_NAME = re.compile(r"`?(\w+)`?(?=[ .:\[])")


def check_choice(name: str, value: str, choices: Mapping[str, Any]) -> None:
    """Check that a field of an options object names one of some things.

    Args:
        name: Name of the field.
        value: What it names.
        choices: What there is, by name.

    Raises:
        UserError: If there is no such thing.
    """
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise UserError(f"{name} is {value}, but must be one of {', '.join(choices)}.{hint}")


@dataclass(frozen=True)
class Argument:
    """An argument that a study can set.

    Args:
        annotation: Its type.
        required: Whether it has no default.
        in_options: Whether it is a field of the options object.
    """

    annotation: Any
    required: bool
    in_options: bool = False


def arguments_of(function: Callable[..., Any]) -> dict[str, Argument] | None:
    """Return the arguments of a cell's function by name, with the fields of its options object in the place of that.

    Args:
        function: The function. An argument ``options`` whose type is a dataclass is the options object.

    Returns:
        The arguments; None if the function takes any by ``**``.

    Raises:
        UserError: If Python does not know the arguments, as of a built-in class.
    """
    try:
        hints, parameters = get_type_hints(function, include_extras=True), inspect.signature(function).parameters
    except (TypeError, ValueError, NameError) as error:
        name = getattr(function, "__qualname__", function)
        raise UserError(f"function is {name}, whose arguments are not known ({error}); name a function.") from error
    arguments: dict[str, Argument] = {}
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            return None
        if name == OPTIONS and is_dataclass(hints.get(name)):
            arguments |= {key: Argument(a.annotation, a.required, True) for key, a in _fields(hints[name]).items()}
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            arguments[name] = Argument(hints.get(name, Any), parameter.default is parameter.empty)
    return arguments


def bind(
    function: Callable[..., Any],
    values: Mapping[str, Any],
    where: Callable[[str], str] = str,
    known: dict[tuple[Any, str, str], Any] | None = None,
) -> dict[str, Any]:
    """Return the arguments with which a cell's function is called, typed as its annotations say. Builds no component.

    Args:
        function: The function.
        values: Plain values by name.
        where: Returns the path of a value in the study, by its name.
        known: What was read before, by function, name and value: cells share most values, and to read one builds a
            parser. What is read now is added. None shares nothing.

    Raises:
        UserError: If a value does not have the type of its argument.
    """
    arguments = arguments_of(function)
    if arguments is None:
        return dict(values)
    known, typed = {} if known is None else known, {}
    for name, value in values.items():
        key = function, name, repr(value)
        if key not in known:
            known[key] = read(arguments[name].annotation, value, where(name))
        typed[name] = known[key]
    in_options = {name: value for name, value in typed.items() if arguments[name].in_options}
    if not any(argument.in_options for argument in arguments.values()):
        return typed
    options = _made(get_type_hints(function)[OPTIONS], in_options, where)
    return {OPTIONS: options} | {name: value for name, value in typed.items() if name not in in_options}


def read(annotation: Any, value: Any, where: str) -> Any:
    """Return a plain value as its annotation types it.

    Args:
        annotation: The type. ``Part[X]`` stays unbuilt; dataclasses are read field by field.
        value: The value, as YAML has it.
        where: Path of the value in the study.

    Raises:
        UserError: If the value does not have the type.
    """
    given: tuple[str, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        given = tuple(name for extra in extras if isinstance(extra, Given) for name in extra.names)
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return value
    if origin in (Union, UnionType) and NoneType in inner:
        if value is None:
            return None
        return read(Union[tuple(each for each in inner if each is not NoneType)], value, where)  # noqa: UP007
    if value is None:
        raise UserError(f"{where} is null, but must have a value; give one, or remove the key to take the default.")
    if origin is Part:
        (kind,) = inner
        return Part.read(kind, value, given, where)
    if is_dataclass(annotation):
        return read_fields(annotation, value, where)
    if origin is dict:
        return {key: read(inner[1], each, f"{where}.{key}") for key, each in _of_type(dict, value, where).items()}
    if origin is list:
        return [read(inner[0], each, f"{where}[{i}]") for i, each in enumerate(_of_type(list, value, where))]
    return Part(annotation, json.dumps(value, default=str), (), where).build()


def read_fields(kind: Any, value: Any, where: str, **given: Any) -> Any:
    """Return a dataclass whose fields a mapping sets.

    Args:
        kind: The dataclass.
        value: Plain values by name of the field.
        where: Path of the mapping in the study.
        given: Further fields, which the mapping must not set.

    Raises:
        UserError: If a field is unknown, missing or of another type.
    """
    known = {name: argument for name, argument in _fields(kind).items() if name not in given}
    for name in _of_type(dict, value, where):
        if name not in known:
            raise UserError(f"{where}.{name} is not an argument of {kind.__name__}.{did_you_mean(name, known)}")
    for name, argument in known.items():
        if argument.required and name not in value:
            raise UserError(f"{where} lacks {name}, which {kind.__name__} needs; add it.")
    typed = {name: read(known[name].annotation, each, f"{where}.{name}") for name, each in value.items()}
    return _made(kind, {**typed, **given}, lambda name: f"{where}.{name}")


def _made(kind: Any, values: Mapping[str, Any], where: Callable[[str], str]) -> Any:
    """Make a dataclass; where it refuses a field, whose name its sentence begins with, put the path before it."""
    try:
        return kind(**values)
    except UserError as error:
        name = _NAME.match(str(error))
        if name is None or name[1] not in values:
            raise
        raise UserError(f"{where(name[1])}{str(error)[name.end() :]}") from error


def _fields(kind: Any) -> dict[str, Argument]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: Argument(hints[field.name], field.default is MISSING and field.default_factory is MISSING)
        for field in fields(kind)
        if field.init
    }


def _of_type(kind: type[T], value: Any, where: str) -> T:
    if not isinstance(value, kind):
        rule = "a list; write [value]" if kind is list else "a mapping; write name: value"
        raise UserError(f"{where} is {value}, but must be {rule}.")
    return value
