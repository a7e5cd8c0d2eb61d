"""The default penalty of gradient matching, and the paper's by name."""

import inspect
from pathlib import Path

import yaml

from lit_valuation.selectors import GradientMatchingSelector

CONFIGS = Path(__file__).parents[3] / "configs" / "valuation"
NAME = GradientMatchingSelector.__name__


def penalties(value):
    """Yield the penalty of each gradient matching in a config, None where it has the default."""
    if isinstance(value, dict):
        if str(value.get("class_path", "")).endswith(f".{NAME}"):
            yield value.get("init_args", {}).get("ridge")
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from penalties(each)


def test_configs_have_the_default_but_for_the_papers():
    default = inspect.signature(GradientMatchingSelector).parameters["ridge"].default
    found = {
        path.stem: [*penalties(yaml.safe_load(path.read_text()))] for path in (CONFIGS / "selector").glob("*.yaml")
    }
    assert found.pop("gradient_matching_paper") == [0.01]
    named = {name: ridges for name, ridges in found.items() if ridges}
    assert set(named) == {"gradient_matching", "gradient_matching_fill", "gradient_matching_clusters"}
    assert all(ridges == [default] for ridges in named.values())


def test_studies_of_claims_name_their_penalty_so_that_a_default_changes_none():
    for path in (CONFIGS / "studies").glob("*.yaml"):
        config = yaml.safe_load(path.read_text())
        if config.get("claims"):
            assert None not in [*penalties(config["grids"])], path.name
    config = yaml.safe_load((CONFIGS / "studies" / "mycroft.yaml").read_text())
    of_paper = config["grids"]["selection"]["arguments"]["selectors"]["GradientMatching"]
    assert [*penalties(of_paper)] == [0.01]
