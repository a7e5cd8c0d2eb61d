"""The processes of a run on several devices end together, and the one that knows the reason says it.

Lightning starts the further ranks as children of rank 0 and looks at them every five seconds: once one has ended with
an error, it kills rank 0, which may be at the same error and about to say so. Of the reverse it takes no care.
"""

from __future__ import annotations

import os
import threading
import time

import torch

_RANK_ZERO = "LITSHIFT_RANK_ZERO"
#: Seconds that a process waits for another one to end in an orderly way.
GRACE = 10.0


def watch_rank_zero() -> None:
    """Let the processes that Lightning starts end with the one that starts them, even if that is killed."""
    if not is_further_rank():
        os.environ[_RANK_ZERO] = str(os.getpid())
    else:
        threading.Thread(target=_end_with_rank_zero, daemon=True).start()


def launched_rank() -> str:
    """Return this process's rank as whoever launched it says: torchrun, SLURM or Lightning."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank != "0"), "0")


def is_further_rank() -> bool:
    """Tell whether this process is a rank above 0 that Lightning started, not torchrun or SLURM."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and os.environ.get(_RANK_ZERO, "") not in ("", str(os.getpid()))


def rank_zero_ends() -> bool:
    """Wait for rank 0 to end, for a limited time, and tell whether it did."""
    end = time.monotonic() + GRACE
    while _rank_zero_runs() and time.monotonic() < end:
        time.sleep(0.1)
    return not _rank_zero_runs()


def is_lost_peer(error: BaseException) -> bool:
    """Tell whether an error says no more than that another process is gone."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)


def _rank_zero_runs() -> bool:
    return os.getppid() == int(os.environ[_RANK_ZERO])


def _end_with_rank_zero() -> None:
    while _rank_zero_runs():
        time.sleep(1)
    time.sleep(GRACE)
    os._exit(1)
