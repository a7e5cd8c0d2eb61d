"""The Tab key, as argcomplete's function in the shell asks for it; started as a command of its own."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("argcomplete")


def completed(line, folder, shell="bash"):
    """Return what a command line that was typed can be completed to."""
    answer = folder / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "COMP_LINE": line}
    asked |= {"_ARGCOMPLETE_SHELL": "zsh"} if shell == "zsh" else {}
    environment = os.environ | asked | {"COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    subprocess.run([sys.executable, "-m", line.split()[0].replace("-", "_")], env=environment, check=True, cwd=folder)
    return [word.strip() for word in answer.read_text().split("\n")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lit-moe pre", ["predict", "prepare"]),
        ("lit-detect calibrate --human", ["--human"]),
        ("lit-valuation select --selector", ["--selector", "--selector.help"]),
        ("lit-moe fit --trainer.max_s", ["--trainer.max_steps"]),
        ("lit-moe fit --config configs/moe/router/si", ["configs/moe/router/sinkhorn.yaml"]),
    ],
)
def test_commands_options_and_configs_are_completed(line, words, tmp_path):
    assert set(words) <= set(completed(line, tmp_path))


def test_zsh_shows_what_commands_do(tmp_path):
    assert "predict:Write what a model or a checkpoint predicts for new data." in completed(
        "lit-moe pre", tmp_path, "zsh"
    )


def test_without_argcomplete_a_command_runs_as_always():
    blocked = (
        "import sys; sys.modules['argcomplete'] = None; from lit_moe.cli import main; sys.exit(main(['--version']))"
    )
    environment = os.environ | {"_ARGCOMPLETE": "1"}
    done = subprocess.run([sys.executable, "-c", blocked], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("lit-moe ")
