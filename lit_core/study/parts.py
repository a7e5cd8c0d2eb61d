"""Components that a study describes by class path and arguments: checked first, built when a cell needs them."""

from __future__ import annotations

import inspect
import json
import pydoc
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar, get_type_hints

from jsonargparse import SUPPRESS, ArgumentError, Namespace

from lit_core.cli.messages import root_cause
from lit_core.cli.parser import Parser
from lit_core.errors import UserError, did_you_mean
from lit_core.files.json_files import parse_json
from lit_core.parser_messages import parser_sentence

T = TypeVar("T")
#: Key under which a parser of this module reads its one value.
_KEY = "value"
#: Keys of the description of a component.
_KEYS = ("class_path", "init_args", "dict_kwargs")


@dataclass(frozen=True)
class Given:
    """Arguments of a component that the cell gives when it builds the component, so that a study cannot set them.

    Example:
        >>> from typing import Annotated
        >>> Detectors = dict[str, Annotated[Part[object], Given(("seed",))]]

    Args:
        names: Names of the arguments. A component that does not have one of them is built without it.
    """

    names: tuple[str, ...]


@dataclass(frozen=True)
class Part(Generic[T]):
    """A component that a study describes by class path and arguments. Parts with equal descriptions are equal.

    As the type of an argument of a cell, ``Part[Detector]`` accepts what the command line accepts for a ``Detector``.

    Args:
        kind: Type of the component, as jsonargparse takes it: a class or a callable that returns one.
        text: The description as JSON with sorted keys.
        given: Names of the arguments that the cell gives.
        where: Path of the description in the study, for error messages.
    """

    kind: Any
    text: str
    given: tuple[str, ...] = ()
    where: str = field(default="", compare=False)

    @classmethod
    def read(cls, kind: Any, value: Any, given: tuple[str, ...], where: str) -> Part[Any]:
        """Return the part that a value of a study describes, without building it.

        Args:
            kind: Type of the component.
            value: The description, or a class path alone.
            given: Names of the arguments that the cell gives.
            where: Path of the value in the study.

        Raises:
            UserError: If a class path, the name of an argument or the type of an argument's value is wrong.
        """
        if not isinstance(value, str | dict):
            raise UserError(f"{where} is {value}, but must be a component; write its class_path and init_args.")
        named = not inspect.isclass(kind) or inspect.isabstract(kind)  # a class that can be built needs no name
        _check_keys(value, where, is_component=named)
        for name in given:
            if isinstance(value, dict) and isinstance(init := value.get("init_args"), dict) and name in init:
                raise UserError(f"{where}.{name} is set, but the function of the cell gives it; remove it.")
        part = cls(kind, json.dumps(value, sort_keys=True, default=str), given, where)
        part._parsed()
        return part

    @property
    def description(self) -> Any:
        """The description as the study gives it, in plain values."""
        return parse_json(self.text, self.where, Any)

    @property
    def component(self) -> Callable[..., T]:
        """The class, or the function, that builds the component."""
        component: Any = pydoc.locate(self._parsed()[_KEY].class_path)
        return component

    def accepts(self, name: str) -> bool:
        """Return whether the component has an argument of this name."""
        return name in inspect.signature(self.component).parameters

    @property
    def arguments(self) -> dict[str, Any]:
        """The component's arguments with their defaults; those that describe components are not built."""
        return dict(vars(self._parsed()[_KEY].get("init_args") or Namespace()))

    def members(self, name: str, kind: Any, given: tuple[str, ...] = ()) -> list[Part[Any]]:
        """Return the components that an argument lists, to be built one by one.

        Args:
            name: Name of the argument.
            kind: Class of the components.
            given: Names of the arguments that the cell gives to each.

        Raises:
            UserError: If one of them sets an argument that the cell gives.
        """
        values = (self.description.get("init_args") or self.description)[name]
        return [Part.read(kind, each, given, f"{self.where}.{name}[{index}]") for index, each in enumerate(values)]

    def build(self, shared: Shared[Any] | None = None, **given: Any) -> T:
        """Build the component.

        Args:
            shared: Components inside it that are built once for all parts; None builds each part's own.
            given: Arguments from the cell. Those that the component does not have are left out.

        Raises:
            UserError: If the component refuses a value.
        """
        config = self._parsed().clone()
        if shared is not None:
            config = shared.put_into(config)
        try:
            built = _parser(self.kind, self.given).instantiate(config)[_KEY]
            if not self.given:
                return built
            arguments = {**(built.get("init_args") or {}), **(built.get("dict_kwargs") or {})}
            return self.component(**arguments, **{name: value for name, value in given.items() if self.accepts(name)})
        except ValueError as error:
            refused = root_cause(error)
            if isinstance(refused, UserError) and self.where:
                raise UserError(f"{self.where}: {refused}") from error
            raise

    def _parsed(self) -> Namespace:
        return parsed(self.kind, self.text, self.given, self.where)


class Shared(Generic[T]):
    """Components of one kind that are built once and used by all parts that describe them in the same way.

    Args:
        kind: Class of the components.
    """

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self._built: dict[str, T] = {}

    def put_into(self, node: Any) -> Any:
        """Return a parsed configuration in which the built component replaces each description of one.

        Args:
            node: The parsed configuration, which is changed in place.
        """
        if isinstance(node, list):
            return [self.put_into(child) for child in node]
        if not isinstance(node, Namespace | dict):
            return node
        if "class_path" in node and self._makes(node["class_path"]):
            plain = node.as_dict() if isinstance(node, Namespace) else node
            text = json.dumps(plain, sort_keys=True, default=str)
            if text not in self._built:
                self._built[text] = _parser(self.kind, ()).instantiate(Namespace({_KEY: node}))[_KEY]
            return self._built[text]
        for key, child in (vars(node) if isinstance(node, Namespace) else node).items():
            node[key] = self.put_into(child)
        return node

    def _makes(self, class_path: str) -> bool:
        """Return whether a class path names a class of this kind, or a function that returns one."""
        component = pydoc.locate(class_path)
        if not inspect.isclass(component):
            owner = getattr(component, "__self__", None)  # of a class method
            component = owner if inspect.isclass(owner) else get_type_hints(component).get("return")
        return inspect.isclass(component) and issubclass(component, self.kind)


def parsed(kind: Any, text: str, given: tuple[str, ...], where: str) -> Namespace:
    """Return what jsonargparse makes of a value, with the key ``value``, without building anything.

    Args:
        kind: Type of the value.
        text: The value as JSON.
        given: Names of arguments that the value must not set.
        where: Path of the value in the study, for error messages.

    Raises:
        UserError: If the value does not have the type.
    """
    try:
        return _parse(kind, text, given)
    except ArgumentError as error:
        raise UserError(parser_sentence(str(error), None, where)) from error


def _check_keys(value: Any, where: str, is_component: bool = False) -> None:
    """Raise an error if the description of a component, or of one inside it, has a key that is not one of `_KEYS`."""
    if isinstance(value, list):
        for index, each in enumerate(value):
            _check_keys(each, f"{where}[{index}]")
    if not isinstance(value, dict):
        return
    is_component = is_component or "class_path" in value or "init_args" in value
    for key in value if is_component else ():
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS)
            raise UserError(f"{where} has the key {key}, but must have class_path and may have init_args.{hint}")
    arguments = value.get("init_args") if is_component else value
    for key, each in arguments.items() if isinstance(arguments, dict) else ():
        _check_keys(each, f"{where}.{key}")


@cache  # the cells of a study share most of their values
def _parse(kind: Any, text: str, given: tuple[str, ...]) -> Namespace:
    config: Namespace = _parser(kind, given).parse_object({_KEY: parse_json(text, "The part", Any)})
    return config


@cache
def _parser(kind: Any, given: tuple[str, ...]) -> Parser:
    parser = Parser(exit_on_error=False)
    none: dict[str, Any] = {"default": SUPPRESS}  # the value is always given
    if given:
        parser.add_subclass_arguments(kind, _KEY, as_group=False, skip=set(given), instantiate=False, **none)
    else:
        parser.add_argument(f"--{_KEY}", type=kind, **none)
    return parser
