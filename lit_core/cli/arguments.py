"""Arguments before jsonargparse parses them: configs are located, and their keys and flags are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_core.cli.run_folder import find_config
from lit_core.errors import UserError
from lit_core.files.yaml_files import read_mapping
from lit_core.moved_names import current_path
from lit_core.record import hide_secrets
from lit_core.trust import trust

#: Key of a config, and flag, of classes that files of others may name.
TRUST = "trust"
TRUST_ARGUMENT: dict[str, Any] = {
    "type": str | list[str] | None,
    "default": None,
    "help": "Class that checkpoints of others may name; to be repeated. Its module's code is run.",
}
#: Keys that belong to one command line, not to the run.
OWN_KEYS = ("config", "ckpt_path", "branch_from", "run", TRUST)


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


def words_as_flag(args: list[str]) -> list[str]:
    """Return the command line with its leading words, which have no flag, as the value of ``--words``."""
    count = next((index for index, arg in enumerate(args) if arg.startswith("-")), len(args))
    return [f"--words={' '.join(args[:count])}", *args[count:]] if count else args


def paths_as_flags(args: list[str], name: str = "paths") -> list[str]:
    """Return the command line of a verb with its paths as values of ``--paths+``, and ``--json`` with a value.

    Args:
        args: The command line.
        name: Name of the argument that takes the paths.
    """
    changed = []
    for index, arg in enumerate(args):
        if arg == "--json" and args[index + 1 : index + 2] not in (["true"], ["false"]):
            changed.append("--json=true")
        elif arg.startswith("-") or (index and args[index - 1].startswith("--") and _takes_next(args[index - 1], arg)):
            changed.append(arg)
        else:
            changed.append(f"--{name}+={arg}")
    return changed


def _takes_next(option: str, value: str) -> bool:
    return "=" not in option and (option != "--json" or value in ("true", "false"))
