"""Who `lit-detect test` and `report` say is called machine wrongly: counts by hand, intervals of scipy."""

import pytest
from scipy.stats import binomtest

from lit_core.statistics.proportion import exact_ends
from lit_detect.commands.report import _of
from lit_detect.records import HUMAN, MACHINE
from lit_detect.report.called import Called, called_lines, share
from lit_detect.report.pages import ReportRow


@pytest.mark.parametrize(("hits", "n"), [(0, 50), (2, 50), (50, 50)])
def test_people_of_1000_with_the_exact_interval(hits, n):
    exact = binomtest(hits, n).proportion_ci(0.95, "exact")
    line = called_lines([Called("texts", share(hits, n), share(1, 4))])[1]
    assert line.split()[:4] == [
        *("texts", f"{1000 * hits / n:.0f}", f"({1000 * exact.low:.0f}-{1000 * exact.high:.0f})", str(n))
    ]
    assert line.split()[4:] == ["250", "(6-806)", "4"]


def test_the_table_fits_a_small_screen_and_says_what_is_missing():
    rows = [Called(f"a-source-with-a-long-name-{number}", share(9999, 10_000), None) for number in range(20)]
    lines = called_lines(rows)
    assert max(map(len, lines)) <= 80 and len(lines) <= 15
    assert lines[1].split()[-2:] == ["-", "0"]
    assert "and 12 more" in lines


def test_a_report_counts_the_human_texts_that_its_recall_misses():
    row = ReportRow("x", "all", {}, {"recall/human": share(17, 20), "recall/machine": share(9, 10), "human": 20.0})
    wrongly = _of(row, HUMAN)
    assert (wrongly.mean, wrongly.low, wrongly.high) == pytest.approx((3 / 20, *exact_ends(3, 20)))
    assert _of(row, MACHINE) == share(9, 10)
