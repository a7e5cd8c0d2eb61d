"""The fuzzer: files of our own writers, altered at random, are read, or refused in one sentence.

    python tests/fuzzing.py --mutations 20000 --seed 0 --output finds

What ends in anything but success, `UserError` or `RunFailure`, or takes longer than `SECONDS`, is a find. Its file is
kept below the output folder; copied to ``tests/finds``, it is read again by each run of ``tests/test_fuzz.py``.
"""

import argparse
import gzip
import json
import lzma
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
import yaml

from lit_core.errors import RunFailure, UserError

#: A mutation of a small file is read at once, unless it makes a reader build what is not there.
SECONDS = 20
MEMORY = 6 << 30  # of address space, most of which is that of libraries
FINDS = Path(__file__).parent / "finds"


class Mutator:
    """Alters the bytes of files at random; equal seeds give equal bytes.

    Args:
        seed: Seed of the choices.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.formats = {".gz": self.gz, ".xz": self.xz, ".safetensors": self.safetensors}
        self.formats |= {".ckpt": self.checkpoint, ".pt": self.checkpoint}

    def __call__(self, path):
        """Alter a file in place; most times in the way of its format."""
        content = path.read_bytes()
        own = self.formats.get(path.suffix)
        if own is None and content[:1] in (b"{", b"["):
            own = self.json
        if own is None and path.suffix in (".yaml", ".yml"):
            own = self.yaml
        if own is None and path.suffix in (".csv", ".tsv"):
            own = self.cells
        if own is not None and self.random.random() < 0.7:
            try:
                path.write_bytes(own(content))
                return
            except Exception:  # it was altered before, so that it cannot be parsed
                pass
        path.write_bytes(self.bytes(content))

    def bytes(self, content):
        """Flip, cut, insert, repeat or replace bytes."""
        pick, size = self.random, len(content)
        at = pick.randrange(size + 1)
        length = min(pick.choice([1, 1, 2, 8, 100]), size - at)
        change = pick.choice(["flip", "flip", "cut", "cut", "insert", "delete", "repeat", "swap", "number", "nothing"])
        if change == "flip" and at < size:
            return content[:at] + bytes([content[at] ^ 1 << pick.randrange(8)]) + content[at + 1 :]
        if change == "cut":
            return content[:at]
        if change == "insert":
            return content[:at] + pick.choice(INSERTED) + content[at:]
        if change == "delete":
            return content[:at] + content[at + length :]
        if change == "repeat":
            return content[:at] + content[at : at + length] * pick.choice([2, 1000]) + content[at + length :]
        if change == "swap":
            other = pick.randrange(size + 1)
            first, last = sorted((at, other))
            return content[last:] + content[first:last] + content[:first]
        if change == "number":
            digits = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
            at = pick.choice(digits or [0])
            return content[:at] + pick.choice(NUMBERS) + content[at + 1 :]
        return b"" if change == "nothing" else pick.choice(INSERTED) + content

    def json(self, content):
        """Alter the value of a JSON text or of one of its lines, or its text."""
        lines = content.split(b"\n") if content.count(b"\n{") else [content]
        at = self.random.randrange(len(lines))
        if lines[at].strip():
            value = self.value(json.loads(lines[at]))
            lines[at] = json.dumps(value).encode()
            if self.random.random() < 0.1:
                lines[at] = lines[at].replace(b'"', self.random.choice([b'"\\ud800', b"'", b'"\\u0000']), 1)
            if self.random.random() < 0.1 and b":" in lines[at]:
                key, colon, rest = lines[at].partition(b":")
                lines[at] = key + colon + rest.partition(b",")[0] + b"," + key.lstrip(b"{ ") + colon + rest
        return b"\n".join(lines)

    def yaml(self, content):
        """Alter the value of a YAML text, or add aliases or levels."""
        if self.random.random() < 0.3:
            return content + self.random.choice(YAML)
        return yaml.safe_dump(self.value(yaml.safe_load(content)), sort_keys=False).encode()

    def value(self, value):
        """Return plain values with one of them replaced, removed, doubled or put deeper."""
        pick = self.random
        if isinstance(value, dict) and value and pick.random() < 0.85:
            key = pick.choice(list(value))
            change = pick.random()
            if change < 0.2:
                return {name: inner for name, inner in value.items() if name != key}
            if change < 0.3:
                return {(pick.choice(NAMES) if name == key else name): inner for name, inner in value.items()}
            return value | {key: self.value(value[key])}
        if isinstance(value, list) and value and pick.random() < 0.85:
            at = pick.randrange(len(value))
            change = pick.random()
            if change < 0.2:
                return value[:at] + value[at + 1 :]
            if change < 0.3:
                return value + [value[at]] * pick.choice([1, 3, 1000])
            return [*value[:at], self.value(value[at]), *value[at + 1 :]]
        if pick.random() < 0.1:
            for _ in range(pick.choice([1, 90, 120, 900])):
                value = pick.choice([[value], {"a": value}])
            return value
        if isinstance(value, str) and pick.random() < 0.5:
            return pick.choice(
                [value[:-1], value + "x", value.upper(), value * 50, f"../{value}", f"/{value}", value + "\x1b[2J\n"]
            )
        if type(value) in (int, float) and pick.random() < 0.5:
            return pick.choice([-value, value + 1, value - 1, value * 10**9, value + 0.5, 0, str(value), True])
        return pick.choice(VALUES)

    def gz(self, content):
        """Alter what a gzip file holds, or cut it."""
        return gzip.compress(self.within(gzip.decompress(content)), mtime=0)

    def xz(self, content):
        """Alter what an xz file holds."""
        return lzma.compress(self.within(lzma.decompress(content)))

    def within(self, content):
        return self.json(content) if content[:1] == b"{" and self.random.random() < 0.5 else self.bytes(content)

    def cells(self, content):
        """Alter a cell, or make a row longer or shorter."""
        lines = content.split(b"\n")
        at = self.random.randrange(len(lines))
        cells = lines[at].split(b",")
        where = self.random.randrange(len(cells))
        cells[where : where + 1] = self.random.choice([[], [cells[where]] * 2, [self.random.choice(CELLS)]])
        lines[at] = b",".join(cells)
        return b"\n".join(lines)

    def checkpoint(self, content):
        """Alter a value of a checkpoint, and write it as torch does."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.ckpt"
            path.write_bytes(content)
            torch.save(self.value(torch.load(path, weights_only=True)), path)
            return path.read_bytes()

    def safetensors(self, content):
        """Alter the header of safetensors, whose size is kept true."""
        size = int.from_bytes(content[:8], "little")
        header = json.dumps(self.value(json.loads(content[8 : 8 + size]))).encode()
        return len(header).to_bytes(8, "little") + header + content[8 + size :]


NUMBERS = [b"-1", b"99999999999999999999", b"1e999", b"NaN", b"0.5", b"9" * 5000, b"0x1", b"1:1:1", b""]
INSERTED = [
    b"\xff",
    b"\x00",
    b"\xed\xa0\x80",
    b"[" * 5000,
    b'{"a":' * 2000,
    b'"',
    b"\n",
    b",",
    b"\r",
    b"\x1f\x8b",
    b"PK\x03\x04",
]
NAMES = ["", "x", "\ud800", "__class__", "../x", "a" * 300, "\x1b[2J", "1", "format", "version"]
VALUES = [
    *(None, True, False, 0, -1, 1, 0.5, 2**31, 2**63, 10**400, -(10**20), float("nan"), float("inf"), 1e308),
    *("", "x", "../x", "\ud800", "\x00", "a" * 100_000, [], {}, [None], {"a": None}, [[1]], {"": {}}, ["a", 1], "${a}"),
]
CELLS = [b"", b"nan", b"1e999", b"-1", b"x", b'"', b"\xff", b"9" * 5000, b"1_0", b" ", b"a\rb", b"'"]
LAUGHS = "\nz0: &z0 [x, x]\n" + "".join(f"z{n}: &z{n} [{', '.join([f'*z{n - 1}'] * 9)}]\n" for n in range(1, 9))
YAML = [
    *(LAUGHS.encode(), b"\nz: &z [*z]\n", b"\nz: " + b"[" * 3000, b"\nz: !!python/name:os.system\n", b"\n---\nz: 1"),
    *(b"\nz: 2020-13-45\n", b"\n? [a]\n: 1\n", b"\nz: 1" + b":59" * 3000, b"\nz: *no\n", b"\n\tz: 1", b"\nz: 0x"),
    *(b"\nz: !!int x\n", b"\nz: !!binary '='\n", b"\nz: .inf", b"\n? z\n", b"\n- z\n", b"\nz: !!set {a, b}\n"),
]


def outcome(read):
    """Return the name of an unclean end of a read, with the last line of our own code; None if it is clean."""

    def too_long(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except (UserError, RunFailure) as error:
        text = str(error).strip()
        return None if text.endswith((".", "?", "!")) else f"no sentence: {text[-200:]!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # tokenizers panics with one that is no Exception
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if "/lit_" in frame.filename]
        where = f" at {'/'.join(Path(own[-1].filename).parts[-2:])}:{own[-1].lineno}" if own else f": {error}"
        return f"{type(error).__name__}{where}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def fuzz(name, make, mutations, seed, keep=None):
    """Alter the files of a target and read them.

    Args:
        name: Name of the target.
        make: Writes the files into a folder, and returns what reads them.
        mutations: Number of alterations.
        seed: Seed of the alterations.
        keep: Folder in which the altered file of each kind of find is kept.

    Returns:
        Number of unclean ends by their kind.
    """
    mutate, found = Mutator(f"{name} {seed}"), Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "folder"
        folder.mkdir()
        torch.manual_seed(0)
        read = make(folder)
        read()  # as it was written
        saved = Path(place) / "saved"
        shutil.copytree(folder, saved)
        files = sorted(path.relative_to(saved) for path in saved.rglob("*") if path.is_file())
        for _ in range(mutations):
            file = mutate.random.choice(files)
            for _ in range(mutate.random.choice([1, 1, 1, 2, 4])):
                mutate(folder / file)
            kept = None if keep is None else keep / f"{name}-{len(+found) + 1}" / file
            if kept is not None:  # before it is read, which may end the process
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file, kept)
            kind = outcome(read)
            found[kind] += kind is not None
            if kept is not None and found[kind] != 1:
                shutil.rmtree(keep / kept.relative_to(keep).parts[0])
            shutil.rmtree(folder)
            shutil.copytree(saved, folder)
    return +found


def in_a_process(*args):
    """Fuzz in a process of its own, whose end by a signal is one more kind of find."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(_fuzz_once, args).result()
        except BrokenProcessPool:
            return Counter({"the process was ended": 1})


def _fuzz_once(args):
    name, mutations, seed, keep = args
    from fuzz_targets import TARGETS

    return fuzz(name, TARGETS[name], mutations, seed, keep)


def main():
    """Fuzz all targets, or the named ones, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", help="names of targets; all by default")
    parser.add_argument("--mutations", type=int, default=20_000, help="alterations in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build/finds"), help="folder of the files that were found")
    args = parser.parse_args()
    from fuzz_configs import SLOW
    from fuzz_targets import TARGETS

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    names, found, begin = args.targets or list(TARGETS), Counter(), time.monotonic()
    shares = {name: 1 if name in SLOW else 10 for name in names}
    for name, share in shares.items():
        mutations = -(-args.mutations * share // sum(shares.values()))
        for kind, count in in_a_process(name, mutations, args.seed, args.output).items():
            print(f"{name}: {count} x {kind}", flush=True)
            found[kind] += count
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    seconds = time.monotonic() - begin
    print(f"{args.mutations} mutations of {len(names)} targets in {seconds:.0f} s, at most {peak} MiB of memory")
    print(f"{found.total()} unclean, of {len(found)} kinds" + (f"; their files are in {args.output}" if found else ""))
    sys.exit(bool(found))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()  # of the classes that are typed
    main()
