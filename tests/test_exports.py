"""Each class that a package exports and a config can name has a config below configs/, whatever the class is called."""

import importlib
import inspect
import pkgutil
import pydoc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.strategies import Strategy
from torch import nn

import lit_core.cli.lit_cli
from lit_core.callbacks import ReplaySchedule
from lit_core.corpora import Corpus
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

CONFIGS = Path(__file__).parents[1] / "configs"
NETWORKS = "lit_valuation.nn"
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
            path
            for path in sorted(CONFIGS.glob(f"{self.folder}/*.yaml"))
            if list(entries(yaml.safe_load(path.read_text()), self.key))
        ]


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
    Kind(LabelledSource, "valuation/prepare", "source"),
    Kind(Planting, "valuation/prepare", "planting"),
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
    names = [room] if room else ["lit_core", "lit_detect", "lit_moe", "lit_valuation"]
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


def named_by(kind, path):
    """Return the classes that a config names."""
    text = path.read_text().replace("${trainer.max_steps}", "100")
    found = set()
    for entry in entries(yaml.safe_load(text), kind.key):
        name = entry["class_path"]
        if kind.own:
            parser = ArgumentParser(exit_on_error=False)
            parser.add_argument("--part", type=kind.type or kind.base)
            name = parser.parse_object({"part": entry}).part.class_path
        found.add(pydoc.locate(name))
    return found


def of_kinds(of):
    return [pytest.param(kind, part, id=f"{kind.name}-{label(part)}") for kind in KINDS for part in getattr(kind, of)]


def label(part):
    return part.stem if isinstance(part, Path) else part.__name__


def test_each_exported_class_of_a_kind_is_walked():
    bases = tuple({kind.base for kind in KINDS} - {nn.Module})
    walked = {part for kind in KINDS for part in kind.classes} | {kind.base for kind in KINDS}
    assert {part for part in exports() if issubclass(part, bases) and not made_in_code(part)} <= walked


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_exported_class_has_a_config(kind):
    assert kind.classes and kind.paths
    named = set().union(*(named_by(kind, path) for path in kind.paths))
    missing = [part.__name__ for part in kind.classes if part not in named]
    assert not missing, f"write a config in configs/{kind.folder}/ that names it at {kind.key}"


@pytest.mark.parametrize(("kind", "path"), [case for case in of_kinds("paths") if case.values[0].own])
def test_each_config_of_a_part_names_exported_classes_and_its_command(kind, path):
    assert named_by(kind, path) <= set(kind.classes)
    commands = [line for line in path.read_text().splitlines() if line.startswith("#   lit-")]
    assert any(f"--config configs/{path.relative_to(CONFIGS)}" in command for command in commands)


@pytest.mark.parametrize(("kind", "part"), of_kinds("classes"))
def test_each_argument_has_its_help(kind, part):
    parser = ArgumentParser()
    parser.add_class_arguments(part, "part", fail_untyped=False)
    for action in parser._actions:
        if action.dest.startswith("part."):
            assert action.help and action.help.strip().endswith("."), action.dest


@pytest.mark.parametrize(("kind", "part"), of_kinds("classes"))
def test_each_exported_class_is_in_the_docs(kind, part):
    docs = "\n".join(path.read_text() for path in (CONFIGS.parent / "docs").glob("*.md"))
    assert f"`{part.__name__}`" in docs, f"add a row for {part.__name__} to the page of its package in docs/"
