"""The simulation behind docs/results/intervals.md, on a small population that is made up."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import intervals


def test_ours_hold_the_truth_where_a_bootstrap_does_not():
    generator = torch.Generator().manual_seed(0)
    human, machine = torch.randn(2, 4000, generator=generator, dtype=torch.float64)
    rows = intervals.simulate(human, machine + 3, draws=30, sizes=(5, 20), shifts=(0.0,))
    assert len(rows) == 2 * (2 * len(intervals.SHARES) + 1 + len(intervals.RATES))
    assert all(len(row) == len(intervals.COLUMNS) for row in rows)
    table = {(row[0], row[1]): row[3:] for row in rows}
    assert table["TPR at 5%", "5"][0] == "too few" != table["TPR at 5%", "20"][0]
    for name in ("share 0.02", "AUROC"):
        ours, former = (float(table[name, "5"][column].rstrip("%")) for column in (0, 3))
        assert ours >= 93 and former < 80
