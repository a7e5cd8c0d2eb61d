"""Lists the import paths that a config or a checkpoint of the installed packages can hold.

Usage, in the environment of the revision to list: ``python tools/list_import_paths.py > import_paths.txt``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.strategies import Strategy
from torch import Tensor

PACKAGES = ("lit_core", "lit_detect", "lit_moe", "lit_valuation")
#: Where the classes are whose values a config holds as they are.
PLAIN = ("builtins", "numpy", "pathlib", "types", "typing")
TRAINER_PARTS = (Callback, LightningDataModule, LightningModule, Logger, CheckpointIO, Strategy)


def modules() -> list[ModuleType]:
    """Import all modules of the packages, but for the scripts among the shipped data."""
    found = []
    for package in map(importlib.import_module, PACKAGES):
        names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
        found += [package, *(importlib.import_module(name) for name in names if not name.endswith("__main__"))]
    return found


def public_things(module: ModuleType) -> dict[str, Any]:
    """Return the public classes and functions that a module defines or exports, by import path."""
    things = {}
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__ or name in getattr(module, "__all__", ())
        if own and not name.startswith("_") and (inspect.isclass(value) or inspect.isfunction(value)):
            things[f"{module.__name__}.{name}"] = value
    return things


def classes_in(hint: Any) -> Iterator[type]:
    """Return the classes of which a value of a type hint can be an instance, without those of plain values."""
    parts = typing.get_args(hint)
    if inspect.isclass(hint) and not parts and hint is not Tensor and hint.__module__ not in PLAIN:
        yield hint
    for part in parts:
        for each in part if isinstance(part, list) else [part]:
            yield from classes_in(each)


def argument_classes(thing: Any) -> set[type]:
    """Return the classes of which an argument of a class or function can be an instance."""
    function = thing.__init__ if inspect.isclass(thing) else thing
    try:
        hints = typing.get_type_hints(function)
    except (NameError, TypeError):  # of a name for type checkers only, or of a class without a constructor of its own
        return set()
    return {each for name, hint in hints.items() if name != "return" for each in classes_in(hint)}


def result_class(thing: Any) -> Any:
    """Return the class of what is made by calling a class or function; None where that is not said."""
    if inspect.isclass(thing):
        return thing
    try:
        result = typing.get_type_hints(thing).get("return")
    except NameError:
        return None
    return result if inspect.isclass(result) else None


def verbs() -> list[Any]:
    """Return the functions behind the packages' own commands."""
    found: list[Any] = []
    for package in PACKAGES[1:]:
        cli = importlib.import_module(f"{package}.cli")
        cli.run = lambda program, commands, verbs, args, like_fit=None: found.extend([*verbs.values()])  # type: ignore
        cli.main([])
    return found


def named_in_configs() -> set[str]:
    """Return the values of ``class_path`` and ``function`` in the packaged configs."""

    def values(tree: Any) -> Iterator[str]:
        if isinstance(tree, dict):
            yield from (value for key, value in tree.items() if key in ("class_path", "function"))
            tree = list(tree.values())
        for value in tree if isinstance(tree, list) else ():
            yield from values(value)

    folder = Path(__file__).parents[1] / "configs"
    return {name for path in folder.rglob("*.yaml") for name in values(yaml.safe_load(path.read_text()))}


def import_paths() -> list[str]:
    """Return the import paths of all classes and functions that an argument can name, sorted."""
    things = {path: thing for module in modules() for path, thing in public_things(module).items()}
    named = [things[path] for path in named_in_configs() if path in things]
    accepted: set[type] = {*TRAINER_PARTS}
    for thing in named:
        accepted |= {base for base in _bases(thing) if base.__module__.startswith("lit_")}
    for verb in verbs():
        accepted |= argument_classes(verb)
    chosen: dict[str, Any] = {}
    while True:
        fits = {path: thing for path, thing in things.items() if thing in named or _is_accepted(thing, accepted)}
        if len(fits) == len(chosen):
            return sorted(chosen)
        chosen = fits
        for thing in fits.values():
            accepted |= argument_classes(thing)


def _bases(thing: Any) -> Iterable[type]:
    return inspect.getmro(result_class(thing) or object)


def _is_accepted(thing: Any, accepted: set[type]) -> bool:
    return any(base in accepted for base in _bases(thing))


if __name__ == "__main__":
    print("\n".join(import_paths()))
