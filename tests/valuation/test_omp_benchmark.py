import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import omp


def test_a_quick_run_writes_numbers_and_page_and_all_choose_alike(tmp_path, monkeypatch):
    output = tmp_path / "omp.json"
    monkeypatch.setattr(sys, "argv", ["omp", "--quick", "--output", str(output)])
    monkeypatch.setattr(omp, "run", in_this_process)
    omp.main()
    result = json.loads(output.read_text())
    assert result["same"]["equal"] and result["same"]["residual_difference"] < 1e-9
    residuals = [one["residual"] for one in result["cases"][0]["contenders"].values()]
    assert max(residuals) - min(residuals) < 0.05, "penalty and sign cost little"
    assert "same samples in the same order" in (tmp_path / "omp.md").read_text()


def in_this_process(name, size, dtype="float32"):
    gradients, target = omp.draw(size, getattr(omp.torch, dtype))
    support, residual = omp.WAYS[name](gradients, target, size["k"])
    return {"seconds": 1.0, "mebibytes": 1.0, "support": support, "residual": residual}
