from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser

import lit_core.corpora
from lit_core.corpora import Corpus
from lit_core.prepare import prepare

FOLDER = Path(__file__).parents[3] / "configs" / "moe" / "prepare"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
CLASSES = [getattr(lit_core.corpora, name) for name in lit_core.corpora.__all__]
CORPORA = [found.__name__ for found in CLASSES if issubclass(found, Corpus) and found is not Corpus]


@pytest.mark.parametrize("name", CORPORA)
def test_every_corpus_has_a_config(name):
    used = {entry["class_path"] for path in CONFIGS for entry in yaml.safe_load(path.read_text())["corpora"]}
    assert name in used, f"write configs/moe/prepare/ YAML that prepares {name}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_begins_with_its_command_and_parses(path):
    assert path.read_text().splitlines()[0] == f"# lit-moe prepare --config configs/moe/prepare/{path.name}"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(prepare, as_positional=False)
    parsed = parser.parse_args(["--config", str(path)])
    assert parsed.root and all(entry.class_path.startswith("lit_core.corpora.") for entry in parsed.corpora)


@pytest.mark.parametrize("name", CORPORA)
def test_every_argument_of_a_corpus_has_its_help(name):
    """What the docstring says is what `--help` shows."""
    parser = ArgumentParser()
    parser.add_class_arguments(getattr(lit_core.corpora, name), "corpus")
    for action in parser._actions:
        if action.dest.startswith("corpus."):
            assert action.help and action.help.strip().endswith("."), action.dest
