import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("router_balance.py", ["prose forgotten: +", "MRI on prose 0.", "floor 0.250"]),
        ("mixture_stream.py", ["drawn: 1792 rows of code, 768 of prose", "weights equal"]),
    ],
)
def test_the_examples_run(script, words, tmp_path):
    result = subprocess.run(
        [sys.executable, EXAMPLES / script],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert all(word in result.stdout for word in words), result.stdout
