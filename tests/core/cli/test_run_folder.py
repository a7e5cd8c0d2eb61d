import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from lit_core.cli.run_folder import choose_run_folder, discard_new_files, forget_run_folder
from lit_core.errors import UserError


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LITSHIFT_RUN_FOLDER", raising=False)
    yield
    forget_run_folder()


def test_runs_that_start_at_the_same_moment_have_folders_of_their_own(monkeypatch):
    monkeypatch.setattr(os, "environ", {})  # threads share it, processes do not
    together, mkdir = Barrier(8, timeout=60), Path.mkdir

    def all_at_once(folder, *arguments, **options):
        if folder.name == "base-1" and not folder.exists():
            together.wait()
        mkdir(folder, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", all_at_once)
    with ThreadPoolExecutor(8) as threads:
        chosen = set(threads.map(lambda _: choose_run_folder("moe", None, ["a/base.yaml"], None), range(8)))
    assert chosen == {Path("runs/moe") / f"base-{number}" for number in range(1, 9)}


def test_a_new_folder_is_discarded_and_a_named_one_that_was_there_is_not():
    Path("runs/moe/named").mkdir(parents=True)
    choose_run_folder("moe", None, ["a/base.yaml"], None)
    discard_new_files()
    assert [path.name for path in Path("runs/moe").iterdir()] == ["named"]
    forget_run_folder()
    choose_run_folder("moe", "named", [], None)
    discard_new_files()
    assert [path.name for path in Path("runs/moe").iterdir()] == ["named"]


@pytest.mark.parametrize("work", ["predictions.work/0.jsonl", "predictions.csv", "checkpoints/last.ckpt"])
def test_a_new_folder_with_finished_work_outlives_a_failure(work, capsys):
    folder = choose_run_folder("moe", None, ["a/base.yaml"], None)
    (folder / work).parent.mkdir(exist_ok=True)
    (folder / work).touch()
    discard_new_files()
    assert (folder / work).exists()
    assert capsys.readouterr().err == "Add --run base-1 to go on in runs/moe/base-1.\n".replace(
        "runs", f"{Path.cwd()}/runs"
    )


def test_a_name_that_is_a_file_or_a_link_to_nothing_is_refused():
    Path("runs/moe").mkdir(parents=True)
    Path("runs/moe/link").symlink_to("nothing")
    Path("runs/moe/file").touch()
    for name in ("link", "file"):
        with pytest.raises(UserError, match=f"The run folder is runs/moe/{name}, which is no folder"):
            choose_run_folder("moe", name, [], None)
