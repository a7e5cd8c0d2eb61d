"""Every packaged config says what it is and how it is run, is listed by `configs`, and is found by its former path."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import lit_detect.cli
import lit_moe.cli
import lit_valuation.cli
from lit_core.cli.configs import config_index
from lit_core.cli.run_folder import find_config
from lit_core.moved_names import MOVED_CONFIGS

ROOT = Path(__file__).parents[3]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))
MAINS = {"lit_moe": lit_moe.cli.main, "lit_valuation": lit_valuation.cli.main, "lit_detect": lit_detect.cli.main}


def head(path):
    """The comment lines at the beginning of a config, without their marks."""
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    return [line.removeprefix("#") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]


def commands(path):
    """The configs that a command in the comments of a config names; lines of a command are indented."""
    return set(re.findall(r"--config (configs/\S+\.yaml)", " ".join(line for line in head(path) if line[:3] == "   ")))


@pytest.mark.parametrize("path", CONFIGS)
def test_each_config_says_what_it_is_and_names_the_command_that_runs_it(path):
    first, *others = head(path)
    assert re.fullmatch(r" [A-Z0-9].{10,115}\.", first) and "--config" not in first, first
    named = commands(path)
    told = [other for other in CONFIGS if other in " ".join(others) and path != other and commands(other)]
    assert path in named or told, f"{path} names no command with itself in it"
    assert all((ROOT / other).is_file() for other in named), named


def test_a_folder_is_named_after_a_command_a_key_or_what_it_holds():
    """So that folders are named alike in all packages."""
    commands = {"attack", "divide", "fit", "generate", "predict", "prepare"}
    collections = {"paper", "quickstart", "studies"}
    for path in CONFIGS:
        package, folder, *_ = path.split("/")[1:]
        if package == "trainer" or folder in commands | collections:
            continue
        assert f"{folder}:" in (ROOT / path).read_text() or f"{folder}+:" in (ROOT / path).read_text(), path


def test_a_shared_config_names_no_class_of_one_package():
    shared = [path for path in CONFIGS if path.startswith("configs/trainer/")]
    assert shared
    for path in shared:
        assert "lit_" not in str(yaml.safe_load((ROOT / path).read_text())), path


@pytest.mark.parametrize("package", MAINS)
def test_configs_lists_each_config_of_the_package_with_its_first_line(package, capsys):
    assert MAINS[package](["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = dict(re.split(r"  +", line, maxsplit=1) for line in lines if line.startswith("configs/"))
    own = [path for path in CONFIGS if path.split("/")[1] in (package.removeprefix("lit_"), "trainer")]
    assert listed == {path: head(path)[0].strip() for path in own} == config_index(package)
    texts = [line.index(listed[line.split()[0]]) for line in lines if line.startswith("configs/")]
    assert len(set(texts)) == 1  # aligned


def test_configs_are_searched_by_words(capsys):
    assert lit_moe.cli.main(["configs", "router", "SINKHORN"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("configs/")]
    assert lines and all("router" in line.lower() and "sinkhorn" in line.lower() for line in lines)
    assert lit_moe.cli.main(["configs", "--words", "sinkhorn router"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("configs/")] == lines


def test_a_word_that_no_config_has_is_refused_with_the_nearest_one(capsys):
    assert lit_moe.cli.main(["configs", "sinkhron"]) == 2
    error = capsys.readouterr().err
    assert 'Did you mean "sinkhorn"?' in error and error.count("\n") == 1


@pytest.mark.parametrize("former", MOVED_CONFIGS)
def test_a_former_path_finds_the_present_config(former, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"configs/{former}" not in CONFIGS
    found = Path(find_config(f"configs/{former}"))
    assert found.read_bytes() == (ROOT / "configs" / MOVED_CONFIGS[former]).read_bytes()


def test_a_reader_that_has_left_is_no_error():
    command = [sys.executable, "-m", "lit_detect", "configs"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (141, "")
