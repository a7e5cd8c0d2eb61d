"""Time contenders side by side in one process, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lit_core.files.paths import atomic_write


@dataclass
class Contender:
    """Something that is timed.

    Attributes:
        name: Its name in the tables.
        step: What is timed; gets what `prepare` returned. Where not all of it counts, it returns the seconds that do,
            as a float; anything else that it returns is ignored.
        prepare: Makes a new input; not timed.
    """

    name: str
    step: Callable[[Any], Any]
    prepare: Callable[[], Any]


def measure(contenders: Sequence[Contender], rounds: int, warm_up: int, seed: int = 0) -> dict[str, list[float]]:
    """Time one step of each contender in each round, in an order that is drawn anew for each round.

    Args:
        contenders: What to time.
        rounds: Rounds that count.
        warm_up: Rounds before them.
        seed: Seed of the orders.

    Returns:
        Seconds of each round by name.
    """
    shuffle = random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    collects = gc.isenabled()
    gc.disable()  # a collection would fall on whoever runs at the time
    try:
        for index in range(warm_up + rounds):
            order = list(contenders)
            shuffle(order)
            for contender in order:
                inputs = contender.prepare()
                start = time.perf_counter()
                counted = contender.step(inputs)
                elapsed = counted if isinstance(counted, float) else time.perf_counter() - start
                if index >= warm_up:
                    seconds[contender.name].append(elapsed)
                del inputs
            gc.collect(1)  # not everything: walking the whole of torch takes longer than a small step
    finally:
        if collects:
            gc.enable()
    return seconds


def ratios(seconds: dict[str, list[float]], baseline: str) -> dict[str, dict[str, float]]:
    """Compare with a baseline round by round.

    Args:
        seconds: What :func:`measure` returned, at least two rounds.
        baseline: Name of the contender that counts as 1.

    Returns:
        By name: `ratio`, the median of the rounds' ratios; `spread`, half their interquartile range; `milliseconds`,
        the median of the times.
    """
    found = {}
    for name, times in seconds.items():
        per_round = [mine / base for mine, base in zip(times, seconds[baseline], strict=True)]
        low, middle, high = statistics.quantiles(per_round, n=4, method="inclusive")
        found[name] = {
            "ratio": middle,
            "spread": (high - low) / 2,
            "milliseconds": 1000 * statistics.median(times),
        }
    return found


def arguments(description: str | None) -> argparse.Namespace:
    """Read the flags that all benchmarks share.

    Args:
        description: What the benchmark does.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="JSON file for all numbers and the facts of the machine; by default none")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and two rounds, to see that everything works")
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count, 2 or more; default 9")
    parser.add_argument("--warm-up", type=int, default=2, help="rounds before them; default 2")
    parser.add_argument("--threads", type=int, help="threads of torch; by default its own choice")
    options = parser.parse_args()
    for name, least in (("rounds", 2), ("warm_up", 0), ("threads", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name.replace('_', '-')} is {value} but must be {least} or more")
    return options


def precisions(names: Sequence[str], quick: bool) -> list[str]:
    """Leave out bf16 where it would be emulated: without AVX-512, a case takes the better part of an hour.

    Args:
        names: Precisions, those in bfloat16 with names that begin with ``bf16``.
        quick: Whether the sizes are tiny, so that nothing is left out.
    """
    slow = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    left = [name for name in names if quick or not slow or not name.startswith("bf16")]
    if len(left) < len(names):
        progress("This processor emulates bf16, which is left out.")
    return left


def new_result(
    benchmark: str, options: argparse.Namespace, libraries: Sequence[str] = ("torch", "transformers", "litgpt")
) -> dict[str, Any]:
    """Set the number of threads and return a result without cases: what a number should not be read without.

    Args:
        benchmark: Name of the script, without its suffix.
        options: What :func:`arguments` returned.
        libraries: Distributions whose versions matter.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    machine = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average_before": _load_average(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
        "versions": {name: _version(name) for name in (*libraries, "lit-shift")},
        "commit": _commit(),
    }
    return {
        "benchmark": benchmark,
        "command": shlex.join(["python", f"benchmarks/{benchmark}.py", *sys.argv[1:]]),
        "machine": machine,
        "rounds": 2 if options.quick else options.rounds,
        "warm_up": 1 if options.quick else options.warm_up,
        "cases": [],
    }


def finish(result: dict[str, Any], output: str | None) -> None:
    """Add how long it took and how busy the machine was, and write the result.

    Args:
        result: What :func:`new_result` returned, with its cases.
        output: JSON file, made whole or not at all; None for none.
    """
    result["machine"]["load_average_after"] = _load_average()
    result["minutes"] = round((time.perf_counter() - _START) / 60, 1)
    if output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(Path(output), json.dumps(result, indent=1) + "\n")


def progress(line: str) -> None:
    """Say on standard error what is going on; standard output is for the table."""
    print(line, file=sys.stderr, flush=True)


class OtherWork:
    """How busy the machine is with anything but this process, from when it is made."""

    def __init__(self) -> None:
        self._start = self._now()

    def cores(self) -> float | None:
        """Return the cores that others have kept busy on average since then; None where the system does not tell."""
        now = self._now()
        if now is None or self._start is None:
            return None
        wall, busy, own = (after - before for after, before in zip(now, self._start, strict=True))
        return round(max(0.0, busy - own) / wall, 2)

    def _now(self) -> tuple[float, float, float] | None:
        """Return seconds of wall clock, of all cores' work and of our own, with that of child processes that ended."""
        statistics_file = Path("/proc/stat")
        if not statistics_file.exists():
            return None
        ticks = [int(value) for value in statistics_file.read_text().split("\n", 1)[0].split()[1:9]]
        user, nice, system, _idle, _wait, interrupts, soft_interrupts, stolen = ticks
        busy = user + nice + system + interrupts + soft_interrupts + stolen
        return time.perf_counter(), busy / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose columns after the first are aligned to the right.

    Args:
        header: Names of the columns.
        rows: Cells, as many in each row.
    """
    marks = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, marks, *rows])


def cell(measured: dict[str, float] | None, bold: bool = False) -> str:
    """Return a ratio with its spread; a dash where nothing was measured.

    Args:
        measured: What :func:`ratios` found.
        bold: Whether it stands out.
    """
    if measured is None:
        return "–"
    text = f"{measured['ratio']:.2f} ±{measured['spread']:.2f}"
    return f"**{text}**" if bold else text


_START = time.perf_counter()


def _load_average() -> float | None:
    """Return the load over the last minute, this process included; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
