"""Each verb checks its outputs before it reads or computes anything, and each folder is created by `make_folder`."""

import ast
import inspect
import os
from importlib import import_module
from pathlib import Path

import pytest
from verbs import PACKAGES, own_verbs

from lit_core.errors import UserError
from lit_core.files.outputs import command_outputs
from lit_core.files.paths import locked_path

ROOT = Path(__file__).parents[1]
OUTPUTS = ("output", "root", "ledger")


def verbs():
    """Yield each verb of each command, with its name."""
    for package, found in own_verbs().items():
        for name, verb in found.items():
            yield f"{package}-{name}", verb


def outputs():
    for name, verb in verbs():
        for argument in inspect.signature(verb).parameters:
            if argument in OUTPUTS:
                yield pytest.param(verb, argument, id=f"{name}-{argument}")


@pytest.mark.parametrize(("verb", "argument"), list(outputs()))
def test_a_path_that_cannot_be_written_is_refused_first(verb, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parameters = inspect.signature(verb).parameters.values()
    needed = {parameter.name: "none" for parameter in parameters if parameter.default is parameter.empty}
    with pytest.raises(UserError, match=f"^`?{argument}`? is /proc/x/new, but nothing can be written there"):
        verb(**{**needed, argument: "/proc/x/new"})
    assert not list(tmp_path.iterdir())


#: What locks the folder that a verb fills, and what tells whether it holds the very same work.
LOCKS = {"ExclusiveFolder", "locked_folder", "workplace"}
SAME_WORK = {"check_same_work", "is_prepared", "add_to_record"}


def called(module):
    """Return the names that a module uses; where it calls `fill_root`, also those of the module that defines it."""
    nodes = list(ast.walk(ast.parse(inspect.getsource(import_module(module)))))
    names = {getattr(node, "attr", getattr(node, "id", None)) for node in nodes}
    return names | called("lit_valuation.data.filled_root") if "fill_root" in names else names


@pytest.mark.parametrize(("verb", "argument"), list(outputs()))
def test_what_is_there_is_not_replaced_and_the_second_command_is_told(verb, argument, tmp_path):
    if argument == "ledger":  # which is locked for each entry, and only added to
        return
    names = called(verb.__module__)
    if argument == "root" or verb.__name__ == "study" or "output_folder" in names:
        assert names & LOCKS and names & SAME_WORK
        return
    parameters = inspect.signature(verb).parameters.values()
    needed = {parameter.name: "none" for parameter in parameters if parameter.default is parameter.empty}
    path = tmp_path / "new"
    with locked_path(path, ""), command_outputs(overwrite=False):
        with pytest.raises(UserError, match=f"{path}, which another command is writing; .* process {os.getpid()}"):
            verb(**{**needed, argument: str(path)})
    path.write_text("kept")
    with pytest.raises(UserError, match=f"{path}, which exists already"):
        verb(**{**needed, argument: str(path)})
    assert path.read_text() == "kept"


def test_the_outputs_of_all_verbs_are_walked():
    walked = {param.id.rpartition("-")[2] for param in outputs()}
    assert walked == set(OUTPUTS) and len(list(outputs())) > 14


#: Where a verb's record is written, if not in the verb's own module.
RECORDED = {
    "lit_detect-calibrate": "lit_detect.calibration",
    "lit_detect-prepare": "lit_core.files.working_folder",  # settings and versions: equal arguments give equal files
    "lit_moe-prepare": "lit_core.corpora.build",
}


def test_each_verb_that_writes_records_what_it_did():
    names = {"write_record", "new_record", "add_to_record", "versions", "PREPARED"}
    for name, verb in verbs():
        if set(inspect.signature(verb).parameters) & {*OUTPUTS, "grids"}:
            assert called(RECORDED.get(name, verb.__module__)) & names, (
                f"{name} writes no record; see docs/contracts.md#records"
            )


def test_no_other_function_creates_folders_with_their_parents():
    others = []
    for package in ("lit_core", *PACKAGES):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                if is_call and (
                    node.func.attr == "makedirs"
                    or (node.func.attr == "mkdir" and any(keyword.arg == "parents" for keyword in node.keywords))
                ):
                    others.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert [path.partition(":")[0] for path in others] == ["lit_core/files/paths.py"]


@pytest.mark.parametrize("spelling", ["a.csv", "./a.csv", "link.csv", "{root}/a.csv"])
@pytest.mark.parametrize(
    "words",
    [
        ["lit_detect", "calibrate", "--ckpt_path", "none", "--human", "{}"],
        ["lit_detect", "attack", "--attack", "Homoglyph", "--input", "{}"],
        ["lit_detect", "attack", "--attack", "Homoglyph", "--config", "{}", "--input", "none"],
        ["lit_moe", "upcycle", "--ckpt_path", "{}"],
        ["lit_moe", "grow", "--ckpt_path", "{}"],
        ["lit_moe", "generate", "--prompt", "a", "--ckpt_path", "{}"],
    ],
    ids=" ".join,
)
def test_a_command_does_not_replace_what_it_reads(words, spelling, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("input: a\n")
    Path("link.csv").symlink_to("a.csv")
    package, *rest = [word.format(spelling.format(root=tmp_path)) for word in words]
    main = import_module(f"{package}.cli").main
    assert main([*rest, "--output", "a.csv", "--overwrite"]) == 2
    assert "output is a.csv, which " in capsys.readouterr().err and Path("a.csv").read_text() == "input: a\n"


@pytest.mark.parametrize("package", ["lit_moe", "lit_detect"])
def test_a_file_that_has_the_name_of_a_record_stays(package, tmp_path):
    for name, verb in own_verbs()[package].items():
        if name not in ("generate", "attack", "board", "doctor"):
            continue
        endings = {"board": "html", "doctor": "md"}
        output = tmp_path / f"new.{endings.get(name, 'jsonl')}"
        beside = output.with_name(f"{output.name}.run.json")
        beside.write_text("of something else")
        needed = {key: "none" for key, one in inspect.signature(verb).parameters.items() if one.default is one.empty}
        with pytest.raises(UserError, match=r"run\.json is not valid JSON .* move it, or give another output"):
            verb(**{**needed, "output": str(output)})
        assert beside.read_text() == "of something else"
