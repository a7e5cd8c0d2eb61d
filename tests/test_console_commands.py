"""The console commands as they are installed: each is started cold, as users start it."""

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


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_and_its_module_are_the_same_command(name):
    package = COMMANDS[name].split(".")[0]
    said = output(Path(sys.executable).with_name(name), "--help")  # a script of its own never starts warm
    assert f"usage: {name} " in said
    assert said == output(sys.executable, "-m", package, "--help")
