"""Lists of thousands of entries, as in a checkpoint of somebody else, take a time that grows as they do."""

import inspect
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import pytest
from kinds import exports
from verbs import PACKAGES, own_verbs

from lit_core.cli.parser import PARSER_MODE, Parser, accept_former_paths

#: An entry of each plain type.
PLAIN = {int: 4, float: 0.5, str: "a", bool: True}


def plain(hint):
    """Return an entry of a plain type that a hint takes; None if it takes none."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
    return next((PLAIN[kind] for kind in kinds if kind in PLAIN), None)


def long_values(hint):
    """Yield functions from a number to a value with a list, or mapping, of so many plain entries; one per place."""
    origin, inner = get_origin(hint), get_args(hint)
    if inspect.isclass(origin) and issubclass(origin, Sequence | set):
        if plain(inner[0]) is not None and inner[1:] in ((), (...,)):
            yield lambda n: [plain(inner[0])] * n
        yield from (lambda n, of=of: [of(n)] for one in inner for of in long_values(one))
    elif origin is dict:
        if plain(inner[1]) is not None:
            yield lambda n: {f"k{i}": plain(inner[1]) for i in range(n)}
        yield from (lambda n, of=of: {"k": of(n)} for of in long_values(inner[1]))
    elif origin in (Union, UnionType):
        for one in inner:
            yield from long_values(one)


def hints():
    """Return the types of all arguments of verbs, and of classes that a config can name, that take a list."""
    owners = [verb for package in PACKAGES for verb in own_verbs()[package].values()]
    for kind in exports():
        if not inspect.isabstract(kind):
            owners.append(kind if is_dataclass(kind) else kind.__init__)
    found = {}
    for owner in owners:
        of_owner = {}
        with suppress(NameError):  # of a type that is imported for type checkers only
            of_owner = get_type_hints(owner)
        for name, hint in of_owner.items():
            if name != "return" and "jsonargparse" not in str(hint) and any(True for _ in long_values(hint)):
                found.setdefault(str(hint), hint)
    return found


def calls(function):
    """Return how many functions of Python are called."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


accept_former_paths()
HINTS = hints()


@pytest.mark.parametrize("hint", HINTS)
def test_a_long_list_is_read_and_built_in_linear_time(hint):
    for of in long_values(HINTS[hint]):
        parser = Parser(exit_on_error=False, parser_mode=PARSER_MODE)
        parser.add_argument("--value", type=HINTS[hint], default=of(3))

        def work(n, parser=parser, of=of):
            config = parser.parse_object({"value": of(n)})
            parser.validate(config)
            parser.dump(config)
            parser.instantiate(config)

        work(10)
        few, more, many = (calls(lambda n=n: work(n)) for n in (20, 60, 140))
        assert many - more < 2.4 * (more - few)  # 2, were each entry as costly as each other
