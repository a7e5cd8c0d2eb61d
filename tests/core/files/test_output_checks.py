import errno
import os
import tempfile
from pathlib import Path

import pytest

from lit_core.errors import UserError
from lit_core.files.outputs import COMPLETE, new_output, output_file, output_folder, set_overwriting
from lit_core.files.paths import make_folder

CHECKS = (new_output, output_file, output_folder)


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
    with pytest.raises(UserError, match=r"output is file, which exists already; give another path, or add --overwrite"):
        output_file("file")
    set_overwriting(True)
    assert output_file("file") == Path("file")
    set_overwriting(False)
    for path in ("file", "folder"):
        with pytest.raises(UserError, match=f"output is {path}, which exists already"):
            new_output(path)
    with pytest.raises(UserError, match="output is folder, which is a folder"):
        output_file("folder")
    with pytest.raises(UserError, match="output is file, which is a file"):
        output_folder("file")


def test_what_a_killed_command_was_just_writing_is_written_again():
    Path("file").touch()
    Path(".file.work").mkdir()
    for check in (new_output, output_file):
        with pytest.raises(UserError, match="exists already"):
            check("file", work=".{}.work")
    (Path(".file.work") / COMPLETE).touch()
    assert new_output("file", work=".{}.work") == output_file("file", work=".{}.work") == Path("file")


def test_a_folder_that_cannot_be_created_is_one_sentence():
    make_folder(Path("deep/er"))
    make_folder(Path("deep/er"))
    with pytest.raises(UserError, match=r"^/proc/x/y cannot be created"):
        make_folder(Path("/proc/x/y"))
