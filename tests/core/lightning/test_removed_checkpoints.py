"""A checkpoint that a run resumes from says which ones to remove, but never has anything else removed."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from lit_core.lightning.checkpoint import META, AtomicCheckpointIO


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The working folder, with a run, a folder of the user's own and another run's checkpoint."""
    for name in (
        "runs/x/checkpoints/step=1.ckpt",
        "runs/x/checkpoints/parts.ckpt/meta.pt",
        "mine/thesis.txt",
        "a.ckpt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)


def there():
    return {str(path) for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "path", ["local://{}/mine", "file://{}/a.ckpt", "{}/mine", "runs/x/checkpoints/../../../a.ckpt"]
)
def test_what_is_no_checkpoint_of_the_run_stays(path, runs):
    before = there()
    with pytest.warns(UserWarning, match="is not removed") if "file:" not in path else nullcontext():
        AtomicCheckpointIO().remove_checkpoint(path.format(Path.cwd()))
    assert there() == before


def test_checkpoints_are_removed(runs):
    before = there()
    AtomicCheckpointIO().remove_checkpoint("runs/x/checkpoints/step=1.ckpt")
    AtomicCheckpointIO().remove_checkpoint(Path("runs/x/checkpoints/parts.ckpt"))
    assert before - there() == {"runs/x/checkpoints/step=1.ckpt", f"runs/x/checkpoints/parts.ckpt/{META}"}
