"""Commands start at once: what each imports, by code over all verbs, and what the top help says of them."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from imported import HEAVY
from verbs import PACKAGES, own_verbs

import lit_core
from lit_core.cli.lit_cli import LitCLI
from lit_core.cli.verb import LIGHTNING, first_line

SCRIPT = Path(__file__).with_name("imported.py")


def imported(package, *lines):
    """Return exit code and heavy modules of each command line, started from a bare Python."""
    command = [sys.executable, SCRIPT, package, *map(json.dumps, lines)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.cold
@pytest.mark.parametrize("package", PACKAGES)
def test_what_needs_no_work_imports_nothing_heavy(package):
    lines = [["--version"], ["--help"], ["fti"], *([name, "--config", "nowhere.yaml"] for name in commands(package))]
    found = imported(package, *lines)
    assert [code for code, _ in found] == [0, 0, *[2] * (len(lines) - 2)]
    assert not [(line, heavy) for line, (_, heavy) in zip(lines, found, strict=True) if heavy]


@pytest.mark.cold
def test_what_a_command_imports_is_seen():
    ((code, heavy),) = imported("lit_moe", ["configs"])
    assert code == 0 and "jsonargparse" in heavy and set(heavy) <= set(HEAVY)


def commands(package):
    cli = import_module(f"{package}.cli")
    return [*LIGHTNING, *cli.VERBS, *getattr(cli, "LIKE_FIT", ())]


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


def test_the_version_is_the_packages(capsys):
    assert import_module("lit_moe.cli").main(["--version"]) == 0
    assert capsys.readouterr().out == f"lit-moe {lit_core.__version__}\n"


@pytest.mark.parametrize("name", ["lit_core.cli", *PACKAGES])
def test_exports_that_are_imported_late_are_those_of_all(name):
    package = import_module(name)
    assert {*package.__all__} <= {*dir(package)}
    for export in package.__all__:
        assert getattr(package, export).__name__ == export
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing
