"""A short part of the fuzzer for each reader, and each file that it once found; `make fuzz` is the long part."""

import shutil

import pytest
from fuzz_configs import SLOW
from fuzz_targets import TARGETS
from fuzzing import FINDS, fuzz, outcome


@pytest.mark.parametrize("name", TARGETS)
def test_altered_files_are_read_or_refused_in_a_sentence(name):
    assert fuzz(name, TARGETS[name], 1 if name in SLOW else 8, seed=1) == {}


@pytest.mark.parametrize("find", sorted(FINDS.iterdir()) if FINDS.exists() else [], ids=lambda find: find.name)
def test_what_was_found_stays_mended(find, tmp_path):
    read = TARGETS[find.name.rpartition("-")[0]](tmp_path)
    shutil.copytree(find, tmp_path, dirs_exist_ok=True)
    assert outcome(read) is None


def test_the_fuzzer_finds_a_raw_exception():
    def make(folder):
        (folder / "x").write_bytes(b"12")
        return lambda: int((folder / "x").read_bytes())

    assert any(kind.startswith("ValueError") for kind in fuzz("x", make, 50, seed=0))
