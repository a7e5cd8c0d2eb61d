"""Kill a command at each of its file operations, or let the disk be full there.

The command runs in a fork of this process, which has imported everything. Python itself tells of each file operation
(`sys.addaudithook`), so that none is forgotten; fsync, of which it does not tell, is added.
"""

import errno
import os
import shutil
import signal
import sys
from pathlib import Path

#: Changes of the file system of which Python tells.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: What a full disk refuses; the rest needs no room.
NEEDS_ROOM = {"open", "os.mkdir", "os.link", "os.symlink", "fsync"}


def fork(function, at=None, full=False, below="/", log=None):
    """Run a function in a process that ends, or whose disk is full, at one of its file operations.

    Args:
        function: The function; what it returns is the exit code.
        at: Number of the operation, from 1; None lets it run.
        full: Whether that operation and all later ones that need room fail, in place of the kill.
        below: Only operations below this folder count.
        log: File for what is printed; None is nowhere.

    Returns:
        The exit code, or minus the number of the signal.
    """
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    code = 70
    try:
        os.setsid()
        out = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
        if at is not None:
            _end_at(at, full, os.path.realpath(below))
        code = function() or 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_at(at, full, below):
    count = 0

    def passes(event, path):
        nonlocal count
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")
            except OSError:
                return
        if not isinstance(path, (str, bytes, os.PathLike)) or (full and event not in NEEDS_ROOM):
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(f"{below}/"):
            return
        count += 1
        if count == at and not full:
            os.kill(os.getpid(), signal.SIGKILL)
        if count >= at and full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))

    def hook(event, args):
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            passes(event, args[0])

    fsync = os.fsync

    def checked_fsync(file):
        passes("fsync", file if isinstance(file, int) else file.fileno())
        fsync(file)

    os.fsync = checked_fsync
    sys.addaudithook(hook)


def tree(folder):
    """Return the content of each file below a folder, by path; of a folder None."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
    }


def each_end(command, folder, begin=lambda folder: None, full=False, step=1, first=1):
    """Yield a folder for each file operation of a command, in which it was killed there, or found the disk full.

    Args:
        command: Called in the folder; returns the exit code.
        folder: Folder for them; what is yielded is removed afterwards.
        begin: Puts what the command needs in the folder.
        full: Whether the disk is full, in place of a kill.
        step: Every so many operations are taken.
        first: The first operation that is taken.

    Yields:
        Number of the operation, folder and exit code.
    """
    at = first
    while True:
        here = Path(folder) / f"{'full' if full else 'kill'}-{at}" / "here"
        here.mkdir(parents=True)
        begin(here)
        code = run(command, here, at=at, full=full, below=here, log=here.parent / "log")
        if code == 0:
            shutil.rmtree(here.parent)
            return
        yield at, here, code
        shutil.rmtree(here.parent)
        at += step


def run(command, folder, *args, **options):
    """Run a command in a folder, with the options of `fork`; return its exit code."""

    def inside():
        os.chdir(folder)
        return command(*args)

    return fork(inside, **options)
