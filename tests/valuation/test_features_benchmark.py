import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import features


def test_a_quick_run_writes_numbers_and_page(tmp_path, monkeypatch, capsys):
    output = tmp_path / "features.json"
    monkeypatch.setattr(sys, "argv", ["features", "--quick", "--output", str(output)])
    features.main()
    page = (tmp_path / "features.md").read_text()
    assert page in capsys.readouterr().out
    search, values = json.loads(output.read_text())["cases"]
    for case, everyone in ((search, features.searches()), (values, (features.OURS, features.PYDVL))):
        assert set(case["ratios"]) == set(everyone) - set(case["left_out"]), "a peer is timed or said to be missing"
        assert all(f"{name} is left out" in page for name in case["left_out"])
