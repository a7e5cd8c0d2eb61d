"""The progress bar of all commands, on a terminal of 80 columns and where there is none."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios

import pytest

from lit_core import progress_bar as module
from lit_core.screen import progress_bar


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test advances, in place of that of the process."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    monkeypatch.setattr(module.tqdm, "monitor_interval", 0)
    return now


def test_a_file_gets_a_plain_line_a_minute_and_nothing_else(clock, monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with progress_bar(range(100), desc="Work", unit=" texts") as bar:
        bar._time = lambda: clock[0]
        bar.start_t = bar.last_print_t = clock[0]
        for _ in bar:
            clock[0] += 2
    # 30 of 100 items after 60 s, at 0.5 items per second
    assert file.getvalue().splitlines()[0] == "Work: 30 of 100 (30%), 02:20 left,  2.00s/ texts"
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


@pytest.mark.parametrize("size", [(24, 80), (0, 0)], ids=["80 columns", "of a size that is not known"])
@pytest.mark.parametrize("name", ["Training", "DFTFooler[DecoderLM, EmbeddedSynonyms]"])
def test_a_terminal_gets_lines_of_at_most_80_columns_and_is_left_clean(size, name, monkeypatch):
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_bar(desc=name, total=20, unit=" steps", with_rate=False, mininterval=0) as bar:
            for _ in range(20):
                bar.set_postfix_str("loss 3.215, accuracy 0.25, 1,234 tokens/s", refresh=False)
                bar.update(1)
        terminal.flush()
        os.set_blocking(leader, False)
        parts = []
        with contextlib.suppress(BlockingIOError):
            while part := os.read(leader, 100_000):
                parts.append(part)
        seen = b"".join(parts).decode()
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[\w", "", seen))
    assert name[:8] in seen
    assert name != "Training" or "left, loss 3.215, accuracy 0.25, 1,234 tokens/s]" in seen
    assert " 10/20 [" in seen
    assert max(map(len, lines)) <= 80
    assert not lines[-1].strip()
    os.close(leader)
