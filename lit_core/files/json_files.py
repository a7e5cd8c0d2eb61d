"""The only reader of JSON: bounded size and depth, no key twice, and the types that the caller expects."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.text_files import decoded, lines_of, opened, read_whole

#: Most levels of objects and lists inside each other; what reads the values may call itself at each.
DEEPEST = 50
#: Most values, which can take fifty times the memory of their text.
_MOST_VALUES = 5_000_000
#: Most of what a run counts, such as tokens: all whole numbers up to it are floats, too.
_MOST_COUNTED = 1 << 53
_NAMES: dict[Any, str] = {
    **{dict: "an object", list: "a list", tuple: "a list", str: "a text", bool: "a truth value"},
    **{int: "a whole number", float: "a number"},
}


def read_json(
    path: str | Path, kind: Any = dict, remedy: str = "restore or create it again", lenient: bool = False
) -> Any:
    """Return the content of a JSON file.

    Args:
        path: The file; ``.gz``, ``.xz`` and ``.zst`` are decompressed.
        kind: Type of the content; see `checked`.
        remedy: What to do about a damaged file, as an imperative.
        lenient: Whether NaN, infinite numbers and half surrogate pairs, which are not JSON, are allowed.

    Raises:
        UserError: If there is no such file, it is larger than `LARGEST`, or not such JSON.
    """
    return parse_json(read_whole(Path(path)), str(path), kind, remedy, lenient)


def parse_json(
    content: bytes | str,
    where: str,
    kind: Any = dict,
    remedy: str = "restore or create it again",
    lenient: bool = False,
) -> Any:
    """Return the value of a JSON text.

    Args:
        content: The text, as bytes in UTF-8 or decoded.
        where: File, or file and line, for the error message.
        kind: Type of the content; see `checked`.
        remedy: What to do about damage, as an imperative.
        lenient: Whether NaN, infinite numbers and half surrogate pairs, which are not JSON, are allowed.

    Raises:
        UserError: If it is not JSON, repeats a key, is more than `DEEPEST` levels deep, has very many values, or
            another type.
    """
    text = decoded(content, where, remedy) if isinstance(content, bytes) else content
    if len(text) > _MOST_VALUES and sum(map(text.count, ",[{")) > _MOST_VALUES:
        raise UserError(f"{where} holds more than {_MOST_VALUES:,} values, too many for such a file; {remedy}.")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=None if lenient else _refuse)
        if text.count("[") + text.count("{") > DEEPEST and not is_shallow(value):
            raise ValueError(f"more than {DEEPEST} levels deep")
        if not lenient and "\\ud" in text.lower() and not _is_text(value):
            raise ValueError("a text holds half a surrogate pair")
    except RecursionError:
        raise UserError(f"{where} is not valid JSON (more than {DEEPEST} levels deep); {remedy}.") from None
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where} is not valid JSON ({reason}). It may be truncated; {remedy}.") from error
    return checked(kind, value, where, remedy)


def json_lines(path: Path, bad: BadRows = STOP) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file and line, and the object, of each line of a JSONL file that is not blank.

    Args:
        path: The file; compressed ones are decompressed.
        bad: What becomes of a line that is not a JSON object.

    Raises:
        UserError: If there is such a line and it ends the command.
    """
    with opened(path) as file:
        for where, line in lines_of(file, path, bad):
            if line.strip():
                try:
                    row = parse_json(line, where, dict, "fix or remove the line, or restore the file", lenient=True)
                except UserError as error:
                    bad.add(where, error)
                else:
                    yield where, row


def plain(value: Any, default: Callable[[Any], Any] | None = None) -> Any:
    """Return a value of this program as it would come back from a JSON file.

    Args:
        value: The value.
        default: Returns a plain value for another one; None raises TypeError.
    """
    return json.loads(json.dumps(value, default=default))


def checked_state(kind: Any, state: Any, owner: str) -> Any:
    """Return what a checkpoint keeps of a part of a run, and refuse what no run counts.

    Args:
        kind: Its type; see `checked`.
        state: What stands in the checkpoint.
        owner: Name of the part.

    Raises:
        UserError: If it is of another type, or a whole number in it is below 0 or above `_MOST_COUNTED`.
    """
    where = f"The checkpoint's state of {owner}"
    result = checked(kind, state, where, "give another checkpoint")
    level = [state]
    while level:
        inner = level.pop()
        if isinstance(inner, dict | list):
            level.extend(inner.values() if isinstance(inner, dict) else inner)
        elif isinstance(inner, int) and not 0 <= inner <= _MOST_COUNTED:
            raise UserError(
                f"{where} holds {inner}, but its whole numbers are counts, from 0 to {_MOST_COUNTED}; give another "
                "checkpoint."
            )
    return result


def checked(kind: Any, value: Any, where: str, remedy: str, key: str = "") -> Any:
    """Return parsed JSON as the type of an annotation, and refuse a value of another type.

    Args:
        kind: A plain type, ``list[…]``, ``tuple[…, ...]``, a pair of one type, ``dict[str, …]`` or a union of those; a
            TypedDict, which may have further keys; a dataclass, which may not and which is made of the object; or
            ``Any``.
        value: The value.
        where: File, or file and line, for the error message.
        remedy: What to do about it, as an imperative.
        key: Path of the value in the file.

    Raises:
        UserError: If it is of another type; the message names the key. A float is finite.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)

    def each(name: Any, part: Any, item: Any) -> Any:
        return checked(part, item, where, remedy, f"{key}[]" if name is None else f"{key}.{name}")

    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        kinds = [choice for choice in inner if choice is not type(None)]
        if len(kinds) == 1:
            return checked(kinds[0], value, where, remedy, key)
        holds, result = type(value) in kinds, value
    elif typing.is_typeddict(kind) or dataclasses.is_dataclass(kind):
        holds, result = isinstance(value, dict), value
        if holds:
            hints = typing.get_type_hints(kind)
            whole = not typing.is_typeddict(kind)
            odd = value.keys() ^ hints.keys() if whole else kind.__required_keys__ - value.keys()
            for name in sorted(odd):
                at = _shown(f"{key}.{name}")
                raise UserError(f"{where} has {at if name in value else f'no {at}'}; {remedy}.")
            fields = {name: each(name, hint, value[name]) for name, hint in hints.items() if name in value}
            return kind(**fields) if whole else value | fields
    elif origin in (list, tuple):
        holds = isinstance(value, list) and (origin is list or inner[1] is ... or len(value) == len(inner))
        result = origin(each(None, inner[0], item) for item in value) if holds else None
    elif origin in (dict, Mapping):
        holds = isinstance(value, dict)
        result = {name: each(name, inner[1], item) for name, item in value.items()} if holds else None
    elif kind is float:
        holds = type(value) in (int, float) and abs(value) <= sys.float_info.max  # nor nan
        result = float(value) if holds else None
    else:
        holds, result = type(value) is kind, value
    if not holds:
        wanted = _NAMES.get(origin or kind, "an object" if isinstance(kind, type) else f"of type {kind}")
        found = _NAMES.get(type(value), "null") if _NAMES.get(type(value)) != wanted else "not one"
        at = _shown(key)
        raise UserError(f"{where}{f', {at}' if at else ''} is {found}, but must be {wanted}; {remedy}.")
    return result


def _shown(key: str) -> str:
    return key.lstrip(".").encode("unicode_escape").decode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"an object has the key {twice[:80]!r} twice")
    return content


def _refuse(number: str) -> None:
    raise ValueError(f"{number} is not a number of JSON")


def is_shallow(value: Any) -> bool:
    """Tell whether plain values are at most `DEEPEST` levels deep."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for part in level
            if isinstance(part, dict | list | tuple)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return True
    return False


def _is_text(value: Any) -> bool:
    """Return whether all texts of a value can be written as UTF-8, which half a surrogate pair cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
