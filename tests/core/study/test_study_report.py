"""Tables and figures of a study's rows."""

import pytest

from lit_core.study.figures import Figure, draw
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
