import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import generation


@pytest.mark.slow
def test_quick_run_writes_numbers_and_page(tmp_path, monkeypatch, capsys):
    output = tmp_path / "generation.json"
    monkeypatch.setattr(sys, "argv", ["generation", "--quick", "--output", str(output)])
    generation.main()
    result = json.loads(output.read_text())
    page = (tmp_path / "generation.md").read_text()
    assert page.strip() in capsys.readouterr().out
    assert len(result["cases"]) == 2 * len(generation.SETTINGS)
    assert result["same_greedy"]["fp32"] == 1
    assert page.count("\n| ") == 2 + len(result["cases"])
