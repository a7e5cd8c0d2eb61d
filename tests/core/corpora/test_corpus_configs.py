from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from lit_core.prepare import prepare

FOLDER = Path(__file__).parents[3] / "configs" / "moe" / "prepare"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_its_command_and_parses(path):
    assert path.read_text().splitlines()[1] == f"#   lit-moe prepare --config configs/moe/prepare/{path.name}"
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_function_arguments(prepare, as_positional=False)
    parsed = parser.parse_args(["--config", str(path)])
    assert parsed.root and all(entry.class_path.startswith("lit_core.corpora.") for entry in parsed.corpora)
