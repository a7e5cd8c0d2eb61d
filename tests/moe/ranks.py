"""Processes that train together, forked from the test's own: no second start of Python, no second import."""

import multiprocessing
import os
import socket
import time

import torch


def on_ranks(function, *args, size=2, timeout=240):
    """Run a function in several processes, in each of which a Trainer with as many devices finds the others."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(rank, size, port, function, args)) for rank in range(size)]
    for process in processes:
        process.start()
    end = time.monotonic() + timeout
    try:
        for process in processes:
            process.join(max(0.1, end - time.monotonic()))
        codes = [process.exitcode for process in processes]
        assert codes == [0] * size, f"exit codes {codes}; None is a process that hung"
    finally:
        for process in processes:
            process.kill()


def _rank(rank, size, port, function, args):
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
    }
    function(*args)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
