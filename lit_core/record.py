"""What a command did, for whom reads its files later: command line, versions, seeds, inputs, times."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import lit_core
from lit_core.errors import UserError
from lit_core.files.formats import read_stamped, stamp
from lit_core.files.json_files import checked
from lit_core.files.outputs import is_overwriting, output_file
from lit_core.files.paths import atomic_write, file_sha256, files_facts

#: File in a folder that a command wrote, with the record of that command.
RECORD = "run.json"
#: Name of the format.
FORMAT = "litshift-record"
#: Key of a checkpoint under which the record lies.
KEY = "record"

#: Packages whose versions are recorded.
_PACKAGES = ("torch", "lightning", "transformers", "numpy")
#: Names of environment variables whose values are secrets.
_SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$")
#: Number of characters from which on such a value is taken for a secret, not for a word.
_SHORTEST = 6
#: A reference to an environment variable.
_VARIABLE = re.compile(r"\$\{oc\.env:(\w+)")
_INDEX = "index.json"
#: Size in bytes up to which an input is hashed.
_LARGE = 1 << 30


def now() -> str:
    """Return the time, in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class _Command:
    """The command that this process runs.

    Args:
        program: Name of the console script; None in a script of somebody else's.
        args: The command line without the program's name.
    """

    def __init__(self, program: str | None = None, args: Sequence[str] = ()) -> None:
        self.line = None if program is None else shlex.join([program, *map(hide_secrets, args)])
        self.start = now()
        self.config: dict[str, Any] = {}
        self.seeds: dict[str, int] = {}
        self.inputs: dict[Path, dict[str, Any]] = {}
        self.read: list[Path] = []  # in the order of reading, with repetitions


_current = _Command()


def begin(program: str, args: Sequence[str]) -> None:
    """Begin the record of a command.

    Args:
        program: Name of the console script.
        args: The command line without the program's name.
    """
    global _current
    _current = _Command(program, args)


def set_arguments(config: Mapping[str, Any], seeds: Mapping[str, int]) -> None:
    """Record the arguments of a verb.

    Args:
        config: The arguments as typed, as plain values.
        seeds: The seeds by argument.
    """
    _current.config, _current.seeds = dict(config), dict(seeds)


def note_input(path: str | Path, **facts: Any) -> None:
    """Record that this command reads a file or a folder; its hash is taken when the record is written.

    Args:
        path: The file or folder.
        facts: What is known about it, as plain values; empty ones are left out.
    """
    place = Path(path).absolute()
    _current.inputs.setdefault(place, {}).update({key: value for key, value in facts.items() if value})
    _current.read.append(place)


def session() -> dict[str, Any]:
    """Return the present command as one entry in the history of what it writes: command line, start, no end yet."""
    return {"command": _current.line, "start": _current.start, "end": None, "exit": None}


def new_record(**facts: Any) -> dict[str, Any]:
    """Return the record of the present command, as plain values.

    Args:
        facts: Further entries, or replacements of those that are recorded of each command.
    """
    own = {
        "config": _current.config,
        "seeds": _current.seeds,
        "versions": versions(),
        "sessions": [{**session(), "end": now(), "exit": "finished"}],
    }
    content = plain(own | facts | {"inputs": facts["inputs"] if "inputs" in facts else inputs()})
    for one in [*content["inputs"], *([content["parent"]] if content.get("parent") else [])]:
        one["path"] = hide_variables(one["path"], content["config"])
    return {**stamp(FORMAT), **content}


def write_record(output: Path, **facts: Any) -> None:
    """Write the record of the present command, beside its output.

    Args:
        output: What the command wrote: a folder, which gets a `RECORD`, or a file, which gets ``NAME.run.json`` beside
            it.
        facts: See `new_record`.
    """
    write(record_path(output), new_record(**facts))


def output_with_record(output: str | Path, work: str | None = None) -> Path:
    """Return the path of a file that can be written, as `output_file` does, and its record beside it.

    Args:
        output: The path.
        work: See `output_file`.

    Raises:
        UserError: If either cannot be written, or a file that is no record has the name of the record.
    """
    path = output_file(output, work=work)
    beside = record_path(path)
    if beside.exists() and not is_overwriting():
        read(beside, "move it, or give another output")
    return path


def check_same_work(folder: Path, argument: str, work: Mapping[str, Any], results: Sequence[str]) -> None:
    """Check that what a folder holds is of the very same work, perhaps of less of it, unless ``--overwrite`` was given.

    Args:
        folder: The folder, which need not exist.
        argument: Name of the argument that gave it, for messages.
        work: What the results depend on, as plain values, and as `write_record` has them as ``work``. A mapping may
            have more entries than before; all else must be equal.
        results: Names of the files that the work writes beside its record.

    Raises:
        UserError: If the folder holds results of other work, or such files of somebody else.
    """
    path, now = folder / RECORD, plain(work)
    there = [name for name in (RECORD, *results) if (folder / name).exists()]
    if is_overwriting() or not there:
        return
    former = read(path).get("work") if path.is_file() else None
    fault = f"which has a {there[0]} that this command did not write"
    if isinstance(former, dict):
        other = [key for key in {**now, **former} if not _is_within(former.get(key), now.get(key))]
        if not other:
            return
        fault = f"which holds the results of other {other[0]}"
    raise UserError(f"{argument} is {folder}, {fault}; give another folder, or add --overwrite.")


def _is_within(former: Any, now: Any) -> bool:
    if isinstance(former, dict) and isinstance(now, dict):
        return all(key in now and now[key] == value for key, value in former.items())
    return bool(former == now)


def add_to_record(folder: Path) -> None:
    """Add the present command to the record of a folder that several commands fill, such as that of ``prepare``."""
    path = folder / RECORD
    former = read(path)["sessions"] if path.is_file() else []
    own = new_record()
    write(path, {**own, "sessions": [*former, *own["sessions"]]})


def record_path(output: Path) -> Path:
    """Return the path of the record of a file or folder that a command writes."""
    return output / RECORD if output.is_dir() else output.with_name(f"{output.name}.{RECORD}")


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all."""
    atomic_write(path, json.dumps(record, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


class _Steps(TypedDict, total=False):
    step: int | None
    from_step: int | None


class _Session(_Steps):
    command: str | None
    start: str
    end: str | None
    exit: str | None


class _Input(TypedDict):
    path: str


class _Devices(TypedDict):
    devices: int
    name: str | None
    accelerator: str
    nodes: int
    strategy: str
    precision: str


class _Parent(TypedDict):
    path: str
    step: int
    sha256: str
    sessions: list[_Session]
    parent: _Parent | None


class _Record(TypedDict, total=False):
    sessions: list[_Session]
    inputs: list[_Input]
    evaluations: list[_Session]
    parent: _Parent | None
    devices: _Devices | None
    config: dict[str, Any]
    seeds: dict[str, Any]
    versions: dict[str, Any]


class _Written(TypedDict):
    sessions: list[_Session]


def read(path: Path, remedy: str = "remove it") -> dict[str, Any]:
    """Read a record.

    Args:
        path: The file.
        remedy: What to do about one that cannot be read, as an imperative.

    Raises:
        UserError: If it is not one, or of another version.
    """
    content: dict[str, Any] = read_stamped(path, FORMAT, _Written, remedy)
    return checked_record(content, path)


def checked_record(content: Any, path: str | Path) -> dict[str, Any]:
    """Return a record that stands in a file, if it is one.

    Args:
        content: The record, empty where there is none.
        path: The file.

    Raises:
        UserError: If a value is of another type than those that are shown.
    """
    about: dict[str, Any] = checked(_Record, content, str(path), "restore the file", KEY)
    times = [one[key] for one in about.get("sessions", []) for key in ("start", "end") if one[key] is not None]
    try:
        for time in times:
            datetime.fromisoformat(time)
    except ValueError as error:
        raise UserError(f"{path} has the time {error} in its record; restore the file.") from error
    return about


def ancestor(path: str | Path, checkpoint: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a record says about the weights from which something was made.

    Args:
        path: A checkpoint, a file or a folder; or the folder of another model.
        checkpoint: Content of the checkpoint; None for another model, which may have the record of an export.
    """
    beside = Path(path) / RECORD
    if checkpoint is None:
        checkpoint = {KEY: read(beside)} if beside.is_file() else {}
    record = checkpoint.get(KEY) or {}
    return {
        "path": str(path),
        "sha256": _content_sha256(Path(path)),
        "step": int(checkpoint.get("global_step", 0)),
        "sessions": record.get("sessions", []),
        "parent": record.get("parent"),
    }


def of_run(path: str | Path, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of the run that a checkpoint belongs to; empty if the run kept none.

    The record in the run folder also tells what the run did after it saved the checkpoint, such as how it ended.

    Args:
        path: The checkpoint.
        checkpoint: Its content.
    """
    own = dict(checkpoint.get(KEY) or {})
    beside = Path(path).absolute().parent.parent / RECORD
    if not beside.is_file():
        return own
    whole = read(beside)
    same = not own or whole["sessions"][0]["start"] == own["sessions"][0]["start"]
    return whole if same else own


def read_so_far() -> list[Path]:
    """Return the files and folders that this process has read, in the order of reading, with repetitions."""
    return list(_current.read)


def inputs(exclude: Iterable[str | Path] = (), among: Iterable[Path] | None = None) -> list[dict[str, Any]]:
    """Return the files and folders that this command has read, with their hashes, in the order of reading.

    Args:
        exclude: Paths to leave out.
        among: Those of `read_so_far` that are meant; None takes all.
    """
    left_out, meant = {Path(path).absolute() for path in exclude}, set(_current.inputs if among is None else among)
    items = ((path, facts) for path, facts in _current.inputs.items() if path in meant - left_out)
    return [{"path": _shown(path), **facts, **_identity(path)} for path, facts in items]


@lru_cache
def versions() -> dict[str, str | None]:
    """Return the versions of LitShift, with its commit in a checkout, of Python, CUDA and the libraries."""
    found: dict[str, str | None] = {"lit-shift": lit_core.__version__, "commit": _commit()}
    found["python"] = platform.python_version()
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    import torch

    return found | {"cuda": torch.version.cuda, "system": f"{platform.system()} {platform.machine()}"}


def hide_secrets(text: str) -> str:
    """Return a text in which values of secret environment variables are references to these.

    A shell replaces ``$HF_TOKEN`` before the command sees it; the recorded command must not show it.
    """
    return _with_references(text, _secrets())


def _secrets() -> list[tuple[str, str]]:
    """Return the secret environment variables with their values."""
    return [
        (key, value) for key, value in os.environ.items() if len(value) >= _SHORTEST and _SECRET.search(key.upper())
    ]


def _with_references(text: str, variables: Iterable[tuple[str, str]]) -> str:
    """Return a text in which values of environment variables are references to these."""
    for name, value in variables:
        text = text.replace(value, f"${{oc.env:{name}}}")
    return text


def hide_variables(text: str, config: Mapping[str, Any]) -> str:
    """Return a text, such as a path, in which values of environment variables are references as in a config.

    Args:
        text: The text.
        config: A config as typed; the variables that it refers to are replaced, where their values are whole words.
    """
    return _with_words_as_references(text, _variables(config))


def _variables(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the environment variables that a config refers to, with their values, but for short ones."""
    names = sorted(set(_VARIABLE.findall(json.dumps(config))))
    return [(name, value) for name in names if len(value := os.environ.get(name, "")) >= 3]


def _with_words_as_references(text: str, variables: Iterable[tuple[str, str]]) -> str:
    """Return a text in which values of environment variables, where they are whole words, are references to these."""
    for name, value in variables:
        text = re.sub(rf"(?<![\w.-]){re.escape(value)}(?![\w-])", lambda _, name=name: f"${{oc.env:{name}}}", text)  # type: ignore[misc]
    return text


def shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they may be written: values of environment variables are references to these.

    Where there are such, the key ``environment`` holds a digest of the settings, so that they differ where a variable
    has another value.

    Args:
        settings: Plain values, or what this function returned of them, which is not changed.
    """
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False, default=str)
    hidden = hidden_values(dict(settings))
    if text == json.dumps(hidden, sort_keys=True, ensure_ascii=False, default=str):
        return hidden
    return hidden | {"environment": hashlib.sha256(text.encode()).hexdigest()[:16]}


def hidden_values(value: Any) -> Any:
    """Return plain values in which values of environment variables are references, as in the command's arguments."""
    secrets, variables = _secrets(), _variables(_current.config)

    def hidden(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: hidden(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [hidden(inner) for inner in value]
        if isinstance(value, str):
            return _with_words_as_references(_with_references(value, secrets), variables)
        return value

    return hidden(value)


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; numbers that are not finite become texts."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return hide_secrets(str(value))


def _identity(path: Path) -> dict[str, Any]:
    """Return by what an input is recognised: a hash, or for folders and large files their size, names and times."""
    if path.is_file() and path.stat().st_size <= _LARGE:
        return {"sha256": file_sha256(path)}
    if (path / _INDEX).is_file():
        return {"index_sha256": file_sha256(path / _INDEX)}
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return files_facts(files) if files else {}


def _content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of the files in a folder."""
    if path.is_file():
        return file_sha256(path)
    lines = [f"{file.name} {file_sha256(file)}\n" for file in sorted(path.iterdir()) if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _commit() -> str | None:
    """Return the commit of the checkout that LitShift is imported from, with "-dirty" where files differ from it."""
    root = Path(lit_core.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
