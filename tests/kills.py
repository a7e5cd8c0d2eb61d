"""Kill a command at a file operation, in the middle of a write, or at any time; or let the disk be full there.

The command runs in a fork of this process, which has imported everything. Python itself tells of each file operation
(`sys.addaudithook`), so that none is forgotten; fsync, of which it does not tell, is added. What is written, also by
native code, the system stops: a file grows no further than a limit, at which it kills the process or lets the write
fail.
"""

import errno
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
#: Changes of the file system of which Python tells; and which argument is the folder that a path is relative to.
CHANGES = {"os.rename": 2, "os.remove": 1, "os.mkdir": 2, "os.rmdir": 1, "os.link": 2, "os.symlink": 2}
CHANGES |= {"os.truncate": None, "os.chmod": 2}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: What a full disk refuses; opening a file only if it is new. The rest needs no room.
NEEDS_ROOM = {"open", "os.mkdir", "os.link", "os.symlink", "fsync"}
#: Room that is left to each file where a write is to be cut in the middle, in bytes.
TORN = 7


class Operation(NamedTuple):
    """A file operation of a command.

    Args:
        place: What it does, and the lines of our code that do it.
        number: Which of the operations at that place it is, from 1.
    """

    place: str
    number: int


class End(NamedTuple):
    """How a command ends.

    Args:
        at: The operation at which it ends.
        how: ``killed`` there; ``torn``: killed once it writes more than `room` bytes after it; ``full``: neither that
            operation nor a later one finds room on the disk.
        room: Bytes.
    """

    at: Operation
    how: str = "killed"
    room: int = TORN


class Ended(NamedTuple):
    """What became of a command.

    Args:
        code: Its exit code, or minus the number of the signal.
        said: What it printed.
        operations: Its file operations in order, where they were asked for.
    """

    code: int
    said: str
    operations: list[Operation]


def _kill_all(group):
    with suppress(ProcessLookupError):  # all have ended, or the group is not made yet
        os.killpg(group, signal.SIGKILL)


def fork(function, below="/", end=None, trace=False, after=None):
    """Run a function in a process of its own.

    Args:
        function: The function; what it returns is the exit code.
        below: Only operations below this folder count.
        end: How it ends; None lets it run.
        trace: Whether to tell its file operations.
        after: Seconds until it and all that it has started are killed; None for never.
    """
    said, out = os.pipe()
    traced = tempfile.TemporaryFile()
    begin, process = time.monotonic(), os.fork()
    if not process:
        _become(function, os.path.realpath(below), out, end, traced if trace else None)
    os.close(out)
    chunks, status = [], None
    while status is None:
        if select.select([said], [], [], 0.01)[0]:
            chunks.append(os.read(said, 1 << 16))
        number, ended = os.waitpid(process, os.WNOHANG)
        status = ended if number else None
        if status is None and after is not None and time.monotonic() - begin > after:
            _kill_all(process)
    _kill_all(process)  # what it has started
    while select.select([said], [], [], 0)[0] and (chunk := os.read(said, 1 << 16)):
        chunks.append(chunk)
    os.close(said)
    traced.seek(0)
    operations = [Operation(*json.loads(line)) for line in traced]
    return Ended(os.waitstatus_to_exitcode(status), b"".join(chunks).decode(errors="replace"), operations)


def _become(function, below, out, end, traced):
    code = 70
    try:
        os.setpgid(0, 0)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if end and end.how == "torn":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        if end or traced:
            _watch(below, end, traced)
        code = function() or 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(below, end, traced):
    """Tell of each file operation, or end at one."""
    counts, is_full = Counter(), False

    def passes(event, path, folder=None):
        nonlocal is_full
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        path = os.fsdecode(path)
        if isinstance(folder, int) and folder >= 0:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
        path = os.path.abspath(path)
        if not path.startswith(f"{below}/"):
            return
        place = f"{event} {_place()}"
        counts[place] += 1
        if traced:
            os.write(traced.fileno(), f"{json.dumps([place, counts[place]])}\n".encode())
        elif end.at == (place, counts[place]):
            if end.how == "killed":
                os.killpg(0, signal.SIGKILL)
            if end.how == "torn":
                size = os.path.getsize(path) if event == "open" and os.path.isfile(path) else 0
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + end.room, resource.RLIM_INFINITY))
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
                is_full = True
        if is_full and event in NEEDS_ROOM and not (event == "open" and os.path.exists(path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def hook(event, args):
        if event in CHANGES:
            at = CHANGES[event]
            passes(event, args[0], args[at] if at is not None and at < len(args) else None)
        elif event == "open" and isinstance(args[2], int) and args[2] & WRITES:
            passes(event, args[0])

    fsync = os.fsync

    def checked_fsync(file):
        passes("fsync", file if isinstance(file, int) else file.fileno())
        fsync(file)

    os.fsync = checked_fsync
    sys.addaudithook(hook)


def _place():
    """Return the lines of our code that are being run, from the innermost one; those of a library's thread are none."""
    lines, frame = [], sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(f"{ROOT}/lit_"):
            lines.append(f"{name[len(str(ROOT)) + 1 :]}:{frame.f_lineno}")
        frame = frame.f_back
    return " ".join(lines) or threading.current_thread().name.rstrip("0123456789-")


def first_and_last(operations):
    """Return the first and the last operation of each place."""
    last = {operation.place: operation for operation in operations}
    return [operation for operation in operations if operation.number == 1 or operation is last[operation.place]]


def some(items, count):
    """Return so many of some items, evenly, the same each time; all if count is None."""
    if count is None or len(items) <= count:
        return items
    return [items[int((number + 0.5) * len(items) / count)] for number in range(count)]


def moments(seconds, count, seed):
    """Return times at random within a duration, the same for the same seed."""
    chance = random.Random(seed)
    return [chance.uniform(0, seconds) for _ in range(count)]


def tree(folder):
    """Return the content of each file below a folder, by path; of a folder None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
    }


def each_end(command, folder, begin=lambda folder: None):
    """Yield a folder for each file operation of a command, in which it was killed there.

    Args:
        command: Called in the folder; returns the exit code.
        folder: Folder for them; what is yielded is removed afterwards.
        begin: Puts what the command needs in the folder.

    Yields:
        The operation and the folder.
    """
    here = Path(folder) / "killed"

    def ended(**options):
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        begin(here)
        return run(command, here, below=here, **options)

    for operation in ended(trace=True).operations:
        assert ended(end=End(operation)).code == -signal.SIGKILL, operation
        yield operation, here
    shutil.rmtree(here, ignore_errors=True)


def run(command, folder, *args, **options):
    """Run a command in a folder, with the options of `fork`."""

    def inside():
        os.chdir(folder)
        return command(*args)

    return fork(inside, **options)
