"""A mistyped key is refused with the same sentence whatever stands below it, in each place of each verb's config."""

import inspect
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from jsonargparse import ArgumentError
from kinds import exports
from verbs import PACKAGES, own_verbs

from lit_core.cli.run_verb import parser_of
from lit_core.origin import import_path
from lit_core.parser_messages import parser_sentence

MISTYPED = "mistypedd"


def mistyped(annotation):
    """Yield a value for each mapping that an annotation takes, with an empty mapping under an unknown name."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if is_dataclass(annotation):
        yield {MISTYPED: {}}
        for name, hint in get_type_hints(annotation).items():
            yield from ({name: value} for value in mistyped(hint))
    elif origin is dict:
        yield from ({"a": value} for value in mistyped(inner[1]))
    elif origin is list:
        yield from ([value] for value in mistyped(inner[0]))
    elif inner:
        for one in inner:
            yield from mistyped(one)
    elif inspect.isclass(annotation) and annotation is not Any:
        for part in [part for part in exports() if issubclass(part, annotation) and not inspect.isabstract(part)][:1]:
            yield {"class_path": import_path(part), "init_args": {MISTYPED: {}}}


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in PACKAGES for name in own_verbs()[package]]
)
def test_an_empty_mapping_under_a_mistyped_key_is_refused(package, name):
    verb = own_verbs()[package][name]
    parser = parser_of(package, name, verb)
    configs = [{MISTYPED: below} for below in ({}, {"a": {}}, [], None)]
    configs += [{key: value} for key, hint in get_type_hints(verb).items() for value in mistyped(hint)]
    for config in configs:
        with pytest.raises(ArgumentError, match=MISTYPED) as refused:
            parser.parse_object(config)
        assert f"{MISTYPED} is not an argument." in parser_sentence(str(refused.value), verb), config
