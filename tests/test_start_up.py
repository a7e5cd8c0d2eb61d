"""Commands start at once: what each imports, by code over all verbs, and what the top help says of them."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from verbs import PACKAGES, own_verbs

import lit_core
from lit_core.cli.lit_cli import LitCLI
from lit_core.cli.main import run
from lit_core.cli.verb import LIGHTNING, first_line

SCRIPT = Path(__file__).with_name("imported.py")
#: Modules of verbs that work without torch.
LIGHT = {
    "lit_core.board.board",
    "lit_core.cli.configs",
    "lit_core.cli.show",
    "lit_core.prepare",
    "lit_core.study.study",
    "lit_detect.data.prepare",
}


def imported(package, *tasks):
    """Return exit code and heavy modules of each task, each started from a bare Python."""
    command = [sys.executable, SCRIPT, package, *map(json.dumps, tasks)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.cold
@pytest.mark.parametrize("package", PACKAGES)
def test_a_command_imports_only_what_it_needs(package):
    verbs = import_module(f"{package}.cli").VERBS
    light = [name for name, verb in verbs.items() if verb.module in LIGHT]
    at_once = [["--version"], ["--help"], ["fti"], *([name, "--config", "nowhere.yaml"] for name in ("fit", "study"))]
    tasks = [*(["run", *line] for line in at_once), *(["load", name] for name in light)]
    tasks += [["import", "lit_core.cli.run_verb"], *(["run", name, "--help"] for name in verbs)]
    found = iter(imported(package, *tasks))
    for line in at_once:
        assert next(found) == [0 if line[0].startswith("--") else 2, []], line
    for name in light:
        assert not {"lightning", "torch"} & {*next(found)[1]}, name
    for name in verbs:
        assert next(found) == [0, ["jsonargparse"]], name


@pytest.mark.cold
@pytest.mark.slow
def test_labelled_data_are_prepared_without_lightning():
    ((_, heavy),) = imported("lit_valuation", ["load", "divide"])
    assert "torch" in heavy and "lightning" not in heavy


def test_what_is_said_to_be_light_is_a_verb():
    assert {verb.module for package in PACKAGES for verb in import_module(f"{package}.cli").VERBS.values()} > LIGHT


@pytest.mark.cold
def test_what_a_command_imports_is_seen():
    assert imported("lit_moe", ["import", "numpy"], ["run", "--version"]) == [[0, ["numpy"]]]


def helped(capsys, program, verb):
    """Return the help of a verb as words, without the classes that its arguments can name, and these."""
    assert run(program, None, {"verb": verb}, ["verb", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    known = r"(?: Known: |, known subclasses: )([\w., ]+?)\.?(?= \(|\))"
    return re.sub(known, "", text), [set(names.split(", ")) for names in re.findall(known, text)]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_help_of_a_verb_is_that_of_its_function(package, capsys):
    for name, verb in import_module(f"{package}.cli").VERBS.items():
        text, classes = helped(capsys, package, verb)
        same, loaded = helped(capsys, package, verb.load())
        assert text == same, name
        for told, found in zip(classes, loaded, strict=True):
            rooms = {path.rpartition(".")[0] for path in told}
            assert told == {path for path in found if path.rpartition(".")[0] in rooms}, name


@pytest.mark.parametrize("package", PACKAGES)
def test_the_top_help_says_whole_what_each_command_is_for(package, capsys):
    main, cli = import_module(f"{package}.cli").main, import_module(f"{package}.cli")
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    purposes = {name: first_line(verb.__doc__) for name, verb in own_verbs()[package].items()}
    purposes |= {name: first_line(verb.load().__doc__) for name, verb in getattr(cli, "LIKE_FIT", {}).items()}
    for name, purpose in (LIGHTNING | purposes).items():
        assert purpose.endswith(".") and f" {name} {purpose}" in " ".join(said.split())


def test_the_commands_of_lightning_are_all_described():
    assert list(LIGHTNING) == list(LitCLI.subcommands())


def test_the_version_is_the_packages_and_tells_where_they_are(capsys):
    assert import_module("lit_moe.cli").main(["--version"]) == 0
    assert capsys.readouterr().out == f"lit-moe {lit_core.__version__} from {Path(lit_core.__file__).parent}\n"


@pytest.mark.parametrize("name", ["lit_core.cli", *PACKAGES])
def test_exports_that_are_imported_late_are_those_of_all(name):
    package = import_module(name)
    assert {*package.__all__} <= {*dir(package)}
    for export in package.__all__:
        assert getattr(package, export).__name__ == export
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing
