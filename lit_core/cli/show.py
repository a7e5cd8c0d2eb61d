"""The verb ``show``: what a run, a checkpoint or another file of ours was made by, and what differs between two."""

from __future__ import annotations

import json as json_lines
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from lit_core import record
from lit_core.cli.record_text import difference_text, differences, record_text
from lit_core.errors import UserError
from lit_core.files.formats import is_checkpoint_folder
from lit_core.files.json_files import parse_json, read_json
from lit_core.files.paths import resolve_data_path
from lit_core.files.text_files import read_whole
from lit_core.files.yaml_files import read_mapping
from lit_core.references import without_environment
from lit_core.screen import say
from lit_core.seeds import seeds_of

#: Records of evaluations in a run folder; one that holds only these is shown by the last of them.
_EVALUATION = "run.*.json"
#: Files in a folder of ours that tell what it holds, where no record of a command lies there.
_OWN = ("manifest.json", "prepare.json", "cell.json", "index.json")


def show(paths: list[str] | None = None, json: bool = False) -> None:
    """Tell what a run or an output was made by: command, history, parent, seeds, data, versions and config.

    Args:
        paths: A run folder, a checkpoint, or another file or folder that a command wrote; the flag may be left out, as
            in ``lit-moe show runs/moe/first``. Of two, what differs is shown.
        json: Whether to print JSON, with all keys.

    Raises:
        UserError: If a path does not exist or nothing is recorded about it, or there are more than two.
    """
    paths = paths or []
    if len(paths) not in (1, 2):
        raise UserError(f"show takes one or two paths, but got {len(paths)}; name a run, or two to compare.")
    facts = [facts_of(path) for path in paths]
    if len(facts) == 1:
        text = json_lines.dumps(facts[0], indent=1) if json else record_text(facts[0])
        say(*text.split("\n"))
        return
    differ = differences(*facts)
    text = json_lines.dumps(differ, indent=1) if json else difference_text(paths, differ)
    say(*text.split("\n"))


def facts_of(given: str | Path) -> dict[str, Any]:
    """Return what is recorded about a run, a checkpoint, or another file or folder that a command wrote.

    Args:
        given: The file or folder; absolute, from the working directory, or below the data root.

    Returns:
        The record, and the ``path``; for a checkpoint its ``step``; for a run its ``evaluations``, and the ``step`` of
        its last checkpoint.

    Raises:
        UserError: If there is nothing there, or nothing is recorded about it.
    """
    path = resolve_data_path(given)
    if not path.exists():
        raise UserError(
            f"paths names {given}, which does not exist; give a run folder, a checkpoint or an output of a command."
        )
    if path.suffix == ".ckpt" or is_checkpoint_folder(path):
        return {"path": str(path), **_of_checkpoint(path)}
    for candidate in _candidates(path):
        if candidate.is_file():
            facts = {"path": str(path), **record.read(candidate)}
            return facts | (_of_run(candidate.parent) if path.is_dir() or candidate.name == record.RECORD else {})
    if path.suffix == ".json":
        return {"path": str(path), **_of_json(path)}
    if path.suffix == ".jsonl" and (entry := _last_entry(path)):
        return {"path": str(path), **entry}
    folder = path if path.is_dir() else path.parent
    if (folder / "config.yaml").is_file():  # a run of a version that kept no record
        config = read_mapping(folder / "config.yaml")
        return {"path": str(path), **_of_config(config), **_of_run(folder)}
    for name in _OWN:
        if (folder / name).is_file():
            return {"path": str(path), **_of_json(folder / name)}
    sources = sorted(folder.glob("*/prepare.json"))
    if sources:
        return {"path": str(path), "content": {one.parent.name: _of_json(one)["content"] for one in sources}}
    raise UserError(f"Nothing is recorded about {path}; it was not written by a command, or its record was removed.")


def _candidates(path: Path) -> Iterator[Path]:
    """Yield the paths at which the record of a file or folder may lie, the nearest first."""
    if path.is_dir():
        yield path / record.RECORD
        yield from sorted(path.glob(_EVALUATION), key=lambda one: one.stat().st_mtime, reverse=True)
        return
    if path.name == record.RECORD or path.match(_EVALUATION) or path.name.endswith(f".{record.RECORD}"):
        yield path
    yield path.with_name(f"{path.name}.{record.RECORD}")
    command = {"predictions": "predict"}.get(path.stem) or path.stem.removeprefix("config").strip(".")
    yield path.with_name(f"run.{command}.json")
    yield path.with_name(record.RECORD)


def _of_checkpoint(path: Path) -> dict[str, Any]:
    from lit_core.lightning.checkpoint import read_checkpoint_facts
    from lit_core.lightning.python_record import config_of

    checkpoint = read_checkpoint_facts(path, "paths")
    about = record.checked_record(checkpoint.get(record.KEY) or {}, path)
    about = about or _of_config(checkpoint.get("config") or config_of(checkpoint))
    return {**about, "step": checkpoint["global_step"]}


def _of_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return what the config alone tells of a run."""
    settled = without_environment(config)
    return record.plain({"config": config, "resolved": settled, "seeds": seeds_of(settled) if config else {}})


def _of_run(folder: Path) -> dict[str, Any]:
    """Return what lies in a run folder beside its record: the step of the last checkpoint, and evaluations."""
    facts: dict[str, Any] = {}
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        from lit_core.lightning.checkpoint import read_checkpoint_facts

        facts["step"] = read_checkpoint_facts(last, "paths")["global_step"]
    evaluations = [record.read(path)["sessions"][-1] for path in sorted(folder.glob(_EVALUATION))]
    return facts | ({"evaluations": evaluations} if evaluations else {})


def _of_json(path: Path) -> dict[str, Any]:
    """Return the record inside a JSON file of ours, and what else tells where the file comes from."""
    content = read_json(path, remedy="give another file", lenient=True)
    own = str(content.get("format", "")).startswith("litshift-")
    if not own and path.name not in _OWN:
        raise UserError(f"Nothing is recorded about {path}; it was not written by a command.")
    about = record.checked_record(content.pop(record.KEY, {}), path)
    content.pop("shards", None)
    if isinstance(content.get("contents"), dict):
        content["contents"].pop("shards", None)
    return {**about, "content": content}


class _Entry(TypedDict):
    notes: dict[str, dict[str, Any]]


def _last_entry(path: Path) -> dict[str, Any] | None:
    """Return the record in the last line of a ledger, and what the line says; None for a file that is not a ledger."""
    try:
        entry = parse_json(read_whole(path).splitlines()[-1], f"{path}, last line", _Entry)
        about = record.checked_record(entry["notes"][record.KEY], path)
    except (UserError, KeyError, IndexError):
        return None
    return {**about, "content": {key: value for key, value in entry.items() if key not in ("samples", "notes")}}
