"""Every option of a verb changes what it writes or says, or ends in a sentence: the walk that the packages share."""

import hashlib
import importlib
import inspect
import json
import re
import shutil
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from verbs import own_verbs

from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lightning.devices import Devices

#: What tells who wrote a file, when, and by which command.
RECORDED = ("record", "time", "seconds", "hash", "previous")


@dataclass
class Case:
    """How a verb is started on small data.

    Args:
        base: Arguments as a config has them, with which the verb succeeds.
        second: Another value by option, where its type does not give one.
        under: What else is typed with an option, for its first and for its second value.
        alone: What is typed with an option that refuses the rest of the base; with this it succeeds.
        same: Why an option changes nothing that is written, by option.
        empty: What an empty value means, by option, where it is taken and is not the same as none.
        slow: Options that take long to start with; "all" for each.
    """

    base: dict[str, Any]
    second: dict[str, Any] = field(default_factory=dict)
    under: dict[str, dict[str, Any]] = field(default_factory=dict)
    alone: dict[str, dict[str, Any]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)
    slow: tuple[str, ...] = ()


def options_of(verb):
    """Return the options of a verb with their types and defaults; those of its devices each by themselves."""
    hints, found = get_type_hints(verb), {}
    for name, parameter in inspect.signature(verb).parameters.items():
        if Devices in (hints[name], *get_args(hints[name])):
            of_devices = get_type_hints(Devices)
            found |= {f"{name}.{one.name}": (of_devices[one.name], one.default) for one in fields(Devices)}
        else:
            found[name] = (hints[name], parameter.default)
    return found


def second_value(case, name, hint, default):
    """Return another value of an option: that of the table, or one that follows from its type."""
    if name in case.second:
        return case.second[name]
    first = case.base.get(name, default)
    if hint is bool:
        return not first
    if get_origin(hint) is Literal:
        return next(value for value in get_args(hint) if value != first)
    if isinstance(first, int | float) and {int, float} & {hint, *get_args(hint)}:
        return first + 1 if isinstance(first, int) else first / 2
    pytest.fail(f"{name} is in no table of tests, and its type does not give a second value; enter one.")


class Walk:
    """Runs the verbs of a package, each in a copy of a folder.

    Args:
        package: Name of the package.
        begin: Puts all that the verbs read in the working directory.
        factory: Makes folders.
    """

    def __init__(self, package, begin, factory):
        self.main = importlib.import_module(f"{package}.cli").main
        self.verbs, self.known = own_verbs()[package], {}
        self.start, self.work = factory.mktemp("start"), factory.mktemp("work")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.start)
            begin()

    def run(self, name, arguments, capsys):
        """Return the exit code of a verb, what it wrote, and what it said."""
        key = json.dumps([name, arguments], sort_keys=True, default=str)
        if key not in self.known:
            place = self.work / "place"
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(self.start, place)
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(place)
                patch.setenv("LITSHIFT_DATA", str(place / "data"))
                patch.setattr(time, "perf_counter", lambda: 0.0)  # durations are written, too
                Path("verb.yaml").write_text(yaml.safe_dump(arguments))
                capsys.readouterr()
                code = self.main([name, "--config", "verb.yaml"])
                Path("verb.yaml").unlink()
                said = capsys.readouterr()
            self.known[key] = code, written(place), said.out, said.err
        return self.known[key]

    def check_equal(self, name, case, capsys):
        """Check that a second run writes the same, so that what differs comes from an option."""
        code, files, said, error = self.run(name, case.base, capsys)
        self.known.clear()
        again = self.run(name, case.base, capsys)
        assert code == 0 and again[1] == files, error
        assert new_files(files, self.start) or again[2] == said

    def check(self, name, option, case, capsys):
        """Check that a second value of an option changes what is written or said, or is refused in a sentence."""
        hint, default = options_of(self.verbs[name])[option]
        outer, _, inner = option.partition(".")
        value = second_value(case, option, hint, default)
        base = {**case.base, **case.under.get(option, {})}
        code, files, said, error = self.run(name, base, capsys)
        assert code == 0, error
        changed = {**base.get(outer, {}), inner: value} if inner else value
        beside = case.alone.get(option, base)
        code, other_files, other_said, error = self.run(name, {**beside, outer: changed}, capsys)
        if option in case.same:
            assert code == 0 and other_files == files, error
        elif code == 2 and option not in case.alone:
            print("refused:", name, option, error)
            assert [line.partition(":")[0].partition("-")[0] for line in error.strip().splitlines()] == ["lit"], error
        else:
            assert code in (0, 3), error  # 3: done but for what was left out
            assert other_files != files or (not new_files(files, self.start) and other_said != said)

    def check_empty(self, name, option, case, capsys):
        """Check that an empty text, list or mapping is refused by name, or is the same as leaving the option out."""
        for value in empty_values(options_of(self.verbs[name])[option][0]):
            base = {**case.base, **case.under.get(option, {})}
            code, files, said, error = self.run(name, {**base, option: value}, capsys)
            if code == 2:
                assert re.search(rf"\b{option}\b", error), error
            elif option in case.empty:
                assert code == 0
            else:
                base.pop(option, None)
                left_out = self.run(name, base, capsys)
                assert (code, files) == left_out[:2] and (new_files(files, self.start) or said == left_out[2]), error

    def check_misfits(self, name, option, case, capsys):
        """Check that a place that cannot be, or a seed out of range, is refused as a mistake of who typed it."""
        for value in misfits(option, options_of(self.verbs[name])[option][0]):
            base = {**case.base, **case.under.get(option, {})}
            code, _, _, error = self.run(name, {**base, option: value}, capsys)
            assert code in ((2,) if "seed" in option else (0, 2)), (value, error)
            assert not re.search(r"\b[A-Z]\w+(Error|Exception)\b|Errno|Traceback|b'", error), (value, error)
            typed = json.dumps(value).strip('[]{}"')
            assert code == 0 or option.split(".")[0] in error or typed in error, (value, error)


def misfits(option, hint):
    """Return values that no file, folder or seed can have, as far as a type takes them."""
    if "seed" in option:
        return [-1, 2**32 + option.endswith("seeds"), 10**30]  # there are 2**32
    places = ["/", ".", "x" * 300, "new/" + "x" * 300 + ".jsonl"]
    outer = {hint, *get_args(hint)}
    if str in outer:
        return places
    of_lists = [[place] for place in places if any(str in get_args(one) and get_origin(one) is list for one in outer)]
    return of_lists + [{"a": place} for place in places if any(get_args(one) == (str, str) for one in outer)]


def empty_values(hint):
    """Return the empty text, list and mapping, as far as a type takes them."""
    kinds = {str: "", list: [], dict: {}}
    outer = {hint, get_origin(hint), *get_args(hint), *(get_origin(one) for one in get_args(hint))}
    inner = set() if get_origin(hint) in (list, dict, Literal) else outer
    return [value for kind, value in kinds.items() if kind in (inner or {get_origin(hint)})]


def new_files(files, start):
    return {name for name in files if not (start / name).exists()}


def written(folder):
    """Return a digest of each file below a folder, without what tells who wrote it, when, and by which command."""
    return {
        str(path.relative_to(folder)): digest
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (digest := _digest(path))
    }


def _digest(path):
    if path.name.endswith(("run.json", "prepare.json")) or "tfevents" in path.name:
        return None
    if path.suffix == ".ckpt":
        content = load_checkpoint_file(path)
        weights = {name: tensor.tolist() for name, tensor in content.pop("state_dict").items()}
        content = repr([weights, {key: value for key, value in content.items() if key not in RECORDED}])
    elif path.suffix in (".json", ".jsonl"):
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        content = repr([_plain(json.loads(line)) for line in lines])
    else:
        content = path.read_bytes()
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).hexdigest()


def _plain(node):
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key not in RECORDED}
    return [_plain(one) for one in node] if isinstance(node, list) else node


def options(package, table, left_out=()):
    """Return each option of the verbs of a package, as parameters; all verbs must be in the table."""
    verbs = {name: verb for name, verb in own_verbs()[package].items() if name not in left_out}
    assert verbs.keys() == table.keys()
    return [
        pytest.param(name, option, id=f"{name}-{option}", marks=slow(table[name], option))
        for name, verb in verbs.items()
        for option in options_of(verb)
    ]


def slow(case, *options):
    return [pytest.mark.slow] if {"all", *options} & {*case.slow} else []


def starts(table):
    """Return the verbs of a table, as parameters."""
    return [pytest.param(name, marks=slow(case)) for name, case in table.items()]
