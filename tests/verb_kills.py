"""Each verb of a package, killed where it changes a file, or with a full disk there: the walk of all packages.

After each end the same command is given again. Then the folder, in which also the configuration, the data root, the
home and the temporary files of the user lie, must hold what it holds after a command that nothing has ended.
"""

import csv
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

import kills
import pytest
import torch
import warm_server
import yaml
from kills import End
from options import RECORDED
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from verbs import own_verbs

from lit_core.cli import LitCLI
from lit_core.lightning.loggers import CSVLog
from lit_core.record import RECORD

#: Of a record, what the same command always writes the same.
LASTING = ("config", "seeds")
#: What tells from which checkpoint a run was resumed.
OF_A_RESUME = ("ckpt_path", "last_model_path")
#: What depends on the clock: columns of metrics, tags of events, columns of tables.
CLOCK = ("tokens_per_second", "seconds", "hp_metric")


HOW = ("killed", "full", "at_random")
#: Kills of each verb at random.
RANDOM = 5
#: Where files of many thousand bytes are written by native code, and bytes after which such a write is cut.
NATIVE, MIDDLE = ("lit_core/lightning/checkpoint.py", "lit_moe/interop/exporting.py"), 5000


@dataclass
class Row:
    """How a verb is started for being killed.

    Args:
        arguments: Its arguments as a config has them.
        flags: Its arguments as they are typed after the config.
        writes: Whether it changes any file.
        code: Its exit code.
        most: Number of ends of a kind that are taken, evenly; None takes all. An end takes about twice as long as the
            verb, and what the verbs share is ended in each of them.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    writes: bool = True
    code: int = 0
    most: int | None = 8


def parameters(rows, full_walk=True):
    """Return each verb of some rows with each kind of end, as parameters."""
    return [
        pytest.param(verb, how, id=f"{verb}-{how}", marks=pytest.mark.slow if full_walk else [])
        for verb, row in rows.items()
        for how in (HOW if row.writes else HOW[:1])
    ]


def reading_rows(checkpoint):
    """Return the rows of the verbs that read a checkpoint or a run, and of those that write nothing."""
    flags = ("--ckpt_path", checkpoint)
    return {
        **{"predict": Row(flags=(*flags, "--run", "new")), "test": Row(flags=flags), "validate": Row(flags=flags)},
        "board": Row({"paths": ["logged"], "output": "page.html"}),
        **{"configs": Row(writes=False), "show": Row({"paths": [checkpoint]}, writes=False)},
    }


def verbs_of(package):
    """Return the names of all verbs of a package: Lightning's commands, those that are like fit, and its own."""
    return [*LitCLI.subcommands(), *(["plan"] if package == "lit_moe" else []), *own_verbs()[package]]


class Place:
    """The working directory of the commands: always the same path, as it was at the start or as a command left it.

    Args:
        package: Name of the package.
        begin: Puts what all verbs need in the working directory.
        factory: Makes folders.
    """

    def __init__(self, package, begin, factory):
        self.package, self.main = package, import_module(f"{package}.cli").main
        self.start, self.path = factory.mktemp("start"), factory.mktemp("work") / "place"
        for name in warm_server.PRELOADED:
            import_module(name)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.start)
            begin()
            for step in range(2):
                CSVLog("logged").log_metrics({"train/loss": float(step)}, step)

    def fresh(self, row):
        """Make the working directory new."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self.start, self.path)
        for name in ("home", "temporary", "settings"):
            (self.path / name).mkdir()
        (self.path / "verb.yaml").write_text(yaml.safe_dump(row.arguments))

    def run(self, verb, row, **options):
        """Run a verb in the working directory, with the options of `kills.fork`."""
        config = ["--config", "verb.yaml"] if row.arguments else []
        words = [verb, *config, *row.flags]

        def inside():
            os.environ["LITSHIFT_DATA"] = str(self.path / "data")
            os.environ["HOME"], os.environ["TMPDIR"] = str(self.path / "home"), str(self.path / "temporary")
            os.environ["XDG_CONFIG_HOME"] = str(self.path / "settings")
            tempfile.tempdir = None
            if verb not in LitCLI.subcommands():
                time.perf_counter = lambda: 0.0  # durations are written, too
            return self.main(words)

        return kills.run(inside, self.path, below=self.path, **options)

    def again(self, verb, row):
        """Give a command again, or resume it as it advises; return what became of it and what it left."""
        ended = self.run(verb, row)
        advice = re.search(r"holds a run already; resume it with --ckpt_path (\S+),", ended.said)
        if advice:
            ended = self.run(verb, Row(flags=("--ckpt_path", advice[1])))
        return ended, content(self.path)


class Walk:
    """Ends a verb in many ways.

    Args:
        place: Where it works.
        verb: Name of the verb.
        row: How it is started.
    """

    def __init__(self, place, verb, row):
        self.place, self.verb, self.row = place, verb, row

    @cached_property
    def whole(self):
        """What the verb does and leaves where nothing ends it, and the seconds that it takes."""
        self.place.fresh(self.row)
        before, begin = content(self.place.path), time.monotonic()
        ended = self.place.run(self.verb, self.row, trace=True)
        assert ended.code == self.row.code, ended.said
        return ended.operations, content(self.place.path), before, time.monotonic() - begin

    def ends(self, full):
        """Return the ways to end the verb by its operations."""
        operations, *_ = self.whole
        chosen = kills.first_and_last(operations)
        if full:
            return [End(one, "full") for one in chosen if one.place.split()[0] in kills.NEEDS_ROOM]
        torn = [End(one, "torn", room) for one in chosen for room in _rooms(one)]
        return [*(End(one) for one in chosen), *torn]

    def check(self, how, most=None):
        """End the verb in all ways of a kind, or so many of them, and return how often that was.

        Args:
            how: ``killed`` at an operation or while it writes, ``full`` disk, or ``at_random``.
            most: Number of ways; None takes all.
        """
        operations, *_, seconds = self.whole
        assert bool(operations) == self.row.writes, operations
        ends = kills.moments(seconds, RANDOM, self.verb) if how == "at_random" else self.ends(how == "full")
        faults, count = [], 0
        for end in kills.some(ends, most or self.row.most):
            ended, fault = self.end(end)
            count += ended.code != self.row.code
            faults += [f"{end}: {fault}\n{ended.said[-2000:]}"] if fault else []
        assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)
        assert count or not self.row.writes or how == "at_random", "nothing has ended the verb"
        return count

    def end(self, end):
        """End the verb and give it again; return what became of it, and what is wrong."""
        _, expected, *_ = self.whole
        self.place.fresh(self.row)
        ended = self.place.run(self.verb, self.row, **({"end": end} if isinstance(end, End) else {"after": end}))
        if isinstance(end, End) and end.how == "full" and ended.code != self.row.code:
            fault = self._fault_of_sentence(ended)
            if fault:
                return ended, fault
        again, found = self.place.again(self.verb, self.row)
        if again.code not in (self.row.code, 2):  # 2: it was done already, which is told
            return ended, f"the same command ends with {again.code}: {again.said[-2000:]}"
        fault = f"{differences(found, expected)}; the same command said {again.said[-1000:]}"
        return ended, fault if found != expected else None

    def _fault_of_sentence(self, ended):
        """Return what is wrong with what a command says of a full disk."""
        begin = f"{self.place.package.replace('_', '-')}: "
        sentences = [line.removeprefix(begin) for line in ended.said.splitlines() if line.startswith(begin)]
        if ended.code not in (1, 2) or "Traceback" in ended.said or not sentences:
            return f"a full disk ends with {ended.code} and no sentence"
        named = re.search(r"\w[/.]\w", sentences[0])
        if not named or not re.search(r"disk is full|[Nn]o space|too large", sentences[0]):
            return "a full disk is not told, or the file is not named"
        return None


def _rooms(operation):
    """Return after how many bytes a write to the file that an operation opens is cut."""
    if not operation.place.startswith("open "):
        return []
    return [kills.TORN, *([MIDDLE] if any(name in operation.place for name in NATIVE) else [])]


def differences(found, expected):
    """Return the names of which the content differs, with the first that differs of it."""
    names = sorted(name for name in {*found, *expected} if found.get(name, "none") != expected.get(name, "none"))
    return {name: _difference(str(found.get(name, "none")), str(expected.get(name, "none"))) for name in names}


def _difference(*texts):
    shorter = min(map(len, texts))
    first = next((i for i in range(shorter) if texts[0][i] != texts[1][i]), shorter)
    return [text[max(0, first - 60) : first + 140] for text in texts]


def content(folder):
    """Return what lies below a folder, by path, without what the same command writes differently the next time."""
    found, events = {}, {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "tfevents" in path.name:
            events.setdefault(path.parent, []).append(path)
        else:
            try:
                found[name] = None if path.is_dir() else _plain_content(path)
            except Exception as error:  # it is damaged
                found[name] = f"{type(error).__name__}: {error}"
    return found | {f"{where.relative_to(folder)}/events": _events(where) for where in events}


def _plain_content(path):
    if path.suffix in (".ckpt", ".pt"):
        loaded = torch.load(path, weights_only=True, map_location="cpu")
        return repr(_without(loaded, (*RECORDED, *OF_A_RESUME, "signature", "training_meter", "zero_grad")))
    if path.name.endswith((RECORD, "run.test.json", "run.validate.json", "run.predict.json")):
        return repr(_without({key: json.loads(path.read_text())[key] for key in LASTING}, OF_A_RESUME))
    if path.suffix == ".yaml":
        return re.sub(rf"(?m)^({'|'.join(OF_A_RESUME)}):.*$", "", path.read_text())
    if path.name == "key":
        return len(path.read_bytes())
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return repr([{key: cell for key, cell in row.items() if not _is_timed(key)} for row in rows])
    if path.suffix in (".json", ".jsonl"):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        return repr([_without(json.loads(line), RECORDED) for line in lines])
    return path.read_bytes()


def _is_timed(key):
    return isinstance(key, str) and key.rpartition("/")[2] in CLOCK


def _without(node, keys):
    if isinstance(node, torch.Tensor):
        return None if node.is_meta else node.tolist()
    if isinstance(node, dict):
        return {key: _without(node[key], keys) for key in sorted(node, key=str) if key not in keys}
    return [_without(one, keys) for one in node] if isinstance(node, list | tuple) else node


def _events(folder):
    """Return the points that TensorBoard shows; a command that is given again writes the same ones again."""
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
    points = {tag: [(one.step, one.value) for one in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}
    points |= {tag: [one.step for one in shown.Images(tag)] for tag in shown.Tags()["images"]}
    points |= {tag: [one.step for one in shown.Tensors(tag)] for tag in shown.Tags()["tensors"]}
    return {tag: sorted(set(values)) for tag, values in points.items() if not _is_timed(tag)}
