"""The root of prepare: what is finished outlives a failure, what is not does not, and the end leaves nothing."""

import pytest

from lit_core.errors import RunFailure, UserError
from lit_core.files.working_folder import WORK, workplace


@pytest.mark.parametrize("error", [RunFailure, UserError, OSError, MemoryError])
def test_a_failure_keeps_what_is_finished(error, tmp_path, capsys):
    for piece in ("begun.txt", "finished.json"):
        with pytest.raises(error), workplace(tmp_path / "root", "*/*.json") as work:
            (work / "source").mkdir(parents=True)
            (work / "source" / piece).touch()
            raise error
        is_kept = piece == "finished.json"
        assert (work / "source" / piece).exists() == is_kept == (tmp_path / "root").exists()
        assert (f"kept in {work}; the same command resumes" in capsys.readouterr().err) == is_kept


def test_the_end_removes_what_others_left(tmp_path):
    root = tmp_path / "root"
    (root / WORK / "other" / "text-1").mkdir(parents=True)
    (root / WORK / "other" / "text-1" / "text.bin").write_text("a copy of a corpus")
    (root / ".x.litshift.tmp").mkdir()
    with workplace(root, "*/*.json"):
        pass
    assert list(root.iterdir()) == []


def test_hidden_files_of_the_user_stay(tmp_path):
    (tmp_path / ".cache.tmp").mkdir()
    (tmp_path / ".prepare").mkdir()
    own = [tmp_path / name for name in (".draft.tmp", ".letter.former.tmp", ".cache.tmp/notes", ".prepare/notes")]
    for path in own:
        path.write_text("the user's")
    with workplace(tmp_path, "*/*.json"):
        pass
    assert [path.read_text() for path in own] == ["the user's"] * 4
    assert len(list(tmp_path.iterdir())) == 4
