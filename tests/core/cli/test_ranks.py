import os
import subprocess
import sys
import time
from pathlib import Path

RANKS = """
import os, subprocess, sys, time
from lit_core.cli import ranks
from lit_core.cli.ranks import is_further_rank, rank_zero_ends, watch_rank_zero
ranks.GRACE = 2.0
watch_rank_zero()
if is_further_rank():
    print(os.getpid(), flush=True)
    if "wait" in sys.argv:
        print(rank_zero_ends(), flush=True)
    time.sleep(600)
subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, "LOCAL_RANK": "1"})
time.sleep(600)
"""


def start(tmp_path, *args):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.Popen([sys.executable, str(script), *args], stdout=subprocess.PIPE, text=True, env=environment)


def test_a_rank_that_lightning_started_ends_after_rank_0_is_killed(tmp_path):
    process = start(tmp_path)
    assert int(process.stdout.readline()) != process.pid
    time.sleep(1)
    process.kill()
    begin = time.monotonic()
    assert process.stdout.read() == ""  # its end: nobody holds the pipe any more
    assert time.monotonic() - begin > 1


def test_a_further_rank_sees_that_rank_0_has_ended(tmp_path):
    process = start(tmp_path, "wait")
    process.stdout.readline()
    process.kill()
    assert process.stdout.readline() == "True\n"
