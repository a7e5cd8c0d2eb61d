"""Arguments before jsonargparse parses them: configs are located, and their keys and flags are looked at."""

from __future__ import annotations

from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from lightning.pytorch.cli import LightningArgumentParser

from lit_core.cli.run_folder import find_config
from lit_core.errors import UserError
from lit_core.files.yaml_files import check_size, parse_yaml, read_mapping
from lit_core.moved_names import current_path, current_paths
from lit_core.record import hide_secrets
from lit_core.references import below
from lit_core.trust import trust

#: Mode in which command lines and configs are parsed: ``${...}`` is resolved after all of them are merged.
PARSER_MODE = "omegaconf+"
#: What jsonargparse writes for an object that is the default of an argument.
_INSTANCE = "Unable to serialize instance "
#: Key of a config, and flag, of classes that files of others may name.
TRUST = "trust"
TRUST_ARGUMENT: dict[str, Any] = {
    "type": str | list[str] | None,
    "default": None,
    "help": "Class that checkpoints of others may name; to be repeated. Its module's code is run.",
}
#: Keys that belong to one command line, not to the run.
OWN_KEYS = ("config", "ckpt_path", "branch_from", "run", TRUST)


class Parser(LightningArgumentParser):
    """Parser that accepts options by their full names only, including options of the classes that a config names."""

    def __init__(self, *args: Any, allow_abbrev: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=allow_abbrev, **kwargs)
        self.typed: dict[str, Any] = {}

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


def _plain(value: Any) -> Any:
    """Return a config with the values of enumerations, which are the defaults of some arguments, as text."""
    if isinstance(value, Namespace):
        return Namespace(**{key: _plain(item) for key, item in vars(value).items()})
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
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


def replace_former_paths(args: list[str]) -> list[str]:
    """Return the command line with each value that is a former import path replaced by the present one."""
    replaced = []
    for arg in args:
        name, equals, value = arg.rpartition("=")
        replaced.append(f"{name}{equals}{current_path(value)}")
    return replaced


def option(args: list[str], *names: str) -> list[str]:
    """Return all values that a command line gives for an option, in order.

    Args:
        args: The command line.
        names: The option's names, for example ``--config``.
    """
    values = []
    for index, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in names:
            values.append(value if equals else args[index + 1] if index + 1 < len(args) else "")
    return values


def locate_configs(args: list[str]) -> list[str]:
    """Return the command line with each config replaced by its path, below the working directory or the packaged one.

    Raises:
        UserError: If the file does not exist, or is not a mapping of keys to values.
    """
    located = list(args)
    for index, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in ("--config", "-c"):
            if not equals and (index + 1 == len(args) or args[index + 1].startswith("--")):
                raise UserError(f"{name} has no value; give the path of a config file after it.")
            path = find_config(value if equals else args[index + 1])
            read_config(path)
            if equals:
                located[index] = f"{name}={path}"
            else:
                located[index + 1] = path
    return located


def configs_first(args: list[str], start: int = 0) -> list[str]:
    """Return the command line with its configs before its flags, which win over them wherever they stand.

    Args:
        args: The command line with its configs located.
        start: Index of the first argument that may move.
    """
    configs: list[str] = []
    flags: list[str] = []
    rest = iter(args[start:])
    for arg in rest:
        if arg in ("--config", "-c"):
            configs += [arg, next(rest)]
        else:
            (configs if arg.startswith(("--config=", "-c=")) else flags).append(arg)
    return [*args[:start], *configs, *flags]


def secrets_as_references(args: list[str]) -> list[str]:
    """Return the command line with values of secret variables, which a shell has put there, as references to these.

    Args:
        args: The command line with its configs located; configs, checkpoints and the name of the run, which are read
            before references are resolved, are left as they are.
    """
    kept = option(args, "-c", *(f"--{key}" for key in OWN_KEYS))
    return [arg if arg.partition("=")[2] in kept or arg in kept else hide_secrets(arg) for arg in args]


def trust_given(args: list[str]) -> list[str]:
    """Trust the classes that the user names, by ``--trust`` or under ``trust`` in a config; return the other arguments.

    Args:
        args: The command line with its configs located.
    """
    left: list[str] = []
    for arg in args:
        if left and left[-1] == "--trust":
            trust(arg)
            left.pop()
        elif arg.startswith("--trust="):
            trust(arg.partition("=")[2])
        else:
            left.append(arg)
    for path in option(args, "--config", "-c"):
        named = read_config(path).get(TRUST) or []
        trust(*([named] if isinstance(named, str) else map(str, named)))
    return left


def given(args: list[str], key: str) -> str | None:
    """Return the value that the user gives for a top-level key: by flag, or in the last config with it; else None."""
    flags = option(args, f"--{key}")
    if flags:
        return flags[-1]
    for path in reversed(option(args, "--config", "-c")):
        content = read_config(path)
        if content.get(key):
            return str(content[key])
    return None


def read_config(path: str) -> dict[Any, Any]:
    """Return the content of a config file.

    Args:
        path: The file.

    Raises:
        UserError: If it is not valid YAML, not a mapping of keys to values, or sets a key twice.
    """
    return read_mapping(Path(path), f"--config {path}")
