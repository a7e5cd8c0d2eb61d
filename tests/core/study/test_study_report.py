"""Tables and figures of a study's rows."""

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from scipy import stats

from lit_core.study.figures import Figure, draw
from lit_core.study.report import Table, markdown, screen_lines
from lit_core.study.rows import ResultRow, means

ROWS = [
    ResultRow({"seed": seed, "model": model}, {"words": words, "auroc": 0.5 + words / 100 + seed / 10}, {})
    for seed in (0, 1)
    for model in ("a", "b")
    for words in (24.0, 48.0)
]


def test_a_measured_column_tells_rows_apart_like_a_label():
    found = means(ROWS, ["model", "words"], ["auroc"], {"model": "a"})
    assert {key: group["auroc"].mean for key, group in found.items()} == {
        ("a", 24.0): pytest.approx(0.79),
        ("a", 48.0): pytest.approx(1.03),
    }
    assert means(ROWS, ["model", "edits"], ["auroc"], {}) == {}


def test_a_figure_without_points_is_left_out_with_a_word(tmp_path, capsys):
    figures = {"Length": Figure("words", "model", ["auroc"]), "Edits": Figure("edits", "model", ["auroc"])}
    assert draw(figures, ROWS, tmp_path) == {"Length": tmp_path / "length.png"}
    assert [path.name for path in tmp_path.iterdir()] == ["length.png"]
    assert "'Edits' is left out" in capsys.readouterr().out


def test_a_ranking_stands_beside_its_baseline_on_the_page_and_on_the_screen():
    rows = [
        ResultRow({"seed": seed, "owner": owner, "selector": selector}, {"held_out": value + seed / 10}, {})
        for seed in (0, 1)
        for owner, selector, value in (("bob", "match", 0.25), ("eve", "match", 0.5), ("eve", "nothing", 0.125))
    ]
    table = Table(["owner"], ["held_out"], {"selector": "match"}, "held_out", {"selector": "nothing"}, {"x": "y " * 99})
    half = stats.t.ppf(0.975, 1) * np.std([0.0, 0.1], ddof=1) / np.sqrt(2)
    means = {"eve": 0.55, "bob": 0.3, "nothing": 0.175}
    expected = [["owner", "held_out", "seeds"], *([k, f"{v:.3f} ± {half:.3f}", 2] for k, v in means.items())]
    assert table.cells(rows) == expected
    shown = screen_lines({"Owners": table, "Plain": Table(["owner"], ["held_out"])}, rows)
    assert shown[:2] == ["", "Owners"] and "Plain" not in shown
    assert [line.split()[0] for line in shown[2:6]] == ["owner", *means]
    assert shown[6].startswith("x: y y") and max(map(len, shown)) <= 80
    page = markdown("T", [], rows, {}, {"Owners": table}, {})
    assert "- x: y y" in page and page.index("| eve") < page.index("| bob") < page.index("| nothing")


def test_the_legend_says_which_label_tells_the_curves_apart(tmp_path, monkeypatch):
    drawn, save = [], Canvas.savefig
    monkeypatch.setattr(
        Canvas, "savefig", lambda canvas, *args, **kwargs: drawn.append(canvas) or save(canvas, *args, **kwargs)
    )
    draw({"Length": Figure("words", "model", ["auroc"])}, ROWS, tmp_path)
    assert [legend.get_title().get_text() for legend in drawn[0].legends] == ["model"]
