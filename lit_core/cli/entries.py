"""The entry of a mapping that an error of the parser is about, such as one claim of a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_type_hints

from jsonargparse import ArgumentError

from lit_core.cli.arguments import read_config
from lit_core.cli.parser import Parser
from lit_core.parser_messages import parser_sentence


def entry_sentence(error: ArgumentError, verb: Callable[..., Any], configs: Sequence[str]) -> str:
    """Describe an error of the parser; where an entry of a mapping in a config causes it, name the entry.

    jsonargparse tells the key of an argument, but not the key inside its mapping.

    Args:
        error: The error.
        verb: The function whose arguments were parsed.
        configs: Paths of the config files.
    """
    text = parser_sentence(str(error), verb)
    for where, refusal in _refusals(get_type_hints(verb), configs):
        if parser_sentence(refusal, verb) == text:
            return parser_sentence(refusal, verb, where)
    return text


def _refusals(types: dict[str, Any], configs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Parse the entries of all mappings one by one; yield the path of each that is refused, and the parser's error."""
    for path in configs:
        for argument, value in read_config(path).items():
            for name, entry in value.items() if isinstance(value, dict) and argument in types else ():
                parser = Parser(exit_on_error=False)
                parser.add_argument(f"--{argument}", type=types[argument])
                try:
                    parser.parse_object({argument: {name: entry}})
                except ArgumentError as error:
                    yield f"{argument}.{name}", str(error)
