"""Kinds of classes that configs can name, found through the exports of the packages, whatever they are called."""

import ast
import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.strategies import Strategy
from torch import nn

import lit_core.cli.lit_cli
from lit_core.callbacks import ReplaySchedule
from lit_core.corpora import Corpus
from lit_core.files.yaml_files import parse_yaml
from lit_core.lightning.schedules import StepSchedule
from lit_core.study import Criterion
from lit_detect import DetectorTask
from lit_detect.attacks import Attack
from lit_detect.detectors import Detector
from lit_detect.formats import TextSource
from lit_moe import MoELanguageModel
from lit_moe.nn import Router
from lit_valuation import ClassifierTask
from lit_valuation.data.planting import Planting
from lit_valuation.encoders import Encoder
from lit_valuation.selectors import Selector
from lit_valuation.sources import LabelledSource

PACKAGES = ("lit_core", "lit_detect", "lit_moe", "lit_valuation")
CONFIGS = Path(__file__).parents[1] / "configs"
#: Callbacks that each command adds to its run by itself.
OF_EACH_RUN = {part for part in vars(lit_core.cli.lit_cli).values() if inspect.isclass(part)}


@dataclass(frozen=True)
class Kind:
    """Classes of a base class, exported by any room, and where configs name them.

    Args:
        base: The base class.
        folder: Pattern of the folders below configs/.
        key: Path of the entry in a config, where * stands for each element of a list or mapping, ** for any path.
        type: What the entry is parsed as; None takes the base class.
        room: The only package whose exports are meant; None takes all.
        own: Whether a config of the folder is that of one class: it is whole, and its comment says how to run it.
    """

    base: type
    folder: str
    key: str
    type: Any = None
    room: str | None = None
    own: bool = True

    @property
    def name(self):
        return f"{self.room or ''}{self.base.__name__}"

    @property
    def classes(self):
        return [
            part
            for part in exports(self.room)
            if issubclass(part, self.base) and part is not self.base and not made_in_code(part)
        ]

    @property
    def paths(self):
        return [
            path for path in sorted(CONFIGS.glob(f"{self.folder}/*.yaml")) if list(entries(content(path), self.key))
        ]


@cache
def content(path):
    """Return what a config says, read once for all kinds."""
    return parse_yaml(path.read_text(), str(path))


def argument(owner, name):
    return get_type_hints(owner.__init__)[name]


KINDS = [
    Kind(Router, "moe/router", "model.init_args.router", argument(MoELanguageModel, "router")),
    Kind(StepSchedule, "moe/scheduler", "model.init_args.scheduler", argument(MoELanguageModel, "scheduler")),
    Kind(Callback, "*/callbacks", "trainer.callbacks+.*"),
    Kind(ReplaySchedule, "*/callbacks", "trainer.callbacks+.*.init_args.fraction"),
    Kind(Corpus, "moe/prepare", "corpora.*"),
    Kind(Selector, "valuation/selector", "selector"),
    Kind(Encoder, "valuation/encoder", "encoder"),
    Kind(LabelledSource, "valuation/*", "source"),
    Kind(Planting, "valuation/divide", "planting"),
    Kind(
        nn.Module, "valuation/fit", "model.init_args.network", argument(ClassifierTask, "network"), "lit_valuation.nn"
    ),
    Kind(Detector, "detect/detector", "model.init_args.detector", argument(DetectorTask, "detector")),
    Kind(Attack, "detect/attack", "attack"),
    Kind(TextSource, "detect/prepare", "sources.*", room="lit_detect.formats"),
    Kind(TextSource, "detect/studies", "**", room="lit_detect.study", own=False),
    Kind(Criterion, "*/studies", "claims.*.criteria.*", own=False),
    Kind(LightningModule, "**", "model", own=False),
    Kind(LightningDataModule, "**", "data", own=False),
    Kind(Strategy, "*/trainer", "trainer.strategy", own=False),
]


def exports(room=None):
    """Return the classes that the packages and their rooms export, each once."""
    names = [room] if room else list(PACKAGES)
    found = {}
    while names:
        module = importlib.import_module(names.pop())
        for name in getattr(module, "__all__", ()):
            part = getattr(module, name)
            if inspect.isclass(part):
                found[part] = None
        if room is None:
            names += [
                inner.name for inner in pkgutil.iter_modules(module.__path__, f"{module.__name__}.") if inner.ispkg
            ]
    return list(found)


def forgotten():
    """Yield, for each class of a kind that its room should export and does not, what to do.

    Left out are private and abstract classes, bases of exported classes, and those that a module of the packages calls.
    """
    bases, exported = tuple({kind.base for kind in KINDS} - {nn.Module}), exports()
    modules = [module for package in PACKAGES for module in modules_of(package)]
    called = {name for module in modules for name in called_names(Path(module.__file__).read_text())}
    for module in modules:
        for name, part in vars(module).items():
            if not inspect.isclass(part) or part.__module__ != module.__name__ or not issubclass(part, bases):
                continue
            helper = name.startswith("_") or name in called or inspect.isabstract(part)
            if not helper and not any(issubclass(other, part) for other in exported):
                yield f"export {name} from {room_of(module)}"


def modules_of(package):
    """Yield the modules of a package at any depth, without packages."""
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not found.ispkg and not found.name.endswith(".__main__"):
            yield importlib.import_module(found.name)


def room_of(module):
    """Return the package whose ``__init__`` exports what a module defines: the first two parts of its name at most."""
    parts = module.__name__.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else parts[0]


def called_names(source):
    """Return the names that a source calls."""
    return {
        node.func.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and hasattr(node.func, "id")
    }


def unfinished():
    """Yield, for each exported class of a kind that is abstract and no base of another one, what it lacks."""
    bases = tuple({kind.base for kind in KINDS} - {nn.Module})
    exported = [part for part in exports() if issubclass(part, bases)]
    for part in exported:
        derived = any(other is not part and issubclass(other, part) for other in exported)
        if inspect.isabstract(part) and not derived:
            yield f"{part.__name__} lacks {', '.join(sorted(part.__abstractmethods__))}"


def made_in_code(part):
    """Tell whether a class is a base class, is added by each command itself, or needs a network that is built."""
    needed = [name for name, value in inspect.signature(part).parameters.items() if value.default is value.empty]
    hints = get_type_hints(part.__init__)
    return inspect.isabstract(part) or part in OF_EACH_RUN or any(hints.get(name) is nn.Module for name in needed)


def entries(node, key):
    """Yield what stands at a key of a config."""
    first, _, rest = key.partition(".")
    if not key:
        if isinstance(node, dict) and "class_path" in node:
            yield node
    elif first in ("*", "**"):
        inner = node if isinstance(node, list) else node.values() if isinstance(node, dict) else ()
        for element in inner:
            yield from entries(element, rest)
            if first == "**":
                yield from entries(element, key)
    elif isinstance(node, dict) and first in node:
        yield from entries(node[first], rest)
