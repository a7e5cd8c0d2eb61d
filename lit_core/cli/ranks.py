"""Ends the processes of a run on several devices together, and lets one of them report the error.

Lightning starts the other ranks as children of rank 0 and checks them every five seconds. If one has ended with an
error, Lightning kills rank 0, which may be about to report the same error. If rank 0 is killed, Lightning does not end
the other ranks.
"""

from __future__ import annotations

import os
import sys
import threading
import time

_RANK_ZERO = "LITSHIFT_RANK_ZERO"
#: Seconds that a process waits for another one to end by itself.
GRACE = 10.0


def watch_rank_zero() -> None:
    """Make the processes that Lightning starts end after rank 0, even if it is killed; call this on every rank."""
    if not is_further_rank():
        os.environ[_RANK_ZERO] = str(os.getpid())
    else:
        threading.Thread(target=_end_with_rank_zero, daemon=True).start()


def launched_rank() -> str:
    """Return the rank of this process, as text, that its launcher set: torchrun, SLURM or Lightning."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank != "0"), "0")


def is_further_rank() -> bool:
    """Tell whether this process is a rank above 0 that Lightning started, not torchrun or SLURM."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and os.environ.get(_RANK_ZERO, "") not in ("", str(os.getpid()))


def is_launched_from_outside() -> bool:
    """Tell whether torchrun or SLURM started this process, and perhaps others with the same command line."""
    return "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ


def rank_zero_ends() -> bool:
    """Wait for rank 0 to end, for a limited time, and tell whether it did."""
    end = time.monotonic() + GRACE
    while _rank_zero_runs() and time.monotonic() < end:
        time.sleep(0.1)
    return not _rank_zero_runs()


def is_lost_peer(error: BaseException) -> bool:
    """Tell whether an error only reports that another process is gone."""
    distributed = sys.modules.get("torch.distributed")  # without which there is no such error
    if distributed is not None and isinstance(error, distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo/transport" in str(error)


def _rank_zero_runs() -> bool:
    return os.getppid() == int(os.environ[_RANK_ZERO])


def _end_with_rank_zero() -> None:
    while _rank_zero_runs():
        time.sleep(1)
    time.sleep(GRACE)
    os._exit(1)
