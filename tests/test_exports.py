"""Each class that a package exports and a config can name has a config below configs/, whatever the class is called."""

import pydoc
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from kinds import CONFIGS, KINDS, entries, exports, forgotten, made_in_code, unfinished
from torch import nn

import lit_moe.nn
from lit_core.files.yaml_files import parse_yaml
from lit_moe.nn import Router


def named_by(kind, path):
    """Return the classes that a config names."""
    text = path.read_text().replace("${trainer.max_steps}", "100")
    found = set()
    for entry in entries(parse_yaml(text, str(path)), kind.key):
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


def test_no_class_of_a_kind_is_left_out_of_the_exports():
    missing = list(forgotten())
    assert not missing, "; ".join(missing)


def test_each_exported_class_can_be_built_or_is_a_base():
    missing = list(unfinished())
    assert not missing, "; ".join(missing)


def test_a_forgotten_export_and_an_abstract_class_are_seen(monkeypatch):
    monkeypatch.setattr(lit_moe.nn, "__all__", [name for name in lit_moe.nn.__all__ if name != "UniformRouter"])
    assert list(forgotten()) == ["export UniformRouter from lit_moe.nn"]

    class Unwritten(Router):
        pass

    monkeypatch.setattr(lit_moe.nn, "Unwritten", Unwritten, raising=False)
    monkeypatch.setattr(lit_moe.nn, "__all__", [*lit_moe.nn.__all__, "Unwritten"])
    assert list(unfinished()) == ["Unwritten lacks scores"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_exported_class_has_a_config(kind):
    assert kind.classes and kind.paths
    named = set().union(*(named_by(kind, path) for path in kind.paths))
    missing = ", ".join(part.__name__ for part in kind.classes if part not in named)
    assert not missing, f"write a config in configs/{kind.folder}/ that names {missing} at {kind.key}"


@pytest.mark.parametrize(("kind", "path"), [case for case in of_kinds("paths") if case.values[0].own])
def test_each_config_of_a_part_names_exported_classes_and_its_command(kind, path):
    assert named_by(kind, path) <= set(kind.classes)
    commands = [line for line in path.read_text().splitlines() if line.startswith("#   lit-")]
    runs = any(f"--config configs/{path.relative_to(CONFIGS)}" in command for command in commands)
    assert runs, f"write the command that runs it under the first line of {path}"


@pytest.mark.parametrize(("kind", "part"), of_kinds("classes"))
def test_each_argument_has_its_help(kind, part):
    parser = ArgumentParser()
    parser.add_class_arguments(part, "part", fail_untyped=False)
    for action in parser._actions:
        if action.dest.startswith("part."):
            argument, described = action.dest.removeprefix("part."), (action.help or "").strip().endswith(".")
            assert described, (
                f"describe {argument} under Args: of {part.__name__}, in a sentence that ends with a full stop"
            )


@pytest.mark.parametrize(("kind", "part"), of_kinds("classes"))
def test_each_exported_class_is_in_the_docs(kind, part):
    docs = "\n".join(path.read_text() for path in (CONFIGS.parent / "docs").glob("*.md"))
    has_row = f"`{part.__name__}`" in docs
    assert has_row, f"add a row for {part.__name__} to the page of its package in docs/"
