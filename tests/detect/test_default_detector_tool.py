"""The tool that makes the default detector: what is left out of the training of an encoder, and tables made anew."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest
from test_windows import Words

from lit_core.errors import UserError
from lit_detect.calibration import Calibration
from lit_detect.human_scores import Group, Length
from lit_detect.judging import Judge

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


HARPER = """
const found = [["Spelling", "Amesbury", "Albury"], ["Spelling", "dont", "don't"], ["Grammar", "he go", "he goes"],
  ["Agreement", "go", "went"], ["Style", "home", null]];
export const Dialect = { British: 1 };
export class LocalLinter {
  constructor({ binary, dialect }) { if (binary !== 7 || dialect !== 1) throw new Error("not what was asked for"); }
  async lint(text, { language }) {
    if (language !== "plaintext") throw new Error(language);
    return found.filter(([, problem]) => text.includes(problem)).map(([kind, problem, better]) => ({
      lint_kind: () => kind, get_problem_text: () => problem, suggestions: () => (better === null ? [] : [better]),
      span: () => ({ start: text.indexOf(problem), end: text.indexOf(problem) + problem.length }),
    }));
  }
  async applySuggestion(text, lint, better) {
    const { start, end } = lint.span();
    return text.slice(0, start) + better + text.slice(end);
  }
}
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_of_overlapping_findings_one_is_applied_and_names_stay(tool, tmp_path, monkeypatch):
    module = tool("grammar")
    (tmp_path / "package" / "dist").mkdir(parents=True)
    (tmp_path / "package" / "package.json").write_text('{"type": "module"}')
    (tmp_path / "package" / "dist" / "index.js").write_text(HARPER)
    (tmp_path / "package" / "dist" / "binary.js").write_text("export const binary = 7;")
    monkeypatch.setattr(module, "fetch_npm", lambda *_: tmp_path)
    texts = ["I dont see why he go home to Amesbury.", "I see.", "dont"]
    assert module.corrected(texts, "British") == ["I don't see why he went home to Amesbury.", "I see.", "don't"]


def test_a_domain_is_not_judged_by_its_own_human_texts(tool):
    module = tool("grammar")
    group = Group((Length(1, (0.0,) * 60),), Length(9, (0.0,) * 60))
    calibration = Calibration(0.05, "Words", None, {"xsum": group, "essays": group}, by="domain", strictest=True)
    judge = module.without(Judge(Words(), calibration=calibration), "xsum")
    assert judge.calibration.groups == {"essays": group} and calibration.groups.keys() == {"xsum", "essays"}
