"""What commands import: a script that forks into each from a Python that has imported only their entry point.

Its arguments are a package and tasks, each as a word of JSON: ``["run", ...]`` with a command line, ``["load", VERB]``,
or ``["import", MODULE]``, which is imported for all tasks that follow. It prints, for each but the last, the exit code
and the heavy modules that were imported.
"""

import contextlib
import importlib
import io
import json
import os
import sys

HEAVY = ("jsonargparse", "lightning", "numpy", "omegaconf", "starlette", "tokenizers", "torch", "torchmetrics")
HEAVY += ("transformers", "uvicorn")


def imported(cli, task, words):
    """Return the exit code of a task, and which heavy modules it imports."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        with os.fdopen(reading) as file:
            found = json.load(file)
        os.waitpid(pid, 0)
        return found
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = cli.main(words) if task == "run" else int(not callable(cli.VERBS[words[0]].load()))
    os.write(writing, json.dumps([code, [name for name in HEAVY if name in sys.modules]]).encode())
    os._exit(0)


def main():
    cli, found = importlib.import_module(f"{sys.argv[1]}.cli"), []
    for task, *words in map(json.loads, sys.argv[2:]):
        if task == "import":
            importlib.import_module(words[0])
        else:
            found.append(imported(cli, task, words))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
