import json
import re
from pathlib import Path

import numpy as np
import pytest
from elements import Page
from hostile_names import NAME, runner
from lightning.pytorch import Trainer
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars

from lit_core.board.board import board
from lit_core.board.runs import Run
from lit_core.errors import UserError
from lit_core.lightning.loggers import run_loggers
from lit_core.lightning.pictures import add_images, add_text
from lit_core.lightning.tensorboard import add_hparams, add_layout
from lit_moe.cli import main as moe


def write_run(folder, key="val/a/loss", record=None, values=(3.0, 2.0, 1.5)):
    """Write what a run writes: metrics, layout, pictures, texts and a record."""
    trainer = Trainer(logger=run_loggers(Path(folder), None), enable_checkpointing=False, accelerator="cpu")
    add_layout(trainer, {"the category": {"the chart": [re.escape(key)]}})
    add_hparams(trainer, {"a": 1})
    add_images(trainer, f"{key}/image", [np.zeros((4, 4, 3), np.uint8)], 0)
    add_text(trainer, f"{key}/text", f"first line\n  {key}", 0)
    for step, value in enumerate(values):
        for logger in trainer.loggers:
            logger.log_metrics({key: value, "epoch": 0.0}, step)
    for logger in trainer.loggers:
        logger.finalize("success")
    if record:
        Path(folder, "run.json").write_text(json.dumps({"format": "litshift-record", "version": 1, **record}))


def recorded(replay):
    session = {"command": "lit-moe fit", "start": "2026-01-01T00:00:00+00:00", "end": None, "exit": None}
    callbacks = [{"class_path": "lit_moe.ReplayMixing", "init_args": {"fraction": replay}}]
    return {"sessions": [session], "seeds": {"seed_everything": 7}, "config": {"trainer": {"callbacks": callbacks}}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_page_of_a_run_shows_all_and_loads_nothing(place):
    write_run("run", record=recorded(0.3))
    board(["run"], "page.html")
    page = Page.read("page.html")
    assert not page.loaded
    for word in ("the category", "the chart", "val/a/loss", "first line", "lit-moe fit", "seed_everything", "0.3"):
        assert word in page.text, word
    assert page.elements.count("svg") == 1 and page.elements.count("img") == 1
    assert Path("page.html.run.json").is_file()


def test_the_same_run_gives_the_same_page(place):
    write_run("run", record=recorded(0.3))
    board(["run"], "one.html")
    board(["run"], "two.html")
    assert Path("one.html").read_text() == Path("two.html").read_text()


def test_runs_beside_each_other_show_what_differs(place):
    for name, replay in (("none", 0.0), ("some", 0.3)):
        write_run(f"runs/{name}", record=recorded(replay))
    board(["runs"], "page.html")
    page = Page.read("page.html")
    assert "2 runs" in page.text
    assert "ReplayMixing.fraction|0.0|0.3" in "|".join(page.cells)


def test_a_page_is_light_and_dark(place):
    write_run("run")
    board(["run"], "page.html")
    page = Path("page.html").read_text()
    style, svg = (re.search(f"<{tag}[ >].*?</{tag}>", page, re.DOTALL)[0] for tag in ("style", "svg"))
    assert "prefers-color-scheme: dark" in style and not re.findall(r": ?#\w{6}", svg)
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= set(re.findall(r"(--[\w-]+):", style))


def test_names_of_others_are_text(tmp_path, monkeypatch, capfd):
    run = runner(tmp_path, monkeypatch, capfd)
    write_run(tmp_path / "run", NAME, {**recorded(NAME), "versions": {NAME: NAME}})
    write_run(tmp_path / "other", "val/a/loss", recorded(1))
    run(moe, "board", "run", "--output", "one.html")
    run(moe, "board", "run", "other", "--output", "two.html")
    for name in ("one", "two"):
        page = Page.read(f"{name}.html")
        assert not page.loaded and "alert(1)" in page.text


def test_a_report_of_others_is_text(tmp_path, monkeypatch, capfd):
    run = runner(tmp_path, monkeypatch, capfd)
    (tmp_path / "study").mkdir()
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    text = "\n\n".join(
        [
            f"# <script>alert(1)</script> {NAME}",
            "[x](javascript:alert(1)) <https://a.b> ![p](http://a.b/c.png) [y]: javascript:alert(1)",
            "![p](../secret.png)",
            "![p](/etc/passwd.png)",
            "<img src=x onerror=alert(1)>",
            "| a | <b> |\n|---|---|\n| 1 | \u202e&#x202e; |",
            "![mine](own.png)",
            "a & b",
        ]
    )
    (tmp_path / "study" / "own.png").write_bytes(b"\x89PNG\r\n\x1a\nown")
    (tmp_path / "study" / "report.md").write_text(text)
    monkeypatch.setattr("hostile_names.check_files", lambda folder: None)  # the report itself is hostile
    run(moe, "board", "study", "--output", "page.html")
    page, written = Page.read("page.html"), (tmp_path / "page.html").read_text()
    assert not page.loaded and "alert(1)" in page.text and "table" in page.elements
    assert page.elements.count("img") == 1 and "a & b" in page.text
    assert "<script" not in written and all(line.isprintable() for line in written.split("\n"))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["nowhere"], "paths names nowhere, which is neither a run that has logged something, nor a report"),
        (["damaged"], "metrics.csv has 'x' as a of step 0, but it must be a number"),
        (["hostile"], "The events for TensorBoard in hostile are damaged"),
    ],
)
def test_what_cannot_be_read_is_told_and_nothing_written(paths, message, place):
    Path("damaged").mkdir()
    Path("damaged/metrics.csv").write_text("step,a\r\n0,x\r\n")
    write_run("hostile")
    with SummaryWriter("hostile") as writer:
        layout = custom_scalars({})
        layout.value[0].tensor.string_val[0] = b"\xff"
        writer._get_file_writer().add_summary(layout)
    with pytest.raises(UserError, match=re.escape(message)):
        board(paths, "page.html")
    assert not Path("page.html").exists()


def test_events_that_a_kill_truncated_are_shown_as_far_as_they_go(place):
    write_run("run")
    for events in Path("run").glob("events*"):
        events.write_bytes(events.read_bytes()[:-30])
    board(["run"], "page.html")
    assert "the chart" in Page.read("page.html").text


def test_a_run_without_events_shows_its_losses(place):
    write_run("run")
    for events in Path("run").glob("events*"):
        events.unlink()
    board(["run"], "page.html")
    page = Page.read("page.html")
    assert "validation loss" in page.text and page.elements.count("svg") == 1


def test_without_matplotlib_the_page_has_all_but_the_charts(place, monkeypatch, capsys):
    monkeypatch.setattr("lit_core.board.page._MATPLOTLIB", False)
    write_run("run", record=recorded(0.3))
    board(["run"], "page.html")
    page = Page.read("page.html")
    assert "svg" not in page.elements and "val/a/loss" in page.text
    assert 'pip install "lit-shift[plot]"' in capsys.readouterr().out


@pytest.mark.parametrize("pattern", ["(a+)+$", "a*a*a*a*x", "a{1,99}{1,99}x", "a.*.*.*x"])
def test_a_chart_of_others_does_not_search_for_ever(pattern):
    run = Run("x", {"a" * 200: [(0, 1.0), (1, 2.0)], pattern: [(0, 1.0), (1, 2.0)]}, {}, {}, [])
    assert run.keys([pattern]) == [pattern]
