from pathlib import Path

import jsonargparse
import pytest
import yaml

import lit_detect.attacks
import lit_detect.detectors  # so that short names are known
from lit_detect.attacks import Attack
from lit_detect.commands.attack import attack

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "detect" / "attack").glob("*.yaml"))
EXPORTED = [getattr(lit_detect.attacks, name) for name in lit_detect.attacks.__all__]
ATTACKS = [part for part in EXPORTED if isinstance(part, type) and issubclass(part, Attack) and part is not Attack]


def test_each_exported_attack_has_a_yaml():
    named = {yaml.safe_load(path.read_text())["attack"]["class_path"] for path in CONFIGS}
    assert named == {attack.__name__ for attack in ATTACKS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_yaml_is_understood_and_says_how_to_run_it(path):
    command = path.read_text().splitlines()[0]
    assert command.startswith(f"# lit-detect attack --config configs/detect/attack/{path.name} ")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(attack, as_positional=False, fail_untyped=False)
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile)
    found = parser.parse_args(["--config", str(path), "--output", "x.jsonl", "--input", "y.jsonl"])
    assert found.attack.class_path.startswith("lit_detect.attacks.")
