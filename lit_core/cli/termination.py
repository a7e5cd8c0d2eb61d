"""SIGTERM ends a command as Ctrl-C does, so that what is finished is saved and no process is left."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lit_core.errors import Terminated


@contextmanager
def termination() -> Iterator[None]:
    """Raise `Terminated` in the block at SIGTERM. A second signal ends the process at once.

    Only where nothing else handles the signal. A forked process, such as a worker, ends as it would without the block.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    owner = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)
        if os.getpid() != owner:
            signal.raise_signal(signum)
        raise Terminated

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) == handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
