"""What command lines import: a script that forks into each from a Python that has imported only their entry point.

Its arguments are a package and the command lines, each as one word of JSON; it prints a list of heavy modules for each.
"""

import contextlib
import importlib
import io
import json
import os
import sys

HEAVY = ("jsonargparse", "lightning", "numpy", "omegaconf", "tokenizers", "torch", "torchmetrics", "transformers")


def imported(main, args):
    """Return the exit code of a command line, and which heavy modules it imports."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        with os.fdopen(reading) as file:
            found = json.load(file)
        os.waitpid(pid, 0)
        return found
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(args)
    os.write(writing, json.dumps([code, [name for name in HEAVY if name in sys.modules]]).encode())
    os._exit(0)


if __name__ == "__main__":
    main = importlib.import_module(f"{sys.argv[1]}.cli").main
    print(json.dumps([imported(main, json.loads(line)) for line in sys.argv[2:]]))
