import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lit_core.errors import RunFailure, did_you_mean
from lit_core.files.paths import atomic_path, atomic_write, data_root, locked_path, resolve_data_path


def test_data_root_is_the_environment_or_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("LITSHIFT_DATA")
    assert str(data_root()).endswith(".cache/litshift")


def test_a_data_path_is_found_here_before_it_is_looked_for_below_the_root(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "root"))
    assert resolve_data_path("x") == tmp_path / "root" / "x"
    (tmp_path / "x").mkdir()
    assert str(resolve_data_path("x")) == "x"
    assert resolve_data_path("/y").as_posix() == "/y"


def test_a_failed_write_leaves_the_former_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    atomic_write(target, "former")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert target.read_text() == "former"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_sentence_and_leaves_the_former_file(tmp_path):
    """A limit on the file size stands in for the disk's: the write fails in the middle, as at a full disk."""
    script = f"""
import resource, signal
from pathlib import Path
from lit_core.files.paths import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
atomic_write(Path({str(tmp_path / "a.bin")!r}), b"former")
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
atomic_write(Path({str(tmp_path / "a.bin")!r}), b"x" * 100000)
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)  # the platform has the limit
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert RunFailure.__name__ in result.stderr and "The disk is full" in result.stderr
    assert (tmp_path / "a.bin").read_bytes() == b"former"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_did_you_mean():
    assert did_you_mean("sead", ["seed", "data"]) == ' Did you mean "seed"?'
    assert did_you_mean("seed", ["seed", "data"]) == "", "an argument of another class by that name is no help"
    assert did_you_mean("zzz", ["seed"]) == ""


def test_prepared_data_are_preferred_to_a_folder_of_their_name(tmp_path, monkeypatch):
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "text.txt").write_text("text")
    below = tmp_path / "root" / "own" / "source" / "train"
    below.mkdir(parents=True)
    assert resolve_data_path("own") == Path("own")
    (below / "index.json").write_text("{}")
    assert resolve_data_path("own") == tmp_path / "root" / "own"
    assert resolve_data_path("./own") == Path("own")
    (tmp_path / "own" / "index.json").write_text("{}")
    assert resolve_data_path("own") == Path("own")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EIO])
def test_a_path_is_written_without_a_lock_where_there_are_no_links(number, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    if number == errno.EIO:  # which is a fault
        with pytest.raises(OSError, match="Input/output"), locked_path(tmp_path / "x", "busy"):
            pass
    else:
        with locked_path(tmp_path / "x", "busy"):
            (tmp_path / "x").write_text("written")
    assert {path.name for path in tmp_path.iterdir()} <= {"x"}
