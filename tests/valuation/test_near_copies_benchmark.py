import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import near_copies


def test_a_quick_run_writes_numbers_and_page(tmp_path, monkeypatch, capsys):
    output = tmp_path / "near_copies.json"
    monkeypatch.setattr(sys, "argv", ["near_copies", "--quick", "--output", str(output)])
    near_copies.main()
    page = (tmp_path / "near_copies.md").read_text()
    assert page in capsys.readouterr().out
    for case in json.loads(output.read_text())["cases"]:
        assert set(case["ratios"]) == {near_copies.OURS, near_copies.BRUTE, near_copies.FAISS} - set(case["left_out"])
        assert case["changed_copies"] == near_copies.CHANGED and case["honest_copies"] == 0
        assert case["measured_share"] < 0.02
        assert f"{case['data']}, {case['own']}" in page
