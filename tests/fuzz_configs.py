"""Targets of the fuzzer: what a user writes, as the command line reads it, and what earlier commands wrote."""

import importlib
import json
import logging
import os
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import wraps
from pathlib import Path
from unittest import mock

import tiny_prepares
import yaml

from lit_core import record
from lit_core.cli.lit_cli import LitCLI
from lit_core.cli.messages import is_user_error, root_cause, sentence
from lit_core.cli.run_verb import run_verb
from lit_core.cli.show import show
from lit_core.errors import UserError
from lit_core.files.formats import stamp
from lit_core.study.study import study_verb
from lit_core.trust import is_own, is_trusted, sign
from lit_detect.calibration import ALL, Calibration
from lit_detect.commands.attack import attack
from lit_detect.human_scores import Group, Length
from lit_valuation.exchange.ledger import Entry, SharingLedger

logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
CONFIGS = Path(__file__).parents[1] / "configs"
#: By name: a function that writes the files into a folder and returns one that reads them.
TARGETS = {}


def target(make):
    """Note a function that writes a folder and returns what reads it."""
    TARGETS[make.__name__] = make
    return make


@contextmanager
def inside(folder):
    """Work in a folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def quiet():
    """Print nothing."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def command(verb=None):
    """Work in a folder of its own, and end in the sentence that the command line says of an exception."""
    try:
        with tempfile.TemporaryDirectory() as place, inside(place), quiet():
            yield
    except Exception as error:
        if is_user_error(root_cause(error)):
            raise UserError(sentence(error, verb)) from error
        raise


def fit(package, *shipped):
    """Return a target: configs of ``fit``, which are parsed, while nothing is built of them."""

    def make(folder):
        for number, path in enumerate(shipped):
            (folder / f"{number}.yaml").write_text((CONFIGS / path).read_text())
        args = [word for number in range(len(shipped)) for word in ("--config", str(folder / f"{number}.yaml"))]
        commands = importlib.import_module(f"{package}.commands.lightning").commands

        def read():
            left_out = ("instantiate_classes", "run_subcommand")
            with command(), mock.patch.multiple(LitCLI, **dict.fromkeys(left_out, lambda *_: None)):
                commands(["fit", *args])

        return read

    return make


TARGETS |= {
    "fit_moe": fit("lit_moe", "moe/quickstart/continue.yaml"),
    "fit_valuation": fit("lit_valuation", "valuation/fit/table.yaml"),
    "fit_detect": fit("lit_detect", "detect/fit/texts.yaml", "detect/detector/gltr.yaml"),
}


def verb(function, shipped, *flags):
    """Return a target: a config of a verb, of which the parts are built, while the verb does nothing."""

    def make(folder):
        (folder / "x.yaml").write_text((CONFIGS / shipped).read_text())

        def read():
            with command(function):
                quietly = wraps(function)(lambda **_: None)
                run_verb("lit-x", function.__name__, quietly, ["--config", str(folder / "x.yaml"), *flags])

        return read

    return make


TARGETS["attack"] = verb(attack, "detect/attack/number.yaml", "--input", "x.jsonl", "--output", "y.jsonl")


@target
def study(folder):
    whole = yaml.safe_load((CONFIGS / "valuation/studies/mycroft.yaml").read_text())
    commands = {"commands": ["fit --config $folder/x.yaml --seed_everything $seed"], "arguments": {"folder": "."}}
    content = {
        "name": "x",
        "grids": {"selection": whole["grids"]["selection"], "fit": commands},
        "sizes": {"smoke": {"seeds": [0, 1], "values": {"steps": 50}}},
        "claims": {name: whole["claims"][name] for name in ("C1", "C2")},
        "tables": {"T": {"by": ["selector"], "metrics": ["queries"], "rank_by": "queries", "terms": {"queries": "q"}}},
        "figures": {"F": {"x": "budget", "by": "selector", "metrics": ["held_out"], "log_x": True}},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    chosen = ("GradientMatching", "Random", "FullInformation", "nothing")
    rows = [{"selector": name, "budget": 8, "queries": 0.5, "held_out": 0.4} for name in chosen]
    module, run = "lit_core.study.study", study_verb("lit_valuation")

    def read():
        with (
            command(run),
            mock.patch(f"{module}._run_missing", lambda *_: {}),
            mock.patch(f"{module}.finished", lambda *_: {"rows": rows, "data": "", "code": "", "seconds": 1.0}),
        ):
            Path("x.yaml").write_text("trainer: {max_steps: 1}\n")
            run_verb("lit-valuation", "study", run, ["--config", str(folder / "study.yaml")])

    return read


@target
def shown(folder):
    about = {record.KEY: record.new_record(inputs=[])}
    for name, form in (("prepare", "prepared"), ("cell", "cell"), ("manifest", "exchange"), ("index", "shards")):
        (folder / name).mkdir()
        content = {**stamp(f"litshift-{form}"), **about, "settings": {"seed": 0}, "contents": {"shards": []}}
        (folder / name / f"{name}.json").write_text(json.dumps(content))
    (folder / "root" / "source").mkdir(parents=True)
    (folder / "root" / "source" / "prepare.json").write_text(json.dumps({**stamp("litshift-prepared"), **about}))
    group = Group((Length(50, (0.5, 1.0)),), Length(99, (0.5,)))
    Calibration(0.01, "d", "0" * 64, {ALL: group}, golden=(0.1, 0.2)).save(folder / "calibration.json")
    record.write(folder / "run" / "run.test.json", record.new_record(inputs=[]))
    SharingLedger(folder / "ledger.jsonl").append(Entry("query", "alice", "0" * 64, 3, notes=about))

    def read():
        with quiet():
            for path in sorted(folder.iterdir()):
                show([str(path)])
            show([str(folder / "prepare"), str(folder / "cell")], json=True)

    return read


def prepared(package):
    """Return a target: a prepared folder, which ``prepare`` takes up again."""

    def make(folder):
        again = tiny_prepares.PREPARES[package](folder)

        def read():
            with quiet():
                again()

        read()
        return read

    return make


TARGETS |= {f"prepared_{package}": prepared(package) for package in tiny_prepares.PREPARES}


#: Targets that take a hundred times as long as others, and are tried less often.
SLOW = frozenset(TARGETS) - {"shown"}


@target
def ledger(folder):
    book = SharingLedger(folder / "ledger.jsonl")
    samples, digests = {"k": "1" * 64}, [str(number) * 64 for number in range(3)]
    book.append(Entry("query", "alice", digests[0], 3, samples, {"query": digests[0]}))
    book.append(Entry("answer", "Bob", digests[1], 3, samples, {"query": digests[0]}))
    notes = {"query": digests[0], "disputed": ["1" * 64], "contents": ["2" * 64], "credited": True}
    book.append(Entry("received", "alice", digests[2], 3, samples, notes))
    book.withdraw(digests[1])

    def read():
        _hash_again(book.path)
        with quiet():
            book.recorded_names(["alice"], "to", True)
        book.disclosed("bob")
        book.answered(digests[0])
        book.withdrawn()
        book.givers()
        book.find("received", digests[2])
        book.credit(digests[2], "alice")

    return read


def _hash_again(path):
    """Make the hashes of a ledger's lines true, which would hide what lies behind them."""
    lines, previous = [], "0" * 64
    for line in path.read_bytes().split(b"\n"):
        try:
            content = json.loads(line) | {"previous": previous, "hash": ""}
            previous = content["hash"] = Entry(**content).hashed()
            line = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        except (ValueError, TypeError, RecursionError):
            pass
        lines.append(line)
    path.write_bytes(b"\n".join(lines))


@target
def staged(folder):
    book = SharingLedger(folder / "ledger.jsonl")
    book.append(Entry("query", "alice", "0" * 64, 3))
    (folder / ".x.staged").mkdir()
    book._note.write_text(json.dumps({"target": str(folder / "x"), "lines": 0}))

    def read():
        with quiet():
            book.finish_staged()

    return read


@target
def trusted(folder):
    (folder / "litshift").mkdir()
    (folder / "litshift" / "classes.txt").write_text("my_project.Router\nmy_project.Task\n")
    checkpoint = {"config": {"model": {"class_path": "x"}}}
    with mock.patch.dict(os.environ, XDG_CONFIG_HOME=str(folder)):
        sign(checkpoint)

    def read():
        with mock.patch.dict(os.environ, XDG_CONFIG_HOME=str(folder)):
            is_trusted("my_project.Task")
            is_own(checkpoint)

    return read
