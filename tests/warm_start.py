"""Commands of our packages start as forks of a process that has imported torch and Lightning: 0.1 seconds, not 11.

Where it is installed, `subprocess` and the `spawn` and `forkserver` methods of `multiprocessing` ask `warm_server`
instead of starting Python; in the commands too, so that Lightning's launcher starts its further ranks warm. A command
started so is a process as any other: a child of the process that starts it, with its own program, arguments, working
directory, environment, files, session, random numbers and exit code. It differs in what Python and libraries read
when they start: the seed of hashes is the server's, and a module that the server has imported is not imported again.
`pytest --cold`, or the mark `cold` on a test, starts Python each time.
"""

import ctypes
import inspect
import multiprocessing.util
import os
import pickle
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

HERE = Path(__file__).parent
#: Read when Python or a library is started or imported: a command with another value is started cold.
READ_AT_START = ("PYTHON", "LD_", "HF_", "TRANSFORMERS_", "MKL_", "OPENBLAS_")
#: Flags of Python that a running one can still follow.
FLAGS = ("-u", "-B")
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
SET_CHILD_SUBREAPER = 36


_starts = None


class Server:
    """A process that becomes the commands it is sent.

    Args:
        link: A socket to it.
        ready: Whether it has said that it is ready.
    """

    def __init__(self, link, ready=True):
        self._link, self._ready, self._owner, self._lock = link, ready, os.getpid(), threading.Lock()
        self._environment = at_start(os.environ)

    @classmethod
    def launch(cls):
        """Start a server, which takes as long as starting a command does; do not wait for it."""
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(
            [sys.executable, HERE / "warm_server.py", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=HERE,
        )
        process.returncode = 0  # it ends when this process does, and nobody waits for it
        theirs.close()
        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what the server forks becomes ours
        return cls(link, ready=False)

    def takes(self, environment):
        """Tell whether a command with this environment would be the same if Python were started for it."""
        return os.getpid() == self._owner and at_start(environment) == self._environment

    def start(self, program, environment, files, cwd=None, session=False, group=-1, umask=-1):
        """Start a program with file descriptors under the given numbers; return the id of its process.

        Args:
            program: Flags of Python; ``-m``, ``-c`` or ``script``; a module, code or a path; and arguments.
            environment: Its environment.
            files: A file descriptor by the number that it has there.
            cwd: Its working directory; None is ours.
            session: Whether it leads a session of its own.
            group: Its process group; -1 is ours.
            umask: Its umask; -1 is ours.
        """
        request = {
            "program": program,
            "environment": dict(environment),
            "targets": list(files),
            "cwd": os.path.abspath(cwd or "."),
            "session": session,
            "group": group,
            "umask": umask,
        }
        with self._lock:
            if not self._ready and (threads := self._link.recv(8)) != b"1":
                raise RuntimeError(f"The server of warm starts has {threads.decode() or 'no'} threads, but needs one.")
            self._ready = True
            socket.send_fds(self._link, [pickle.dumps(request)], list(files.values()))
            return int(self._link.recv(32))


def at_start(environment):
    """Return the part of an environment that is read when Python or a library starts."""
    return {
        name: value for name, value in environment.items() if name.startswith(READ_AT_START) and name != "PYTHONPATH"
    }


def program_of(command):
    """Return what a command line tells Python to run, as `Server.start` takes it; None if it is not for us."""
    if isinstance(command, (str, bytes, os.PathLike)):
        return None
    first, *words = map(os.fsdecode, command)
    if first != sys.executable:
        return None
    flags = list(takewhile(lambda word: word in FLAGS, words))
    words = words[len(flags) :]
    if len(words) > 1 and words[0] in ("-m", "-c"):
        return flags, words[0], words[1], words[2:]
    return (flags, "script", words[0], words[1:]) if words and words[0].endswith(".py") else None


class Starts:
    """How this process starts Python: by a server from its first command on, and cold where a test is marked so."""

    def __init__(self, server=None):
        self.server, self.is_cold = server, False

    def server_for(self, environment):
        """Return the server for a command with that environment; None if Python must be started for it."""
        if self.is_cold:
            return None
        self.launch()
        return self.server if self.server.takes(environment) else None

    def launch(self):
        """Start the server, if there is none."""
        if self.server is None:
            with cold_where(True):
                self.server = Server.launch()

    def popen(self, cold):
        """Return a replacement for the method of `subprocess.Popen` that starts the process."""
        signature = inspect.signature(cold)
        usual = {"executable": None, "preexec_fn": None, "shell": False, "gid": None, "gids": None, "uid": None}

        def start(popen, *args):
            given = signature.bind(popen, *args).arguments
            program, environment = program_of(given["args"]), os.environ if given["env"] is None else given["env"]
            is_usual = given["close_fds"] and all(given[name] == value for name, value in usual.items())
            server = (
                self.server_for(environment) if program and is_usual and os.path.isdir(given["cwd"] or ".") else None
            )
            if server is None:
                return cold(popen, *args)
            pipes = {0: given["p2cread"], 1: given["c2pwrite"], 2: given["errwrite"]}
            files = {number: pipe if pipe >= 0 else number for number, pipe in pipes.items()}
            popen.pid = server.start(
                program,
                environment,
                files | {number: number for number in given["pass_fds"]},
                given["cwd"],
                given["start_new_session"],
                given.get("process_group", -1),
                given["umask"],
            )
            popen._child_created = True
            popen._close_pipe_fds(*(given[name] for name in PIPES))

        return start

    def spawn(self, cold):
        """Return a replacement for the function by which `multiprocessing` starts Python."""

        def start(path, args, passfds):
            program = program_of([os.fsdecode(path), *args[1:]])
            is_light = program and "resource_tracker" in program[2]  # it imports nothing of ours
            server = self.server_for(os.environ) if program and not is_light else None
            if server is None:
                return cold(path, args, passfds)
            return server.start(program, os.environ, {number: number for number in (0, 1, 2, *passfds)})

        return start


def install(server=None):
    """Let this process start Python by a server from now on, if it does not yet; return what decides how."""
    global _starts
    if _starts is None:
        _starts = Starts(server)
        subprocess.Popen._execute_child = _starts.popen(subprocess.Popen._execute_child)
        multiprocessing.util.spawnv_passfds = _starts.spawn(multiprocessing.util.spawnv_passfds)
    return _starts


@contextmanager
def cold_where(condition):
    """Start Python for each command as long as this lasts, if a condition holds."""
    if _starts is None or not condition:
        yield
        return
    _starts.is_cold = True
    try:
        yield
    finally:
        _starts.is_cold = False
