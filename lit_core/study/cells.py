"""Running one cell of a study. Its result is a file that is written last, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, TypedDict

from lit_core import __version__
from lit_core.cli.messages import sentence
from lit_core.cli.run_folder import STUDY
from lit_core.errors import RunFailure
from lit_core.files.formats import read_stamped, stamp
from lit_core.files.logged import METRICS, logged_values
from lit_core.files.paths import atomic_write, remove_folder, resolve_data_path
from lit_core.files.remade import read_or_set_aside
from lit_core.files.yaml_files import read_mapping
from lit_core.record import hidden_values, shown, versions
from lit_core.references import resolved
from lit_core.study.grid import RECORD_COLUMNS, Cell, locate
from lit_core.study.identity import identity
from lit_core.study.options import bind
from lit_core.study.rows import ResultRow

#: Name of the format of a cell's config and result.
FORMAT = "litshift-cell"
CONFIG, RESULT, ERROR, LOG = "cell.json", "result.json", "error.txt", "log.txt"


class _Result(TypedDict):
    """Content of the file of a cell's result, as far as it is read."""

    data: str
    code: str
    seconds: float
    rows: list[dict[str, Any]]


def rows_of(cell: Cell, result: Mapping[str, Any]) -> list[ResultRow]:
    """Return a finished cell's rows."""
    record = {"cell": cell.name, "config": cell.identity, "data": result["data"], "code": result["code"]}
    rows = []
    for row in result["rows"]:
        measured = {key: value for key, value in row.items() if isinstance(value, float)}
        labels = {key: value for key, value in row.items() if key not in measured}
        rows.append(ResultRow({"grid": cell.grid, **cell.labels, **labels}, measured, record))
    return rows


def finished(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """Return the result of a cell that was run with the present config; None if it was not, or its file is damaged."""
    path = folder / cell.name / RESULT
    if not path.is_file() or not _is_of(cell, path.parent):
        return None
    result: dict[str, Any] | None = read_or_set_aside(
        path, lambda remedy: read_stamped(path, FORMAT, _Result, remedy, lenient=True)
    )
    return result


def run_cell(cell: Cell, folder: Path, package: str, lock: int) -> dict[str, Any]:
    """Run a cell and write its result or its error.

    Args:
        cell: The cell.
        folder: Folder of all cells.
        package: Package whose commands are run, such as ``lit_moe``.
        lock: File descriptor that locks the study. The cell's commands inherit it, so that the study stays locked while
            a command of a killed study still runs.

    Returns:
        The result. If the cell failed, its key ``error`` holds one sentence.
    """
    own = folder / cell.name
    if own.exists() and not _is_of(cell, own):
        remove_folder(own)
    atomic_write(own / CONFIG, json.dumps({**stamp(FORMAT), **cell.config}, indent=1, ensure_ascii=False) + "\n")
    for name in (RESULT, ERROR):
        (own / name).unlink(missing_ok=True)
    result: dict[str, Any] = {**stamp(FORMAT), "code": code_version(package), "versions": versions()}
    begin = time.monotonic()
    try:
        rows = _call(cell) if cell.function is not None else _command_rows(cell, folder, package, lock)
        result["data"], result["rows"] = _checked(hidden_values(rows), cell)
    except Exception as error:  # a cell that fails must not end the study
        atomic_write(own / ERROR, hidden_values(traceback.format_exc()))
        return result | {"error": sentence(error)}
    result["seconds"] = time.monotonic() - begin
    atomic_write(own / RESULT, json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n")
    return result


def _is_of(cell: Cell, own: Path) -> bool:
    """Return whether the files in a cell's folder were made with its present config."""
    path = own / CONFIG
    if not path.is_file():
        return False
    content = read_or_set_aside(path, lambda remedy: read_stamped(path, FORMAT, dict, remedy, lenient=True), own)
    if content is None:
        return False
    return identity(shown({key: value for key, value in content.items() if key not in stamp(FORMAT)})) == cell.identity


@lru_cache
def code_version(package: str) -> str:
    """Return the version, with the hash of the sources that a package runs on."""
    digest = hashlib.sha256()
    for root in ("lit_core", package):
        top = Path(str(files(root)))
        for path in sorted(top.rglob("*.py")):
            digest.update(f"{path.relative_to(top)}\0".encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"


def _call(cell: Cell) -> list[dict[str, Any]]:
    assert cell.function is not None
    function = locate(cell.function, "function")
    rows: list[dict[str, Any]] = function(**bind(function, cell.values))
    return rows


def _command_rows(cell: Cell, folder: Path, package: str, lock: int) -> list[dict[str, Any]]:
    """Run a cell's command lines in its run folder and return the last value of each metric."""
    own = folder / cell.name
    last = own / "checkpoints" / "last.ckpt"
    for command in cell.commands:
        args = _with_config_paths(shlex.split(command))
        if args[0] == "fit" and last.exists():  # resume the run in which the study was killed
            args = ["fit", "--ckpt_path", str(last)]
        elif args[0] in ("fit", "validate", "test", "predict"):
            args += ["--run", cell.name]
            for name in ("config.yaml", METRICS) if args[0] == "fit" else ():  # of a fit killed before it saved
                (own / name).unlink(missing_ok=True)
        with (own / LOG).open("ab") as log:
            words = [sys.executable, "-m", package, *args]
            environment = {**os.environ, STUDY: str(folder)}
            with subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock,),
                start_new_session=True,  # a signal of the terminal reaches it once, through the study
            ) as process:
                try:
                    code = process.wait()
                except KeyboardInterrupt:  # Ctrl-C or SIGTERM; the cell's command saves and ends
                    process.terminate()
                    process.wait()
                    raise
        atomic_write(own / LOG, hidden_values((own / LOG).read_text(errors="replace")))
        if code != 0:
            lines = (own / LOG).read_text(errors="replace").splitlines() or [""]
            messages = [line for line in lines if line.startswith(f"{package.replace('_', '-')}: ")] or lines
            messages = [line for line in messages if "--debug" not in line] or messages
            raise RunFailure(f"`{shlex.join(args)}` ended with {code}: {messages[-1]}")
    if not (own / METRICS).is_file():
        raise RunFailure(f"The commands of {cell.name} logged no metrics; add fit, validate or test to them.")
    last_values = {key: pairs[-1][1] for key, pairs in logged_values(own).items() if key != "epoch"}
    return [last_values | {"data": _data_hash(own)}]


def _with_config_paths(words: list[str]) -> list[str]:
    """Return a command line with the paths of its configs, which cannot be references."""
    named = [word.startswith("--config=") or before in ("--config", "-c") for before, word in pairwise(["", *words])]
    return [resolved({"": word})[""] if config else word for config, word in zip(named, words, strict=True)]


def _data_hash(run: Path) -> str:
    """Return the hash of the indices below the data root that a run's config names, which hold the shards' hashes."""
    config = read_mapping(run / "config.yaml") if (run / "config.yaml").is_file() else {}
    root = (config.get("data", {}).get("init_args") or {}).get("root")
    indices = sorted(resolve_data_path(root).rglob("index.json")) if root else []
    return hashlib.sha256(b"".join(path.read_bytes() for path in indices)).hexdigest()[:16] if indices else ""


def _checked(rows: Any, cell: Cell) -> tuple[str, list[dict[str, Any]]]:
    """Return the hash of the data and the rows, if they are plain and name nothing that the cell has itself."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, Mapping) for row in rows):
        raise RunFailure(f"{cell.function} returned {type(rows).__name__}, but must return a list of one row or more.")
    data = {str(row.get("data", "")) for row in rows}
    plain = [{key: value for key, value in row.items() if key != "data"} for row in rows]
    for row in plain:
        for key, value in row.items():
            if key in cell.labels or key in RECORD_COLUMNS:
                raise RunFailure(
                    f"A row of {cell.function} has the key {key}, which is a value of the cell; rename it."
                )
            if not isinstance(value, str | bool | int | float):
                raise RunFailure(
                    f"A row of {cell.function} holds {key} = {value!r}; convert it to text, a boolean or a number."
                )
    return "+".join(sorted(data)), plain
