"""The parser of command lines and configs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from lit_core.cli.messages import root_cause
from lit_core.errors import UserError
from lit_core.files.yaml_files import check_size, parse_yaml
from lit_core.long_lists import read_long_lists
from lit_core.moved_names import current_paths
from lit_core.references import below

#: Mode in which command lines and configs are parsed: ``${...}`` is resolved after all of them are merged.
PARSER_MODE = "omegaconf+"
#: What jsonargparse writes for an object that is the default of an argument.
_INSTANCE = "Unable to serialize instance "


read_long_lists()


class _Refused(UserError):
    """What the constructor of an entry of a list or mapping refuses.

    Args:
        key: The entry, such as ``claims.balance``.
        error: What it refuses; if an entry inside it does, the path of that one follows.
    """

    def __init__(self, key: str, error: BaseException) -> None:
        self.where, self.reason = key, str(error)
        if isinstance(error, _Refused):
            self.where, self.reason = f"{key}.{error.where}", error.reason
        super().__init__(f"{self.where}: {self.reason}")


class Parser(ArgumentParser):
    """Parser that accepts options by their full names only, including options of the classes that a config names."""

    def __init__(self, *args: Any, allow_abbrev: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=allow_abbrev, **kwargs)
        self.typed: dict[str, Any] = {}

    def _apply_actions(self, cfg: Any, *args: Any, **kwargs: Any) -> Namespace:
        """Keep empty mappings of unknown names, such as ``argumentss: {}``, so that they are refused like all others.

        jsonargparse drops them before it looks at the names.
        """
        applied: Namespace = super()._apply_actions(cfg, *args, **kwargs)
        empty = [key for key, value in applied.items(branches=True) if isinstance(value, Namespace) and not value]
        groups = self.groups or {}
        known = [action.dest for action in self._actions if action.dest not in groups] if empty else []
        for key in empty:
            if not any(_is_around(key, name) or _is_around(name, key) for name in known):
                applied[key] = {}
        return applied

    def instantiate(self, namespace: Namespace, *args: Any, **kwargs: Any) -> Namespace:
        """Build what a config describes.

        Raises:
            UserError: If a constructor refuses a value; of several in a list or mapping, the message names the one.
        """
        try:
            return super().instantiate(namespace, *args, **kwargs)
        except ValueError as error:
            failed, refused = error, root_cause(error)
        for key, entry in self._entries(namespace) if isinstance(refused, UserError) else ():
            try:
                super().instantiate(entry)
            except Exception as again:
                if str(root_cause(again)) == str(refused):
                    raise _Refused(key, refused) from failed
        raise failed

    def _entries(self, namespace: Namespace) -> Iterator[tuple[str, Namespace]]:
        """Yield each object that a list or mapping in a config describes, alone, with its path."""
        names = {action.dest for action in self._actions}
        for name, value in namespace.items():
            is_list = isinstance(value, list)
            entries = enumerate(value) if is_list else value.items() if isinstance(value, dict) else ()
            for key, entry in entries if name in names else ():
                if isinstance(entry, Namespace):
                    yield f"{name}.{key}", Namespace({name: [entry] if is_list else {key: entry}})

    def dump(self, cfg: Any, *args: Any, **kwargs: Any) -> str:
        """Return a config as text, also for jsonargparse, which resolves the references in what this returns.

        References are paths from the top of a command's own config, while jsonargparse resolves those of all commands
        together. The command's config with its references is kept in ``typed``.

        A default that is an object, such as a device, is left out, so that it holds again when the text is read.
        """
        text = str(super().dump(_plain(cfg), *args, **kwargs))
        if _INSTANCE in text:
            text = yaml.safe_dump(
                _without_instances(parse_yaml(text, "The config")), sort_keys=False, allow_unicode=True
            )
        command = cfg.get("subcommand")
        if "${" not in text:
            return text
        if command is None:  # of a verb, whose references are from the top
            self.typed = parse_yaml(text, "The config")
            return text
        self.typed = parse_yaml(text, "The config")[command]
        return yaml.safe_dump(below(self.typed, command), sort_keys=False, allow_unicode=True)


def _is_around(outer: str, inner: str) -> bool:
    """Tell whether a path is another one, or leads to it."""
    return f"{inner}.".startswith(f"{outer}.")


def _plain(value: Any) -> Any:
    """Return a config with enumerations as text and dataclasses as mappings, as the defaults of some arguments are."""
    if isinstance(value, Namespace):
        return Namespace(**{key: _plain(item) for key, item in vars(value).items()})
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value) if one.init}
    return value.value if isinstance(value, str) and isinstance(value, Enum) else value


def _without_instances(value: Any) -> Any:
    """Return plain values without the entries that jsonargparse could not write."""
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not (isinstance(item, str) and item.startswith(_INSTANCE))}
        return {key: _without_instances(item) for key, item in kept.items()}
    return [_without_instances(item) for item in value] if isinstance(value, list) else value


@cache
def accept_former_paths() -> None:
    """Make the parser replace former import paths in configs and in YAML values by the present ones."""
    ArgumentParser(parser_mode=PARSER_MODE).parse_string("{}")  # the loader of a mode is made when it is first used
    load = get_loader(PARSER_MODE)

    def bounded_load(text: str) -> Any:
        check_size(text)
        return current_paths(load(text))

    set_loader(PARSER_MODE, bounded_load, exceptions=(yaml.YAMLError,))
