"""No function below the command line has more than ten parameters."""

import inspect
import pkgutil
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module

import pytest
from lightning.pytorch import LightningDataModule
from verbs import own_verbs

import lit_core
import lit_detect
import lit_moe
import lit_valuation

LIMIT = 10
PACKAGES = (lit_core, lit_moe, lit_valuation, lit_detect)


def modules():
    for package in PACKAGES:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                yield import_module(found.name)


def functions():
    """Yield each function and method that is defined in our packages, with its name."""
    for module in modules():
        for value in vars(module).values():
            members = [value, *vars(value).values()] if inspect.isclass(value) else [value]
            for member in members:
                function = inspect.unwrap(getattr(member, "__func__", member))
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    yield f"{module.__name__}.{function.__qualname__}", function


@cache
def configurable():
    """The names of each ``__init__`` whose parameters are keys of a config."""
    names = set()
    for module in modules():
        for name, value in vars(module).items():
            named = name in getattr(module, "__all__", ())
            if inspect.isclass(value) and (named or is_dataclass(value) or issubclass(value, LightningDataModule)):
                names.add(f"{value.__module__}.{value.__qualname__}.__init__")
    return names


@pytest.fixture(scope="module")
def verbs():
    """The functions whose parameters are the options of a command."""
    functions = [verb for verbs in own_verbs().values() for verb in verbs.values()]
    return {f"{verb.__module__}.{verb.__qualname__}": verb for verb in functions}


def test_what_takes_many_values_takes_an_options_object(verbs):
    wide = set()
    for name, function in functions():
        parameters = [key for key in inspect.signature(function).parameters if key not in ("self", "cls")]
        if len(parameters) > LIMIT and name not in verbs and name not in configurable():
            wide.add(f"{name} has {len(parameters)}")
    assert len(verbs) > 10 and not wide
