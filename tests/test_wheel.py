"""The wheel holds every module of the packages and all their data, and nothing of the development."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("lit_*/__init__.py"))
#: Imports each module whose name stands on the input and prints where it was found.
IMPORT = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.stdin.read().split()}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel that was built without a network, and the folder in which it is unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"  # a build leaves files behind
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")
    shutil.copytree(ROOT, tree, ignore=ignored)
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(folder)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "unpacked")
        return set(archive.namelist()), folder / "unpacked"


def files_of(pattern):
    """The files of the packages that fit a pattern, by their path in the wheel."""
    found = [path for package in PACKAGES for path in (ROOT / package).rglob(pattern)]
    return {path.relative_to(ROOT).as_posix() for path in found if path.is_file() and "__pycache__" not in path.parts}


@pytest.mark.cold  # a warm process has imported the modules of the checkout
def test_every_module_is_imported_from_the_wheel(wheel):
    names, folder = wheel
    modules = files_of("*.py")
    assert len(modules) > 200 and modules <= names
    paths = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): str(folder / path)
        for path in modules
        if not path.endswith("/__main__.py")
    }
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(folder)],
        input="\n".join(paths),
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == paths


def test_all_data_are_in_the_wheel(wheel):
    names, _ = wheel
    configs = {f"lit_core/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    data = files_of("*") - files_of("*.py")
    assert len(configs) > 100 and {f"{package}/py.typed" for package in PACKAGES} <= data
    assert configs | data <= names


def test_nothing_of_the_development_is_in_the_wheel(wheel):
    names, _ = wheel
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    scripts = {path.name for path in (ROOT / "tools").glob("*.py")}
    assert len(scripts) > 3
    for name in names:
        parts = name.split("/")
        assert parts[-1] not in scripts and not parts[-1].startswith(("make_", "test_", "conftest")), name
        assert not {"tools", "tests", "benchmarks", "examples", "docs"} & set(parts), name


def test_the_sdist_holds_what_is_tracked(tmp_path):
    """An unpacked sdist passes its own tests, which read configs, docs, fixtures and the Makefile."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("this is no clone")
    tree = tmp_path / "tree"
    for name in tracked.stdout.splitlines():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked.stdout.splitlines()) - held == {".gitignore"}
