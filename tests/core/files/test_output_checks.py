import errno
import os
import tempfile
from pathlib import Path

import pytest

from lit_core.errors import UserError
from lit_core.files.outputs import COMPLETE, command_outputs, new_folder, output_file, output_folder
from lit_core.files.paths import locked_path, make_folder
from lit_core.files.temporary import remove_left

CHECKS = (new_folder, output_file, output_folder)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("path", ["new", "deep/er/new"])
def test_a_path_that_can_be_written_is_returned_and_nothing_is_left(check, path):
    assert check(path) == Path(path)
    assert not list(Path().iterdir())


@pytest.mark.parametrize("check", CHECKS)
def test_the_home_folder_is_expanded(check, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check("~/new") == tmp_path / "new"


@pytest.mark.parametrize("check", CHECKS)
def test_a_file_in_the_place_of_a_folder_is_refused(check):
    Path("file").touch()
    with pytest.raises(UserError, match=r"^root is file/deep/new, but file is a file; give another path"):
        check("file/deep/new", "root")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("path", ["/proc/x", "/proc/x/y"])
def test_a_folder_that_takes_no_files_is_refused(check, path):
    with pytest.raises(UserError, match=f"^output is {path}, but nothing can be written there"):
        check(path)


@pytest.mark.parametrize("check", CHECKS)
def test_a_full_disk_is_not_taken_for_a_mistake(check, monkeypatch):
    def full(**options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(OSError, match="No space left"):
        check("new")


def test_what_exists_is_refused_where_it_cannot_be_replaced():
    Path("file").touch()
    Path("folder").mkdir()
    assert output_file("file", continued=True) == Path("file") and output_folder("folder") == Path("folder")
    with pytest.raises(UserError, match=r"output is file, which exists already; give another path, remove it, or add"):
        output_file("file")
    with command_outputs(overwrite=True):
        assert output_file("file") == Path("file")
    for path in ("file", "folder"):
        with pytest.raises(UserError, match=f"output is {path}, which exists already"):
            new_folder(path)
    with pytest.raises(UserError, match="output is folder, which is a folder"):
        output_file("folder")
    with pytest.raises(UserError, match="output is file, which is a file"):
        output_folder("file")


def test_what_a_killed_command_was_just_writing_is_written_again():
    Path("file").touch()
    Path(".file.work").mkdir()
    with pytest.raises(UserError, match="exists already"):
        output_file("file", work=".{}.work")
    (Path(".file.work") / COMPLETE).touch()
    assert output_file("file", work=".{}.work") == Path("file")


@pytest.mark.parametrize("check", [new_folder, output_file])
def test_a_command_holds_its_output_until_it_ends(check):
    """Each lock is of an open file, so that a second command in this process meets it too."""
    with command_outputs(overwrite=False), command_outputs(overwrite=False):
        assert check("deep/new") == Path("deep/new")
        sign = Path("deep/.new.held.litshift.tmp")
        assert sign.exists()
        remove_left(Path("deep"))
        assert sign.exists()
        with pytest.raises(UserError, match=f"another command is writing; wait for it. It is process {os.getpid()}"):
            with locked_path(Path("deep/new"), "output is deep/new, which another command is writing; wait for it."):
                pass
    assert not list(Path().iterdir())


def test_the_lock_that_a_kill_has_left_is_taken_over():
    Path(".new.held.litshift.tmp").touch()
    with command_outputs(overwrite=False):
        output_file("new")
    assert not list(Path().iterdir())


def test_a_folder_that_cannot_be_created_is_one_sentence():
    make_folder(Path("deep/er"))
    make_folder(Path("deep/er"))
    with pytest.raises(UserError, match=r"^/proc/x/y cannot be created"):
        make_folder(Path("/proc/x/y"))
