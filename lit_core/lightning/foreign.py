"""What a checkpoint of somebody else may name: a configuration that travels in data is not the user's own.

A checkpoint says by import paths and arguments how to build what it holds the weights of. In one that this user's
commands wrote, whose signature tells, all of that counts. In any other one:

1. A class counts if it is one of torch.optim, torch.nn, Lightning, torchmetrics or LitShift and derived from a class
   that its argument declares. Any other one is refused by name, unless the user has typed it before or trusts it now.
2. A function counts if it is one of LitShift and returns such an object, as `lit_detect.loading.trained` does.
3. Loggers, profilers and plugins count for nothing, nor do folders to write to or outside the data root, and references
   other than to keys of the same config.

All of it is decided before anything foreign is imported or called. A text counts as what the parser reads in it, which
may be an object again.
"""

from __future__ import annotations

import importlib.util
import os
import pydoc
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import get_loader
from jsonargparse.typing import Path_fr
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from lit_core.errors import UserError
from lit_core.files.yaml_files import check_size
from lit_core.lightning.internals import CLASS_PATH, INSTANTIATE_MODULE, INSTANTIATOR
from lit_core.origin import KeepsOrigin
from lit_core.screen import quoted
from lit_core.trust import DESCRIBING, KNOWN, OWN, is_own, is_trusted

#: Key of a vetted checkpoint with what was left out of its description: values by key.
LEFT_OUT = "left_out"

#: Arguments of the Trainer that a foreign config does not set: what writes, and what hooks into everything.
_NOT_OF_FOREIGN = ("logger", "profiler", "plugins", "default_root_dir")
#: Bases of what an argument without a known type may hold.
_PARTS = (nn.Module, Optimizer, LRScheduler, Metric, Callback, KeepsOrigin)
_RESOLVER = re.compile(r"\$\{[^}]*[:$]")
_DATA = (str, bytes, int, float, complex, bool, type(None), list, tuple, dict, set, frozenset, os.PathLike)


def vetted(checkpoint: Mapping[str, Any], path: str | Path, argument: str, known: Collection[type] = ()) -> Any:
    """Return a checkpoint in which only that is left which may count.

    Args:
        checkpoint: The content of the file.
        path: The file, for messages.
        argument: Name of the argument that gave the path, for messages.
        known: Classes that the caller has imported for this checkpoint.

    Raises:
        UserError: If the checkpoint is not the user's own, and names what does not count.
    """
    if is_own(checkpoint):
        return checkpoint
    gate = _Gate(f"{argument} is {path}", known)
    left = dict(checkpoint)
    for key in DESCRIBING:
        if left.get(key) is not None:
            left[key] = gate.config(left[key]) if key == "config" else gate.parameters(left[key], key)
    left[LEFT_OUT] = gate.left_out
    return left


class _Gate:
    """Decides about what one foreign checkpoint names.

    Args:
        where: How messages begin.
        known: Classes that the caller has imported for it.
    """

    def __init__(self, where: str, known: Collection[type]) -> None:
        self.where = where
        self.known = {f"{kind.__module__}.{kind.__qualname__}" for kind in known}
        self.left_out: dict[str, Any] = {}

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a run's config with what counts."""
        kinds: dict[str, type] = {"model": LightningModule, "data": LightningDataModule, "trainer": Trainer}
        config = self.arguments(config, "config")
        parts = {key: dict(self.arguments(config[key], key)) for key in kinds if config.get(key) is not None}
        for key in _NOT_OF_FOREIGN:
            value = parts.get("trainer", {}).pop(key, None)
            if value not in (None, True, False):
                self.left_out[f"trainer.{key}"] = value
        rest = self.each({key: value for key, value in config.items() if key not in parts}, {}, "")
        return rest | {key: self.mapping(part, {kinds[key]}, key) for key, part in parts.items()}

    def parameters(self, parameters: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Return the hyperparameters of a module with what counts."""
        kinds, parameters = [], self.arguments(parameters, where)
        if CLASS_PATH in parameters:
            kinds = self.named(parameters[CLASS_PATH], {LightningModule, LightningDataModule}, f"{where}.{CLASS_PATH}")
        if parameters.get(INSTANTIATOR, INSTANTIATE_MODULE) != INSTANTIATE_MODULE:
            self.refuse(f"{where}.{INSTANTIATOR}", parameters[INSTANTIATOR], "is no function that builds a module")
        built_by = {key: value for key, value in parameters.items() if key in (CLASS_PATH, INSTANTIATOR)}
        rest = {key: value for key, value in parameters.items() if key not in built_by}
        return built_by | self.each(rest, _hints_of(kinds), where)

    def value(self, value: Any, declared: set[type] | None, where: str) -> Any:
        """Return a value if what it names counts, else `_OUT`.

        Args:
            value: Plain data.
            declared: Classes that the argument declares; empty for plain data, None if nothing is known.
            where: Its key.
        """
        if _is_mapping(value):
            return self.mapping(value, declared, where)
        if isinstance(value, list | tuple):
            items = [self.value(item, declared, f"{where}.{number}") for number, item in enumerate(value)]
            return _OUT if any(item is _OUT for item in items) else items
        if isinstance(value, str):
            return self.text(value, declared, where)
        if isinstance(value, Iterable) and not isinstance(value, bytes | Tensor):
            self.refuse(where, value, "is no list")  # but a set, of which a parser makes one
        if where.partition(".")[0] not in DESCRIBING and not isinstance(value, bool | int | float | None):
            self.refuse(where, value, "is no value of a config")
        return value

    def text(self, value: str, declared: set[type] | None, where: str) -> Any:
        """Return a text if what it names, and what a parser reads in it, counts, else `_OUT`."""
        read = self.read(value, where)
        if read != value and not isinstance(read, float) and self.value(read, declared, where) != read:
            return self.leave_out(where, value)
        builds_model = where.startswith(("model.", "hyper_parameters."))
        if _RESOLVER.search(value):
            if builds_model:
                self.refuse(where, value, "reads more than a key of this config")
            return self.leave_out(where, value)
        if _leads_out(value) and not builds_model:  # the weights of a model are only read
            return self.leave_out(where, value)
        if declared == set() or value.isidentifier():
            return value
        if "${" in value:
            self.refuse(where, value, "is a reference where a class may be named")
        if _is_file(value):
            self.refuse(where, value, "is a file where a class may be named")
        if _is_dotted(value) and _is_importable(value):
            self.named(value, declared, where)
        return value

    def read(self, text: str, where: str) -> Any:
        """Return what a parser reads in a text, such as an object in ``{class_path: …}``; the text itself if nothing.

        Raises:
            UserError: If it is larger or deeper than what is read anywhere.
        """
        try:
            check_size(text)
        except yaml.YAMLError as error:
            if type(error) in (yaml.YAMLError, yaml.MarkedYAMLError):  # a limit; the loader may read what it cannot
                self.refuse(where, text, f"is too large or too deep ({error})")
        try:
            return get_loader("yaml")(text)
        except (yaml.YAMLError, ValueError, RecursionError):  # the parser takes it for a text, too
            return text

    def mapping(self, value: Mapping[Any, Any], declared: set[type] | None, where: str) -> dict[Any, Any]:
        """Return the description of an object, its arguments, or plain keys with values, as far as they count."""
        if "class_path" in value:
            kinds = self.named(value["class_path"], declared, f"{where}.class_path")
        else:
            kinds = list(declared or ())
        hints = _hints_of(kinds)
        for key in value if hints or "class_path" in value else ():
            self.check_name(key, where)
        left = {key: inner for key, inner in value.items() if key in ("class_path", "init_args", "dict_kwargs")}
        rest = {key: inner for key, inner in value.items() if key not in left}
        for key in ("init_args", "dict_kwargs"):
            if left.get(key) is not None:
                left[key] = self.each(left[key], hints, f"{where}.{key}")
        return left | self.each(rest, hints, where, declared)

    def each(
        self, values: Mapping[Any, Any], hints: Mapping[str, Any], where: str, others: set[type] | None = None
    ) -> dict[Any, Any]:
        """Return arguments without those that are left out.

        Args:
            values: Plain data by name.
            hints: Annotations by name.
            where: Key of the values.
            others: What is declared of arguments without an annotation.
        """
        left = {}
        for name, value in self.arguments(values, where).items():
            if hints or not where:
                self.check_name(name, where)
            key = f"{where}.{name}".lstrip(".")
            if where.startswith("trainer") and value is not None and _is_path(hints.get(name)):
                left[name] = self.leave_out(key, value)
            else:
                left[name] = self.value(value, _declared(hints[name]) if name in hints else others, key)
        return {name: value for name, value in left.items() if value is not _OUT}

    def arguments(self, values: Any, where: str) -> Mapping[str, Any]:
        """Return arguments by name.

        Raises:
            UserError: If it is something else, such as a reference to a place where anything stands.
        """
        if not _is_mapping(values):
            self.refuse(where, values, "is no mapping of arguments")
        return values

    def leave_out(self, where: str, value: Any) -> Any:
        """Note a value that does not count, and return what stands for it."""
        self.left_out[where] = value
        return _OUT

    def check_name(self, name: Any, where: str) -> None:
        """Refuse what is no name of one argument, such as ``init_args.dirpath`` or ``logger+``, which is taken apart.

        Raises:
            UserError: If it is none.
        """
        if not isinstance(name, str) or not name.isidentifier():
            self.refuse(where or "config", name, "is no name of an argument")

    def named(self, name: Any, declared: set[type] | None, where: str) -> list[Any]:
        """Return the class or function of an import path that counts; nothing for a trusted one.

        A name without dots stands for each class that is imported already, among those that the argument declares.
        """
        if not isinstance(name, str) or not (name.isidentifier() or _is_dotted(name)):
            self.refuse(where, name, "is no import path")
        bases = tuple(_PARTS if declared is None else declared - {_Function})
        if name.isidentifier():
            paths = sorted({f"{kind.__module__}.{name}" for base in bases for kind in _derived(base, name)})
            if not paths:
                self.refuse(where, name, "is no class that its argument takes")
            return [kind for path in paths for kind in self.named(path, declared, where)]
        if name in self.known or is_trusted(name):
            return []
        found: Any = pydoc.locate(name) if name.startswith(KNOWN) else None
        if not f"{getattr(found, '__module__', '')}.".startswith(KNOWN):
            self.refuse(where, name)
        made = _hints(found).get("return") if name.startswith(OWN) and not isinstance(found, type) else found
        if not isinstance(made, type) or not bases:
            self.refuse(where, name)
        if not issubclass(made, bases):
            self.refuse(where, name, f"is no {' or '.join(sorted(base.__name__ for base in bases))}")
        return [found]

    def refuse(self, where: str, value: Any, reason: str | None = None) -> NoReturn:
        """Refuse the checkpoint.

        Raises:
            UserError: Always.
        """
        begin = f"{self.where}, which was not written by you; its `{where}` is {str(value)[:120]!r}, which"
        if reason is None:
            raise UserError(
                f"{begin} would run code outside of LitShift and what it is built on. Only if you trust it, add "
                f"--trust {quoted(str(value)[:120])}, in Python `lit_core.trust.trust({str(value)[:120]!r})`."
            )
        raise UserError(f"{begin} {reason}. Give another checkpoint.")


#: Stands for a value that does not count.
_OUT = object()


@cache
def _hints(named: Any) -> dict[str, Any]:
    """Return the annotations of the arguments of a class, those of its bases too, or of a function."""
    hints: dict[str, Any] = {}
    for owner in reversed(named.__mro__) if isinstance(named, type) else [named]:
        function = owner if is_dataclass(owner) else vars(owner).get("__init__") if isinstance(owner, type) else owner
        if function is not None:
            with suppress(Exception):  # whatever the annotations of a class raise when they are evaluated
                hints |= get_type_hints(function)
    return hints


def _hints_of(kinds: Iterable[Any]) -> dict[str, Any]:
    return {key: hint for kind in kinds for key, hint in _hints(kind).items()}


def _derived(base: type, name: str) -> Iterator[type]:
    """Yield a class and those derived from it, if they have this name."""
    if base.__name__ == name:
        yield base
    kinds: list[type] = base.__subclasses__()
    for kind in kinds:
        yield from _derived(kind, name)


def _declared(annotation: Any) -> set[type] | None:
    """Return the classes whose objects an argument takes; empty if it takes plain data only, None if it takes any."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal or annotation is None:
        return set()
    if Callable in (annotation, origin):
        returned = _declared(arguments[-1]) if arguments else None
        return {_Function} | (returned or set())
    if not arguments:
        if not isinstance(annotation, type) or annotation is object or getattr(annotation, "_is_protocol", False):
            return None
        return set() if issubclass(annotation, (*_DATA, Enum)) else {annotation}
    declared: set[type] = set()
    for argument in arguments:
        inner = set() if argument is Ellipsis else _declared(argument)
        if inner is None:
            return None
        declared |= inner
    return declared


def _is_path(annotation: Any) -> bool:
    """Tell whether an argument takes a path."""
    if isinstance(annotation, type) and not get_args(annotation):
        return issubclass(annotation, os.PathLike)
    return any(_is_path(argument) for argument in get_args(annotation))


class _Function:
    """Stands for an argument that takes a function, of which none counts that returns no part."""


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and not isinstance(value, Counter)  # of whose keys a parser makes a list


def _leads_out(value: str) -> bool:
    return value.startswith(("/", "~", "\\", "file:")) or ".." in re.split(r"[/\\]", value)


def _is_dotted(value: str) -> bool:
    return "." in value and all(part.isidentifier() for part in value.split("."))


def _is_file(value: str) -> bool:
    """Tell whether a parser would read a file in place of a text."""
    try:
        Path_fr(value)
    except (TypeError, ValueError, OSError):  # also of what can be no path
        return False
    return True


def _is_importable(name: str) -> bool:
    top = name.partition(".")[0]
    if top in sys.modules or top in sys.stdlib_module_names:
        return True
    with suppress(ImportError, ValueError):
        return importlib.util.find_spec(top) is not None
    return False
