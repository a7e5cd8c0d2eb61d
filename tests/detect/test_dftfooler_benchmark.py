import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import dftfooler


def test_a_quick_run_writes_numbers_and_page_and_both_ways_agree(tmp_path, monkeypatch):
    output = tmp_path / "dftfooler.json"
    monkeypatch.setattr(sys, "argv", ["dftfooler", "--quick", "--output", str(output)])
    dftfooler.main()
    found = json.loads(output.read_text())["cases"][0]["documents"]
    assert len(found) == 2 and all(one["same"] for one in found) and any(one["changed"] for one in found)
    assert "The attacked text is the same in 2 of 2" in (tmp_path / "dftfooler.md").read_text()
