"""Run commands as they would be typed, without the seconds that each takes to import PyTorch and Lightning.

All are forked from one process that has imported what they need.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from textwrap import fill
from typing import Any

# Elsewhere than on Linux, libraries of the system make forks unsafe; each command starts anew there.
CONTEXT: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
CONTEXT.set_forkserver_preload(
    [
        "lit_core.cli.closing",
        "lit_core.cli.run_verb",
        *(f"{name}.commands.lightning" for name in ("lit_moe", "lit_valuation", "lit_detect")),
        "matplotlib.figure",
        "torch.utils.tensorboard",
    ]
)
_START = time.perf_counter()


def run(*commands: str, threads: int | None = None, meanwhile: Callable[[], None] | None = None) -> None:
    """Print commands, and run them at the same time; end with the exit code of one that fails.

    The output of the first is shown as it comes, that of each other one after that of the one before.

    Args:
        commands: Command lines.
        threads: Threads of each; None divides the processors among them.
        meanwhile: Called every second until the first has ended, and once more after it.
    """
    threads = threads or max((os.cpu_count() or 1) // len(commands), 1)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [None, *(Path(folder) / str(number) for number in range(1, len(commands)))]
        print(f"\n$ {commands[0]}", flush=True)
        processes = [
            CONTEXT.Process(target=_main, args=(shlex.split(command), threads, output))
            for command, output in zip(commands, outputs, strict=True)
        ]
        for process in processes:
            process.start()
        for command, process, output in zip(commands, processes, outputs, strict=True):
            while output is None and meanwhile is not None and process.is_alive():
                meanwhile()
                process.join(1)
            process.join()
            if output is not None:
                print(f"\n$ {command}\n{output.read_text()}", end="", flush=True)
            if process.exitcode:
                _end(processes)
                sys.exit(process.exitcode)
        if meanwhile is not None:
            meanwhile()


def elapsed() -> float:
    """Return the seconds since this process began."""
    return time.perf_counter() - _START


def answer(sentence: str) -> None:
    """Print a sentence so that it stands out, with the time that it took until now."""
    print(f"\n{fill(f'==> After {elapsed():.0f} s: {sentence}', 80, subsequent_indent='    ')}\n", flush=True)


def _main(words: list[str], threads: int, output: Path | None) -> None:
    """Be a command."""
    import torch

    if output is not None:
        with output.open("wb") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
    torch.set_num_threads(threads)
    program, *args = words
    sys.exit(importlib.import_module(f"{program.replace('-', '_')}.cli").main(args))


def _end(processes: list[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive():
            process.terminate()
            process.join()
