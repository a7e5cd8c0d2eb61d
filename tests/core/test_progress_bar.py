"""The progress bar of all commands, on a terminal of 80 columns and where there is none."""

import contextlib
import fcntl
import io
import logging
import os
import pty
import re
import struct
import sys
import termios
import warnings

import pytest

from lit_core import progress_bar as module
from lit_core import screen
from lit_core.cli.main import _quiet
from lit_core.screen import progress_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances, in place of that of the process."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    monkeypatch.setattr(module.tqdm, "monitor_interval", 0)
    return now


def test_a_bar_of_a_further_rank_shows_nothing():
    with module.ProgressBar(range(2), desc="Work", file=sys.stderr, disable=True) as bar:
        for _ in bar:
            bar.set_postfix(loss=1.0)
    assert bar.format_dict["prefix"] is None and str(bar)


def test_a_file_gets_a_plain_line_a_minute_and_nothing_else(clock, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with progress_bar(range(100), desc="Work", unit=" texts") as bar:
        bar._time = lambda: clock[0]
        bar.start_t = bar.last_print_t = clock[0]
        for _ in bar:
            clock[0] += 2
    # 30 of 100 items after 60 s, at 0.5 items per second
    assert file.getvalue().splitlines()[0] == "Work: 30 of 100 (30%), 02:20 left, 2.00 s each"
    assert len(file.getvalue().splitlines()) == 3
    assert "\r" not in file.getvalue()


def test_a_short_task_leaves_a_file_empty(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    list(progress_bar(range(100), desc="Work"))
    with progress_bar(desc="Bytes", unit="B", unit_scale=True) as bar:
        bar.update(5)
        bar.reset(total=3)
        bar.set_description("Other")
    assert file.getvalue() == ""


@contextlib.contextmanager
def terminal(monkeypatch, rows=24, columns=80):
    """Standard error as a terminal, and a list that has its lines and what was drawn over afterwards."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    lines = []
    with os.fdopen(follower, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        yield lines
        file.flush()
        os.set_blocking(leader, False)
        parts = []
        with contextlib.suppress(BlockingIOError):
            while part := os.read(leader, 100_000):
                parts.append(part)
        lines += re.split(r"[\r\n]+", re.sub(r"\x1b\[\w", "", b"".join(parts).decode()))
    os.close(leader)


@pytest.mark.parametrize("size", [(24, 80), (0, 0)], ids=["80 columns", "of a size that is not known"])
@pytest.mark.parametrize("name", ["Training", "DFTFooler[DecoderLM, EmbeddedSynonyms]"])
def test_a_terminal_gets_lines_of_at_most_80_columns_and_is_left_clean(size, name, monkeypatch):
    with (
        terminal(monkeypatch, *size) as lines,
        progress_bar(desc=name, total=20, unit=" steps", with_rate=False, mininterval=0) as bar,
    ):
        for _ in range(20):
            bar.set_postfix_str("loss 3.215, accuracy 0.25, 1,234 tokens/s", refresh=False)
            bar.update(1)
    seen = "\n".join(lines)
    assert name[:8] in seen
    assert name != "Training" or "left, loss 3.215, accuracy 0.25, 1,234 tokens/s]" in seen
    assert " 10/20 [" in seen
    assert max(map(len, lines)) <= 80
    assert not lines[-1].strip()


def test_where_the_numbers_fill_the_line_the_bar_gives_way(monkeypatch):
    beside = "loss 0.6446, accuracy 0.6719, 19,359 samples/s"
    with (
        terminal(monkeypatch) as lines,
        progress_bar(desc="Training", total=100, with_rate=False, mininterval=0) as bar,
    ):
        bar.set_description("Training")
        bar.set_postfix_str(beside, refresh=False)
        bar.update(100)
    assert f"Training: 100/100 [00:00 left, {beside}]" in [line.rstrip() for line in lines]


@pytest.mark.parametrize("speak", ["say", "rank_zero_info", "rank_zero_warn", "logger"])
def test_what_is_said_beside_a_bar_has_a_line_of_its_own(speak, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="lightning.pytorch")
    with terminal(monkeypatch) as lines:
        shown = logging.StreamHandler(sys.stderr)
        monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "handlers", [shown])
        monkeypatch.setattr(logging.getLogger("lit_core.beside"), "handlers", [shown])
        monkeypatch.setattr(warnings, "showwarning", lambda message, *_: print(message, file=sys.stderr))
        _quiet()
        with progress_bar(range(5), desc="Work", mininterval=0), warnings.catch_warnings():
            warnings.simplefilter("always")
            match speak:
                case "say":
                    screen.say("a word", error=True)
                case "logger":
                    screen.logger("lit_core.beside").warning("a word")
                case _:
                    getattr(screen, speak)("a word")
    assert any("Work" in line for line in lines)
    assert "a word" in lines
