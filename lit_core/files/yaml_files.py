"""The only reader of YAML: bounded size and depth, aliases that stay small, and no key twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lit_core.errors import UserError
from lit_core.files.text_files import read_whole

#: Most bytes of a file, levels inside each other, and values after all aliases are replaced by what they name.
LARGEST, DEEPEST, MOST_VALUES = 1 << 22, 50, 100_000
#: What jsonargparse reads with, too: libyaml where PyYAML has it, which takes a fifth of the time.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: A number that takes longer than its length to read, since YAML also counts in sixties.
_ENDLESS = re.compile(r"[-+0-9_:.,a-fA-FxobXOB]{1000,}")


def parse_yaml(text: str | bytes, where: str) -> Any:
    """Return the plain values of a YAML text.

    Args:
        text: The text.
        where: The file or argument, for the error message.

    Raises:
        UserError: If it is not valid YAML in UTF-8, sets a key twice, or exceeds the limits; it names the line.
    """
    try:
        content = text.decode() if isinstance(text, bytes) else text
        check_size(content)
        loader = _Loader(content)
        document = loader.get_single_node()
        _check_keys_are_unique(document, where)
        return None if document is None else loader.construct_document(document)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, TypeError) as error:  # dates and numbers out of range, too
        mark = getattr(error, "problem_mark", None)
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        at = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise UserError(f"{where} is not valid YAML ({at}{reason}). Fix that line.") from error


def read_mapping(path: Path, where: str | None = None) -> dict[Any, Any]:
    """Return the content of a YAML file with keys and values.

    Args:
        path: The file.
        where: What the error message calls it; None takes the path.

    Raises:
        UserError: If there is no such file, or it is not a mapping; see `parse_yaml`.
    """
    where = where or str(path)
    content = parse_yaml(read_whole(path, LARGEST), where)
    if not isinstance(content, dict):
        kind = "is empty" if content is None else f"holds a {type(content).__name__}"
        raise UserError(f"{where} {kind}, but must have keys with values; write `key: value`.")
    return content


def check_size(text: str) -> None:
    """Refuse a YAML text that is too large or too deep, before any of its values is built.

    Args:
        text: The text.

    Raises:
        yaml.YAMLError: If it is, if an alias stands inside what it names, or if it is not YAML; with the line.
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"it is larger than {LARGEST >> 20} MiB")
    if "&" not in text and len(text) < 1000 and sum(map(text.count, "[{-:?")) < DEEPEST:
        return
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and values before it
    values, sizes = 0, dict[str, int]()
    for event in yaml.parse(text, Loader=_Loader):
        problem = ""
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = values - before
        elif isinstance(event, yaml.CollectionStartEvent):
            if event.anchor is not None:
                sizes.pop(event.anchor, None)
            open_nodes.append((event.anchor, values))
            values += 1
            problem = f"more than {DEEPEST} levels inside each other" if len(open_nodes) > DEEPEST else ""
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                problem = f"the alias {event.anchor} stands inside what it names"
            values += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
            problem = "a number of 1,000 digits or more" if _ENDLESS.fullmatch(event.value) else ""
        if values > MOST_VALUES:
            problem = f"more than {MOST_VALUES:,} values, with those that aliases repeat"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def _check_keys_are_unique(document: yaml.Node | None, where: str) -> None:
    """Refuse a mapping with a key that is set twice, of which YAML takes the last without a word."""
    nodes, seen = [document], set[int]()
    while nodes:
        node = nodes.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))  # an alias is the node itself
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            nodes.append(value)
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in lines:
                    raise UserError(
                        f"{where} sets {key.value} twice, in lines {lines[key.value]} and {line}; remove one."
                    )
                lines[key.value] = line
