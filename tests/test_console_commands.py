"""The console commands as they are installed; one is started cold, as users start it."""

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

COMMANDS = {point.name: point.module for point in distribution("lit-shift").entry_points}


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(name):
    return Path(sys.executable).with_name(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_and_its_module_are_the_same_command(name):
    run = f"import runpy; runpy.run_path({str(script(name))!r}, run_name='__main__')"
    said = output(sys.executable, "-c", run, "--help")
    assert f"usage: {name} " in said
    assert said == output(sys.executable, "-m", COMMANDS[name].split(".")[0], "--help")


def test_a_script_starts_by_itself():
    """One for all, since importing torch takes its time: they are alike but for the module."""
    assert len({script(name).read_text().replace(module, "module") for name, module in COMMANDS.items()}) == 1
    name = min(COMMANDS)
    assert f"usage: {name} " in output(script(name), "--help")  # a script of its own never starts warm
