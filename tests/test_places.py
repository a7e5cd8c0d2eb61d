"""Reading looks where the user is; writing goes to the data root, or where an option says."""

import re
from pathlib import Path

import pytest
from tiny_prepares import PREPARES
from verbs import own_verbs

from lit_core.files.paths import resolve_data_path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a folder of the user's own, and a data root."""
    for name in ("here", "data", "texts"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "here")
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("x")
    return tmp_path


def test_each_package_that_prepares_is_walked():
    assert {package for package, verbs in own_verbs().items() if "prepare" in verbs} == {
        name for name in PREPARES if " " not in name
    }


@pytest.mark.parametrize("package", PREPARES.values(), ids=PREPARES)
def test_a_name_is_below_the_data_root_although_a_folder_here_has_it(package, here, capsys):
    package(here / "texts", "mine")()
    assert [path.name for path in Path().rglob("*")] == ["mine", "thesis.txt"]
    assert list((here / "data" / "mine").rglob("prepare.json"))
    out = capsys.readouterr().out
    root = re.search(r"--data.root (\S+)", out)[1]
    assert f"In           {here / 'data' / 'mine'}" in out
    Path("mine/thesis.txt").unlink()
    assert resolve_data_path(root) == here / "data" / "mine"  # also where only a name is printed


@pytest.mark.parametrize("package", PREPARES.values(), ids=PREPARES)
def test_a_path_that_says_where_it_is_is_taken_and_found_by_its_name(package, here, capsys):
    package(here / "texts", "./mine/new")()
    assert list(Path("mine/new").rglob("prepare.json")) and not list((here / "data").iterdir())
    capsys.readouterr()
    package(here / "texts", "mine/new")()  # what was prepared here goes on here
    assert not list((here / "data").iterdir())


def test_the_preparation_before_a_run_says_where_it_writes(here, capsys):
    from lit_detect.data.module import TextDataModule
    from lit_detect.formats import TextTable

    PREPARES["lit_detect"](here / "texts", "unused")
    source = TextTable("twins", str(here / "texts" / "texts.csv"))
    data = TextDataModule("mine", ["twins"], sources=[source])
    data.prepare_data()
    line = f"`data.sources` are prepared before the run: twins in {here / 'data' / 'mine'}."
    assert capsys.readouterr().out.splitlines()[0] == line
    data.prepare_data()
    assert capsys.readouterr().out == ""
    shard = next((here / "data" / "mine").rglob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:-512])
    data.prepare_data()
    assert "is prepared anew" in capsys.readouterr().out
    assert [path.name for path in Path().rglob("*")] == ["mine", "thesis.txt"]
    assert len(data.records("train", "twins")) > 0
