import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("router_balance.py", ["prose forgotten: +", "MRI on prose 0.", "floor 0.250"]),
        ("router_balance_on_mixtral.py", ["layer 1: MRI 0.", "MRI on prose 0.", "floor 0.250"]),
        pytest.param(
            "moe_in_a_vision_transformer.py",
            ["accuracy on held-out digits: 0.9", "MRI 0.", "floor 0.250"],
            marks=pytest.mark.slow,  # it trains until it reads digits
        ),
        ("gradient_matching.py", ["chosen: 150 of 1200 samples", "accuracy on held-out digits: 0.9"]),
        ("mixture_stream.py", ["drawn: 1792 rows of code, 768 of prose", "weights equal"]),
    ],
)
def test_the_examples_run(script, words, tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / script],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert all(word in result.stdout for word in words), result.stdout


# slow: it trains each model three times on two processes, and each command starts anew
@pytest.mark.slow
def test_mixtures_of_transformers_are_killed_resumed_exported_and_loaded(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / "mixtures_of_transformers.py"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert result.returncode == 0, result.stderr
    for model in ("deepseek_v3", "gpt_oss"):
        assert re.search(rf"{model}: killed after step [369], resumed to 12; 0 tensors differ", result.stdout)
        apart = re.search(rf"{model}: logits of the export that transformers loads differ by (\S+),", result.stdout)
        assert float(apart[1]) < 1e-5


def run_commands(tmp_path, *commands):
    script = tmp_path / "script.py"
    script.write_text(f"from commands import run\n\nif __name__ == '__main__':\n    run{commands}\n")
    paths = os.pathsep.join([str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run([sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_commands_of_a_quickstart_run_side_by_side_and_are_shown_in_their_order(tmp_path):
    commands = ("lit-moe configs balance", "lit-detect configs gltr", "lit-valuation configs mycroft")
    result = run_commands(tmp_path, *commands)
    assert result.returncode == 0, result.stderr
    words = ["$ lit-moe", "configs/moe/", "$ lit-detect", "configs/detect/", "$ lit-valuation", "configs/valuation/"]
    places = [result.stdout.find(word) for word in words]
    assert places == sorted(places) and places[0] >= 0, result.stdout


def test_a_command_of_a_quickstart_that_fails_ends_it_with_its_code(tmp_path):
    result = run_commands(tmp_path, "lit-moe configs", "lit-moe fitt")
    assert result.returncode == 2 and "fitt is not a command" in result.stdout


def test_the_schedules_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    runpy.run_path(str(ROOT / "docs" / "img" / "schedules.py"))["draw"](str(tmp_path / "schedules.png"))
    assert (tmp_path / "schedules.png").read_bytes().startswith(b"\x89PNG")
