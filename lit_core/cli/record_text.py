"""Records as text: aligned rows for one, a table of what differs for two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from lit_core.progress import duration
from lit_core.screen import on_screen

#: Longest value that is shown in a column beside another one.
_SHORT = 44


def record_text(facts: Mapping[str, Any]) -> str:
    """Return a record as aligned rows, the outcome first and the config last.

    Args:
        facts: The record, as `lit_core.cli.show.facts_of` returns it.
    """
    rows = record_rows(facts)
    lines = [
        f"{label if index == 0 or rows[index - 1][0] != label else '':<13}{value}"
        for index, (label, value) in enumerate(rows)
    ]
    config = config_rows(facts)
    if config:
        width = max(len(key) for key, _ in config)
        lines += ["", "Config, with the values of references; what is null is left out"]
        lines += [f"  {key:<{width}}  {value}" for key, value in config if value != "null"]
    return "\n".join(map(on_screen, lines))


def record_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the labelled lines of a record, without the config.

    Args:
        facts: See `record_text`.
    """
    sessions = facts.get("sessions", [])
    rows: list[tuple[str, str]] = [("Path", facts["path"]), *(("Outcome", line) for line in _outcome(facts))]
    if sessions:
        rows.append(("Command", sessions[-1]["command"] or "a script"))
        rows.append(("Time", _time(sessions[-1])))
    rows += [("History", _history(one)) for one in sessions] if len(sessions) > 1 else []
    rows += _ancestors(facts.get("parent"))
    rows += [("Evaluated", _history(one)) for one in facts.get("evaluations", [])]
    rows += [("Seeds", f"{seed}  {key}") for key, seed in facts.get("seeds", {}).items()]
    rows += [("Read", _input(one)) for one in facts.get("inputs", [])]
    rows += [("Devices", _devices(facts["devices"]))] if facts.get("devices") else []
    rows += [("Versions", _versions(facts["versions"]))] if facts.get("versions") else []
    rows += [("Holds", f"{key}: {_yaml(value)}") for key, value in _flat(facts.get("content", {}))]
    return rows


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values of two records that differ, by key; times do not count.

    Args:
        first: A record.
        second: Another one.
    """
    one, other = _comparable(first), _comparable(second)
    pairs = {key: [one.get(key), other.get(key)] for key in {**one, **other}}
    nothing = (None, "null")
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1] and not all(v in nothing for v in pair)}


def difference_text(names: Sequence[str], differ: Mapping[str, Sequence[Any]]) -> str:
    """Return differences as a table of three columns; values that are long stand on lines of their own.

    Args:
        names: The two paths.
        differ: Two values by key.
    """
    if not differ:
        return "Nothing differs, except times."
    shown = {
        key: ["-" if value is None else str(value)[: 12 if key.endswith("sha256") else None] for value in pair]
        for key, pair in differ.items()
    }
    short = {key: pair for key, pair in shown.items() if max(map(len, pair)) <= _SHORT}
    table = [["", *(name if len(name) <= _SHORT else f"…{name[1 - _SHORT :]}" for name in names)]]
    table += [[key, *pair] for key, pair in short.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    for key, pair in shown.items():
        if key not in short:
            lines += ["", key, *(f"  {name}  {value}" for name, value in zip(_aligned(names), pair, strict=True))]
    return "\n".join(map(on_screen, lines))


def _comparable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two records are compared by, by key."""
    flat: dict[str, Any] = {}
    for index, outcome in enumerate(_outcome(facts)):
        flat["outcome" if index == 0 else f"outcome.{index}"] = outcome
    if facts.get("sessions"):
        flat["command"] = facts["sessions"][-1]["command"]
        flat["commands"] = len(facts["sessions"])
    parent = facts.get("parent") or {}
    flat |= {f"parent.{key}": parent[key] for key in ("path", "step", "sha256") if key in parent}
    for key in ("seeds", "devices", "versions", "content"):
        flat |= {f"{key}.{inner}": value for inner, value in _flat(facts.get(key, {}))}
    for one in facts.get("inputs", []):
        name = "/".join(str(one[key]) for key in ("source", "split") if key in one) or one["path"]
        flat |= {f"read.{name}.{key}": value for key, value in one.items() if key not in ("source", "split")}
    return flat | dict(_config(facts))


def config_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the keys of the config with their values as typed, and what a reference stands for.

    Args:
        facts: See `record_text`.
    """
    return list(_config(facts))


def _config(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    typed, settled = dict(_flat(facts.get("config", {}))), dict(_flat(facts.get("resolved", {})))
    for key in {**typed, **settled}:
        value = _yaml(typed[key]) if key in typed else ""
        if key not in typed:
            parents = [key.rsplit(".", count)[0] for count in range(1, key.count(".") + 1)]
            if any(parent in typed for parent in parents):
                continue  # inside what a reference stands for
            value = f"{_yaml(settled[key])} (computed)"
        elif key in settled and settled[key] != typed[key]:
            value += f" = {_yaml(settled[key])}"
        yield key, value


def _yaml(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield plain values by their path; lists of plain values are values."""
    if isinstance(node, Mapping) and (node or not path):
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list) and any(isinstance(item, Mapping | list) for item in node):
        for index, value in enumerate(node):
            yield from _flat(value, f"{path}.{index}")
    else:
        yield path, node


def _outcome(facts: Mapping[str, Any]) -> Iterator[str]:
    sessions, step = facts.get("sessions"), facts.get("step")
    if not sessions:
        if "content" not in facts:
            yield "unknown, since this was written before runs kept a record"
        return
    last = sessions[-1]
    if facts["path"].endswith(".ckpt"):
        yield f"saved at step {step}"
    elif last["exit"] is None:
        saved = "no checkpoint is saved yet" if step is None else f"the last checkpoint is at step {step}"
        yield f"not ended: the process is running, or was killed; {saved}"
    else:
        at = "" if last.get("step") is None else f" at step {last['step']}"
        what, colon, reason = last["exit"].partition(": ")
        yield f"{what}{at}{colon}{reason}"


def _history(session: Mapping[str, Any]) -> str:
    """Describe one command of a history in a line."""
    steps = ""
    if session.get("from_step") is not None:
        last = session.get("step")
        steps = f", steps {session['from_step']} to {'?' if last is None else last}"
    outcome = (session["exit"] or "not ended").partition(": ")[0]
    return f"{_minute(session['start'])}{steps}, {outcome}: {session['command'] or 'a script'}"


def _time(session: Mapping[str, Any]) -> str:
    if session["end"] is None:
        return f"from {_minute(session['start'])} UTC"
    seconds = (datetime.fromisoformat(session["end"]) - datetime.fromisoformat(session["start"])).total_seconds()
    return f"{_minute(session['start'])} to {_minute(session['end'])} UTC, {duration(seconds)}"


def _minute(time: str) -> str:
    return time[:19].replace("T", " ")


def _ancestors(parent: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    depth = 0
    while parent:
        digest = parent.get("sha256", "")
        known = f", sha256 {digest[:12]}" if digest else ""
        label = "Parent" if depth == 0 else "  its parent"
        yield label, f"{parent['path']} at step {parent['step']}{known}"
        if parent.get("sessions"):
            yield label, f"  by {parent['sessions'][-1]['command'] or 'a script'}"
        parent, depth = parent.get("parent"), depth + 1


def _input(one: Mapping[str, Any]) -> str:
    about = [f"step {one['step']}"] if "step" in one else []
    about += [str(one[key]) for key in ("licence", "origin") if one.get(key)]
    for key, name in (("index_sha256", "index"), ("sha256", "sha256"), ("tokenizer_sha256", "tokenizer")):
        about += [f"{name} {one[key][:12]}"] if one.get(key) else []
    return f"{one['path']}: {', '.join(about)}" if about else str(one["path"])


def _devices(devices: Mapping[str, Any]) -> str:
    count, kind = devices["devices"], devices["name"] or devices["accelerator"]
    nodes = f" on {devices['nodes']} nodes" if devices["nodes"] > 1 else ""
    return f"{count} {kind}{nodes}, {devices['strategy']}, precision {devices['precision']}"


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _aligned(names: Sequence[str]) -> list[str]:
    width = max(map(len, names))
    return [name.ljust(width) for name in names]
