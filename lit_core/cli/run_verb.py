"""Runs a verb, which is a typed function, from the command line."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, auto_parser, set_parsing_settings

from lit_core import record
from lit_core.cli.arguments import (
    TRUST,
    TRUST_ARGUMENT,
    configs_first,
    locate_configs,
    option,
    paths_as_flags,
    replace_former_paths,
    trust_given,
    words_as_flag,
)
from lit_core.cli.description import described, known_classes
from lit_core.cli.empty import refuse_empty
from lit_core.cli.entries import entry_sentence
from lit_core.cli.messages import root_cause
from lit_core.cli.numbers import check_numbers
from lit_core.cli.own_input import refuse_own_input
from lit_core.cli.parser import PARSER_MODE, Parser, accept_former_paths
from lit_core.cli.verb import Verb, first_line, load
from lit_core.errors import FAILED, LEFT_OUT, OK, UserError
from lit_core.files.yaml_files import parse_yaml
from lit_core.parser_messages import check_keys
from lit_core.references import as_typed
from lit_core.seeds import checked_seed, seed_generators
from lit_core.trust import note_typed


def function_of(verb: Callable[..., Any] | Verb, args: list[str]) -> Callable[..., Any]:
    """Return the function of a verb; for its help, one of the same signature for which nothing is imported.

    Args:
        verb: The verb.
        args: Its arguments.
    """
    return described(verb.module, verb.name) if isinstance(verb, Verb) and _asks_for_help(args) else load(verb)


def _asks_for_help(args: list[str]) -> bool:
    return "--help" in args or "-h" in args


def parser_of(program: str, name: str, function: Callable[..., Any]) -> ArgumentParser:
    """Return the parser of a verb's arguments.

    Args:
        program: Name of the console script.
        name: The verb.
        function: Its function, or one of `described`.
    """
    parser = auto_parser(
        function,
        prog=f"{program} {name}",
        as_positional=False,
        parser_mode=PARSER_MODE,
        exit_on_error=False,
        parser_class=Parser,
        fail_untyped=False,
        description=first_line(function.__doc__),
    )
    parser.add_argument(f"--{TRUST}", **TRUST_ARGUMENT)
    for action in parser._actions:
        if names := known_classes(function).get(action.dest):
            action.help = f"{action.help} Known: {', '.join(names)}."
    return parser


def run_verb(program: str, name: str, function: Callable[..., Any], args: list[str]) -> int:
    """Parse the arguments of a verb and run it.

    Args:
        program: Name of the console script.
        name: The verb.
        function: Its function.
        args: Its arguments.

    Returns:
        The exit code.

    Raises:
        UserError: If an argument is wrong.
    """
    printing = any(arg.partition("=")[0] == "--print_config" for arg in args)  # as null, not as unset
    set_parsing_settings(unset_sentinel=not printing)
    if not _asks_for_help(args):
        accept_former_paths()
    parameters = inspect.signature(function).parameters
    if "words" in parameters:
        args = words_as_flag(args)
    for several in ("paths", "models"):
        if several in parameters:
            args = paths_as_flags(args, several)
    located = configs_first(trust_given(locate_configs(replace_former_paths(args))))
    try:
        parser = parser_of(program, name, function)
        if _asks_for_help(args):  # at once; parsing would look at the defaults first
            parser.print_help()
            return OK
        config = parser.parse_args(located)
        refuse_own_input(config)
        for key in ("config", TRUST):
            config.pop(key, None)
        check_numbers(config)
        refuse_empty(config, function)
        seed = config.get("seed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # defaults that are objects become texts
            dumped = parser.dump(config, skip_validation=True, skip_unset=False, format="yaml")
        typed = as_typed(parse_yaml(dumped, "The config"), getattr(parser, "typed", {}))
        check_keys(typed)
        note_typed(typed)
        record.set_arguments(typed, {"seed": seed or 0} if "seed" in config else {})
        # of what draws from the global generators, and of the parts of the verb that have no seed of their own
        seed_generators(checked_seed("seed", seed) if isinstance(seed, int) else 0)
        for check in getattr(function, "checks", ()):
            check(**{name: config[name] for name in inspect.signature(check).parameters})
        code = function(**parser.instantiate(config))
        return code if type(code) is int and code in (FAILED, LEFT_OUT) else OK
    except ArgumentError as error:
        if root_cause(error) is not error:
            raise
        raise UserError(entry_sentence(error, function, option(located, "--config", "-c"))) from error
    finally:
        set_parsing_settings(unset_sentinel=False)
