"""A process that has imported what our commands import, and forks itself into each command that it is sent.

It is the script that `warm_start` starts, with the number of the socket by which the two talk as its argument.
"""

import array
import atexit
import ctypes
import fcntl
import gc
import importlib
import os
import pickle
import random
import runpy
import signal
import socket
import sys
import time
import types

#: What commands import, without what starts threads (pyarrow, and scikit-learn with it): a fork has none of them.
PRELOADED = (
    "attrs",
    "lit_core.cli.closing",
    "lit_core.cli.run_verb",
    "lit_core.study",
    "lit_detect.commands.lightning",
    "lit_moe.commands.lightning",
    "lit_valuation.commands.lightning",
    "matplotlib.pyplot",
    "omegaconf",
    "tensorboard.backend.event_processing.event_accumulator",
    "torch.utils.tensorboard",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.roberta.modeling_roberta",
    "webdataset",
)
PACKAGES = ("lit_detect", "lit_moe", "lit_valuation")
#: A config by package, of which the parsers are built.
TYPICAL = {"detect": "fit/texts.yaml", "moe": "quickstart/continue.yaml", "valuation": "fit/images.yaml"}
SET_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36  # of prctl
LARGEST = 1 << 20
#: Where Python looks for modules after the program's own folder; the server is started without PYTHONPATH.
BASE = sys.path[1:]
#: File descriptors of our own lie above those that a command may ask for.
ABOVE = 500
#: What a command ends with, once it has ended with a number.
status = None


def prctl(option, value):
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def serve(link):
    """Fork for each request; return the request, and a link to a server of its own, in the process that it is for.

    A request becomes a child of the process that sent it, as it is after `subprocess.Popen`, so that both can wait for,
    signal and watch each other: its first parent ends at once, and the next process above that adopts orphans is the
    sender. The command's own server is forked off before anything else, so that it can start clean processes too.
    """
    while True:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        request, received = receive(link)
        answer, result = os.pipe()
        middle = os.fork()
        if middle:
            os.close(result)
            os.waitpid(middle, 0)
            link.send(os.read(answer, 32))
            for number in (*received, answer):
                os.close(number)
            continue
        first_parent = os.getpid()
        if pid := os.fork():
            os.write(result, b"%d" % pid)
            os._exit(0)
        while os.getppid() == first_parent:
            time.sleep(0.0005)
        link.close()
        os.close(answer)
        os.close(result)
        if request["session"]:
            os.setsid()
        if request["group"] >= 0:
            os.setpgid(0, request["group"])
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork():
            theirs.close()
            prctl(SET_CHILD_SUBREAPER, 1)
            link = raised(link)
            place(received, request["targets"])
            return request, link
        prctl(SET_DEATH_SIGNAL, signal.SIGKILL)  # the server ends with its command
        for number in received:
            os.close(number)
        link.close()
        link = raised(theirs)


def receive(link):
    """Return the next request and its file descriptors; end this process if there is nobody to ask any more."""
    numbers = array.array("i")
    space = socket.CMSG_SPACE(64 * numbers.itemsize)
    message, ancillary, _, _ = link.recvmsg(LARGEST, space, socket.MSG_CMSG_CLOEXEC)
    if not message:
        os._exit(0)
    for _, _, data in ancillary:
        numbers.frombytes(data)
    return pickle.loads(message), list(numbers)


def raised(link):
    """Return a socket under a high number."""
    number = fcntl.fcntl(link.fileno(), fcntl.F_DUPFD_CLOEXEC, ABOVE)
    link.close()
    return socket.socket(fileno=number)


def place(received, targets):
    """Give file descriptors the numbers that the command expects."""
    above = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, ABOVE) for number in received]
    for number in received:
        os.close(number)
    for number, target in zip(above, targets, strict=True):
        os.dup2(number, target)
        os.close(number)


def become(request):
    """Take over what a process gets from the one that starts it, and what libraries read from it when imported."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    if request["umask"] >= 0:
        os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    torch, numpy = sys.modules["torch"], sys.modules["numpy"]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))))
    random.seed()
    numpy.random.seed()
    torch.seed()
    rank = next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), 0)
    for module in ("lightning.fabric.utilities.rank_zero", "torchmetrics.utilities.prints"):
        sys.modules[module].rank_zero_only.rank = int(rank)


def run(flags, kind, program, arguments):
    """Run a module, a script or code as `python` does; what it raises ends the process as it ends Python."""
    if "-u" in flags:
        sys.stdout.reconfigure(write_through=True)
    if "-B" in flags:
        sys.dont_write_bytecode = True
    first = {"-m": os.getcwd(), "-c": "", "script": os.path.dirname(os.path.realpath(program))}[kind]
    sys.path[:] = [first, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)), *BASE]
    sys.argv = [program if kind == "script" else kind, *arguments]
    sys.orig_argv = [sys.executable, *([] if kind == "script" else [kind]), program, *arguments]
    if kind == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        main.__spec__ = None
        exec(compile(program, "<string>", "exec"), main.__dict__)
    else:
        runpy.run_path(program, run_name="__main__")


def leave():
    """End a command that has ended well, without taking its modules apart: half a second of copying memory."""
    if status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


def draw_without_layout():
    """Let figures be drawn with the margins they have: to fit these takes two thirds of the time; one test looks."""
    try:
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError:
        return
    ConstrainedLayoutEngine.fitting = ConstrainedLayoutEngine.execute
    ConstrainedLayoutEngine.execute = lambda self, figure: None


def build_parsers():
    """Let jsonargparse read the arguments of the classes that most commands name, which it keeps for the process."""
    for name, config in TYPICAL.items():
        main = sys.modules[f"lit_{name}.cli"].main
        main(["fit", "--config", f"configs/{name}/{config}", "--print_config"])


def preload():
    os.fsync = lambda number: None  # as in the tests' own process
    atexit.register(leave)  # runs after all that the modules register
    verbs = [verb.module for package in PACKAGES for verb in importlib.import_module(f"{package}.cli").VERBS.values()]
    for name in (*PRELOADED, *verbs):
        try:
            importlib.import_module(name)
        except ImportError:  # of an extra that is not installed, or one that the command is going to report
            continue
    draw_without_layout()
    build_parsers()
    gc.freeze()  # a process that ends looks through all objects otherwise, and copies the memory they lie in


if __name__ == "__main__":
    link = raised(socket.socket(fileno=int(sys.argv[1])))
    preload()
    link.send(b"%d" % len(os.listdir("/proc/self/task")))
    request, link = serve(link)
    become(request)
    import warm_start

    warm_start.install(warm_start.Server(link))
    try:
        run(*request["program"])
        status = 0
    except SystemExit as end:
        status = end.code or 0 if isinstance(end.code, (int, type(None))) else None
        raise
