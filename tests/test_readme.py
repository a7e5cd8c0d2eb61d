"""The README's commands run as they stand there, on less text and for fewer steps."""

import re
import shlex
from pathlib import Path

import pytest

from lit_detect.cli import main as detect
from lit_moe.cli import main
from lit_valuation.cli import main as valuation

README = Path(__file__).parents[1] / "README.md"
PAGES = ["README.md", "CONTRIBUTING.md"]
PAGES += [f"docs/{path.name}" for path in sorted(README.parent.glob("docs/*.md"))]
SMALLER = {
    "prepare": ["--max_bytes", "150000", "--vocab_size", "300", "--val_fraction", "0.2", "--test_fraction", "0.2"],
    "fit": ["--trainer.max_steps", "2", "--data.init_args.validation_samples", "2", "--trainer.accelerator", "cpu"],
    "test": ["--data.init_args.test_samples", "2", "--trainer.accelerator", "cpu"],
    "generate": ["--max_new_tokens", "5"],
}


#: What makes the commands of valuation and detection cheaper.
STUDY = {"study": ["--sizes.smoke.seeds", "[0]"]}
TINY = ["--trainer.max_steps", "2", "--model.init_args.detector.init_args.model", "scratch-1x32"]


def commands(before, program):
    """The commands of the block that follows on a paragraph or heading that begins with these words."""
    block = re.search(rf"^{re.escape(before)}.*?```bash\n(.*?)```", README.read_text(), re.DOTALL | re.MULTILINE)[1]
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(f"{program} ")]


@pytest.mark.slow
def test_each_of_the_first_commands_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    programs = {"lit-moe": (main, []), "lit-valuation": (valuation, STUDY["study"]), "lit-detect": (detect, TINY)}
    for program, (run, smaller) in programs.items():
        (command,) = commands("**Three first commands**", program)
        assert run([*command, *smaller]) == 0, (command, capsys.readouterr().err)


def test_each_command_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    found = commands("## The same, step by step", "lit-moe")
    assert [command[0] for command in found] == ["prepare", "fit", "fit", "test", "generate"]
    for command in found:
        assert main([*command, *SMALLER[command[0]]]) == 0, (command, capsys.readouterr().err)
    assert "It was" in capsys.readouterr().out


def test_each_command_on_valuation_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    found = commands("## Whose data helps", "lit-valuation")
    assert [command[0] for command in found] == ["study", "divide", *["fit", "test"] * 2]
    smaller = {**STUDY, "fit": ["--trainer.max_steps", "25"]}
    for command in found:
        arguments = [*command, *smaller.get(command[0], [])]
        assert valuation([*arguments]) == 0, (command, capsys.readouterr().err)
    assert "GradientMatching" in (tmp_path / "runs/valuation/quickstart-smoke/report.md").read_text()


def test_each_command_on_detection_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    judged, *found = commands("## Human or machine", "lit-detect")
    assert judged == ["predict", "--input", "texts.csv"]  # which fetches; tests/detect/test_default.py runs it
    assert [command[0] for command in found] == ["fit", "test", "attack", "report"]
    smaller = {
        "fit": TINY,
        "attack": ["--limit", "8"],
        "report": ["--resamples", "20"],
    }
    for command in found:
        assert detect([*command, *smaller.get(command[0], [])]) == 0, (command, capsys.readouterr().err)
    page = (tmp_path / "report/report.md").read_text()
    assert "wild_ngram" in page or "NGramLM" in page
    assert "Homoglyph" in page


@pytest.mark.parametrize("page", PAGES)
def test_links_and_configs_exist(page):
    path = README.parent / page
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
    for config in re.findall(r"configs/[\w/]+\.yaml", text):
        assert (README.parent / config).exists(), config
