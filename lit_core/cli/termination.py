"""SIGTERM, and SIGHUP of a terminal that closes, end a command as Ctrl-C does: what is finished is saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lit_core.errors import Terminated

#: The signals that end a command, beside Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def termination() -> Iterator[None]:
    """Raise `Terminated` in the block at SIGTERM and SIGHUP. A second signal ends the process at once.

    Only where nothing else handles the signal, or ignores it, as nohup does. A forked process, such as a worker, ends
    as it would without the block.
    """
    is_main = threading.current_thread() is threading.main_thread()
    ours = [signum for signum in SIGNALS if is_main and signal.getsignal(signum) == signal.SIG_DFL]
    owner = os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)
        if os.getpid() != owner:
            signal.raise_signal(signum)
        raise Terminated(signum)

    for signum in ours:
        signal.signal(signum, handle)
    try:
        yield
    finally:
        for signum in ours:
            if signal.getsignal(signum) == handle:
                signal.signal(signum, signal.SIG_DFL)
