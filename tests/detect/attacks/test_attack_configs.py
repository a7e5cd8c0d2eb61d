from pathlib import Path

import jsonargparse
import pytest

from lit_detect.commands.attack import attack

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "detect" / "attack").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_yaml_is_understood_and_says_how_to_run_it(path):
    command = path.read_text().splitlines()[1]
    assert command.startswith(f"#   lit-detect attack --config configs/detect/attack/{path.name} ")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(attack, as_positional=False, fail_untyped=False)
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile)
    found = parser.parse_args(["--config", str(path), "--output", "x.jsonl", "--input", "y.jsonl"])
    assert found.attack.class_path.startswith("lit_detect.attacks.")
