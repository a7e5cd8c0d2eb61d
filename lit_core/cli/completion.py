"""Completion of command lines by the Tab key in bash and zsh, through argcomplete, without torch and Lightning."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_core.cli.arguments import OWN_KEYS
from lit_core.cli.run_folder import packaged_configs
from lit_core.cli.source import method_in
from lit_core.cli.verb import LIGHTNING, Verb, purpose

#: Sections of a config for Lightning's commands.
_SECTIONS = ("model", "data", "trainer", "seed_everything", *OWN_KEYS)


def complete(program: str, own: Mapping[str, Callable[..., Any] | Verb]) -> None:
    """Answer the shell and end the process; without argcomplete, return.

    Args:
        program: Name of the console script.
        own: The verbs by name.
    """
    try:
        import argcomplete
    except ModuleNotFoundError:
        return
    typed = os.environ.get("COMP_LINE", "").split()
    parser = argparse.ArgumentParser(program)
    commands = parser.add_subparsers()
    for name, does in {**LIGHTNING, **{name: purpose(verb) for name, verb in own.items()}}.items():
        command = commands.add_parser(name, help=does.replace("%", "%%"))  # zsh shows it
        if name in typed[1:]:
            for option in sorted(_options(program, name, own.get(name))):
                action = command.add_argument(option)
                if option == "--config":
                    action.completer = _configs  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _options(program: str, name: str, verb: Callable[..., Any] | Verb | None) -> Iterator[str]:
    """Yield the options of a command, those of classes that it names left out."""
    if isinstance(verb, Verb) and name != "plan":
        from lit_core.cli.run_verb import function_of, parser_of

        parser = parser_of(program, name, function_of(verb, ["--help"]))
        options = {option for action in parser._actions for option in action.option_strings}
        yield from (option for option in options if option.startswith("--") and option != "--help")
        return
    yield from (f"--{section}" for section in _SECTIONS)
    trainer = method_in("lightning.pytorch.trainer.trainer", "Trainer", "__init__")
    yield from (f"--trainer.{one.arg}" for one in trainer.args.kwonlyargs)


def _configs(prefix: str, **_: Any) -> list[str]:
    """Return the packaged configs, and files and folders of the user's, that begin as what was typed."""
    folder = packaged_configs()
    packaged = [f"configs/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*.yaml")]
    own = [f"{path}/" if path.is_dir() else str(path) for path in Path().glob(f"{prefix}*")] if prefix else []
    return sorted(path for path in {*packaged, *own} if path.startswith(prefix))
