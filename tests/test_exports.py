"""Each class that a package exports and a config can name has a config below configs/, whatever the class is called."""

import pydoc
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser
from kinds import CONFIGS, KINDS, entries, exports, made_in_code
from torch import nn


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
