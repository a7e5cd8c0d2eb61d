"""The config that a verb prints for each shipped config can be given again, and prints the same."""

import importlib
import warnings
from pathlib import Path

import pytest

from lit_core.cli.run_verb import parser_of
from lit_core.files.yaml_files import parse_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
GIVEN = [(f"lit_{path.parts[-3]}", path.parts[-2], path) for path in sorted(CONFIGS.glob("*/*/*.yaml"))]
GIVEN = [(package, verb, path) for package, verb, path in GIVEN if verb in ("prepare", "divide")]
#: One with a default that is made of dataclasses.
FAST = CONFIGS / "valuation/divide/digits.yaml"


def printed(parser, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of what cannot be written
        config = parser.parse_args(["--config", str(path)])
        config.pop("config")
        return parser.dump(config, skip_validation=True, skip_unset=False, format="yaml")


@pytest.mark.parametrize(
    ("package", "verb", "path"),
    [pytest.param(*one, marks=() if one[2] == FAST else pytest.mark.slow, id=one[2].stem) for one in GIVEN],
)
def test_a_printed_config_is_whole_and_prints_itself(package, verb, path, tmp_path):
    parser = parser_of(package, verb, importlib.import_module(f"{package}.cli").VERBS[verb].load())
    first = printed(parser, path)
    (tmp_path / "printed.yaml").write_text(first)
    assert printed(parser, tmp_path / "printed.yaml") == first
    assert not [key for key, value in entries(parse_yaml(first, "it")) if value == {} and key not in path.read_text()]


def entries(value):
    """Yield the keys and values of all mappings, at any depth."""
    if isinstance(value, dict):
        yield from value.items()
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from entries(inner)
