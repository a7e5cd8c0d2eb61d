"""The tool that makes the default detector: what is left out of the training of an encoder, and tables made anew."""

import importlib
import sys
from pathlib import Path

import pytest

from lit_core.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(monkeypatch):
    """A module of the tool by name, without what its page needs."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield lambda name: importlib.import_module(f"default_detector.{name}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "default_detector"]:
        del sys.modules[name]


def test_an_encoder_is_trained_on_no_twin_domain_or_family_of_what_it_judges(tool):
    module, Text = tool("fine_tuned"), tool("texts").Text
    rows = [
        Text(
            f"{generator} of {domain} {number}", int(generator != "human"), domain, generator, f"{domain}/{number % 40}"
        )
        for domain in ("xsum", "writing", "squad", "handbook_de")
        for generator in ("human", "davinci", "gpt-3.5-turbo", "gpt2-xl")
        for number in range(50)
    ]
    assert module.left_out(rows)[-1] == ("xsum", "gpt-3.5-turbo")
    module.TRAINED, module.CALIBRATED = 30, 20
    train, calibration, judged = module.division(rows, "xsum", "gpt-3.5-turbo")
    assert {row.domain for row in judged} == {"xsum"} and {row.generator for row in judged} == {
        "human",
        "gpt-3.5-turbo",
    }
    assert {row.domain for row in train} == {"writing", "squad"} == {row.domain for row in calibration}
    assert {row.generator for row in train} == {"human", "davinci"}
    assert [sum(row.label == label for row in train) for label in (0, 1)] == [30, 30]
    pairs = [{row.pair for row in some} for some in (train, calibration, judged)]
    assert not pairs[0] & pairs[1] and not pairs[0] & pairs[2] and not pairs[1] & pairs[2]
    assert len(calibration) == len(pairs[1]) == 20


def test_a_table_is_made_anew_and_the_others_stay(tool, tmp_path, monkeypatch):
    monkeypatch.setattr("jsonargparse.auto_cli", lambda *_, **__: None)
    module = tool("__main__")
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{module.MARK}\n\n## One\n\n| a |\n\n## Three\n\n| c |\n")
    monkeypatch.setattr(module, "PAGE", page)
    makers = {"One": lambda: "never", "Two": lambda: "| new |", "Three": lambda: "never"}
    module._write_tables(makers, ["Two"])
    assert (
        page.read_text() == f"# Title\n\n{module.MARK}\n\n## One\n\n| a |\n\n## Two\n\n| new |\n\n## Three\n\n| c |\n"
    )
    with pytest.raises(UserError, match="only_tables names 'Four', but the tables are One, Two, Three"):
        module._write_tables(makers, ["Four"])
