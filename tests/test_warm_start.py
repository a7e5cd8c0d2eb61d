"""A command that starts warm is to its test what one started by Python is."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import warm_start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands start cold")
TELL = """
import json, os, random, sys
import numpy, torch
random_numbers = [random.random(), numpy.random.rand(), torch.rand(1).item()]
print(json.dumps({
    "argv": sys.argv, "name": __name__, "parent": os.getppid(), "session": os.getsid(0), "group": os.getpgid(0),
    "cwd": os.getcwd(), "path": sys.path[:3], "file": os.environ.get("SOMETHING"), "words": sys.stdin.read(),
    "threads": torch.get_num_threads(), "random": random_numbers,
    "warm": "lit_moe.cli" in sys.modules, "fork": "warm_start" in sys.modules,
}))
sys.exit(int(os.environ.get("CODE", 0)))
"""


@pytest.fixture(autouse=True)
def warm(request):
    if request.config.getoption("cold"):
        pytest.skip("everything starts cold")


def tell(program, code=0, **options):
    done = subprocess.run([sys.executable, *program], input="words", capture_output=True, text=True, **options)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def programs(tmp_path):
    (tmp_path / "told.py").write_text(TELL)
    return {
        "-c": ["-c", TELL, "a", "b"],
        "-m": ["-m", "told", "a", "b"],
        "script": [str(tmp_path / "told.py"), "a", "b"],
    }


KINDS = ["script", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("-c", "-m"))]  # imports torch each time


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_finds_what_it_finds_when_python_is_started_for_it(kind, tmp_path):
    environment = {**os.environ, "PYTHONPATH": "/nowhere", "SOMETHING": "here", "CODE": "7", "OMP_NUM_THREADS": "2"}
    options = {"cwd": tmp_path, "env": environment, "start_new_session": True, "code": 7}
    mine = tell(programs(tmp_path)[kind], **options)
    with warm_start.cold_where(True):
        theirs = tell(programs(tmp_path)[kind], **options)
    assert mine["warm"] and mine["fork"] and not theirs["warm"] and not theirs["fork"]
    assert all(mine["random"][number] != theirs["random"][number] for number in range(3))
    assert mine["session"] == mine["group"] != theirs["session"]
    own = ("warm", "fork", "random", "session", "group")
    assert {key: value for key, value in mine.items() if key not in own} == {
        key: value for key, value in theirs.items() if key not in own
    }
    assert mine["parent"] == os.getpid() and mine["threads"] == 2


def test_two_commands_draw_different_random_numbers_and_one_of_a_further_rank_knows_it():
    one, other = tell(["-c", TELL]), tell(["-c", TELL])
    assert all(a != b for a, b in zip(one["random"], other["random"], strict=True))
    program = "from lightning.pytorch.utilities import rank_zero_only; print(rank_zero_only.rank)"
    for rank in ("0", "1"):
        environment = {**os.environ, "LOCAL_RANK": rank}
        assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) == f"{rank}\n"


def starts_warm(*flags, **options):
    program = "import sys; print('warm_start' in sys.modules)"
    done = subprocess.run([sys.executable, *flags, "-c", program], capture_output=True, text=True, **options)
    return done.stdout == "True\n"


@pytest.mark.parametrize("name", ["PYTHONHASHSEED", "HF_HUB_CACHE"])
def test_what_is_read_when_python_or_a_library_starts_is_not_missed(name):
    assert not starts_warm(env={**os.environ, name: "1"})


def test_a_flag_of_python_is_not_missed():
    assert starts_warm("-u") and not starts_warm("-O")


@pytest.mark.cold
def test_a_test_marked_cold_starts_python():
    assert not starts_warm()


def test_an_error_ends_it_as_it_ends_python():
    done = subprocess.run([sys.executable, "-c", "print('a'); 1 / 0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "a\n") and done.stderr.endswith(
        "ZeroDivisionError: division by zero\n"
    )
    assert subprocess.run([sys.executable, "-m", "no_such_module"], capture_output=True).returncode == 1


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_what_it_started(signum):
    inner = "import os, time; print(os.getpid(), os.getppid(), os.getpgid(0), flush=True); time.sleep(60)"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    pid, parent, group = map(int, process.stdout.readline().split())
    assert parent == group == process.pid and pid != process.pid
    os.killpg(process.pid, signum)
    assert process.wait(20) == -signum
    assert process.stdout.read() == b""  # its end: nobody holds the pipe any more
    process.stdout.close()


def test_a_process_whose_starter_is_killed_gets_another_parent():
    """Which is how a further rank sees that rank 0 has ended."""
    inner = (
        "import os, time\nfirst = os.getppid()\nprint(first, flush=True)\nwhile os.getppid() == first: time.sleep(0.01)"
    )
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert int(process.stdout.readline()) == process.pid
    process.kill()
    assert process.stdout.read() == b""
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_multiprocessing_start_warm(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(in_a_fork)


def in_a_fork():
    return "lit_detect.cli" in sys.modules and "transformers" in sys.modules
