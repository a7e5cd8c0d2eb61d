"""Hidden names are no documents, and links out of a folder of others are not followed, whichever part reads it."""

import ast
import os
from pathlib import Path

import pytest

from lit_core.corpora import TextFolder as Corpus
from lit_core.errors import UserError
from lit_core.files.listing import listed
from lit_detect.data.user_texts import open_texts
from lit_detect.formats.base import files_of
from lit_valuation.sources import ImageFolder

ROOT = Path(__file__).parents[3]
LISTING = {"iterdir", "glob", "rglob", "listdir", "scandir", "walk", "iglob"}
#: Modules that list folders which this program wrote itself, or whose links are checked otherwise.
OWN = {
    "lit_core/board/board.py": "folders of runs that the user typed",
    "lit_core/board/runs.py": "records in run folders",
    "lit_core/cli/closing.py": "a run folder",
    "lit_core/cli/completion.py": "names for the Tab key",
    "lit_core/cli/configs.py": "packaged configs",
    "lit_core/cli/description.py": "walks syntax trees, no folders",
    "lit_core/cli/new_run.py": "a run folder",
    "lit_core/cli/run_folder.py": "packaged configs and run folders",
    "lit_core/cli/show.py": "records in run folders and prepared roots",
    "lit_core/cli/source.py": "walks syntax trees, no folders",
    "lit_core/corpora/build.py": "the working folder of prepare",
    "lit_core/corpora/stdlib.py": "Python's own sources",
    "lit_core/corpora/user.py": "patterns that the user typed",
    "lit_core/data/prepared.py": "a prepared root",
    "lit_core/fetch/debian.py": "an unpacked package; links are left out",
    "lit_core/fetch/packages.py": "a downloaded package",
    "lit_core/files/listing.py": "the function itself",
    "lit_core/files/paths.py": "temporary files",
    "lit_core/files/temporary.py": "temporary files",
    "lit_core/files/working_folder.py": "temporary files",
    "lit_core/lightning/sharded_checkpoint.py": "a checkpoint",
    "lit_core/lm/model_files.py": "checked by refuse_links_out",
    "lit_core/prepare.py": "a prepared root",
    "lit_core/record.py": "names, sizes and hashes only",
    "lit_core/study/cells.py": "the package's own sources and a prepared root",
    "lit_core/study/study.py": "the study's own folder",
    "lit_core/trust.py": "the user's own list",
    "lit_core/work.py": "a working folder",
    "lit_detect/data/module.py": "a prepared root",
    "lit_detect/data/prepare.py": "a prepared root",
    "lit_detect/data/user_texts.py": "a prepared root, and patterns that the user typed",
    "lit_detect/loading.py": "configs of the package",
    "lit_moe/data.py": "names for a message",
    "lit_moe/interop/importing.py": "looks for names only; the folder was checked",
    "lit_moe/interop/exporting.py": "the folder that is written",
    "lit_moe/study/texts.py": "a prepared root",
    "lit_valuation/commands/divide.py": "a prepared root",
    "lit_valuation/data/filled_root.py": "a prepared root",
    "lit_valuation/exchange/answering.py": "a run folder",
    "lit_valuation/exchange/folder.py": "each file is looked at by lstat",
    "lit_valuation/sources/picture_files.py": "counts what is left out as hidden",
    "lit_valuation/sources/hugging_face.py": "patterns that the user typed",
}


def test_folders_of_others_are_listed_in_one_place():
    found = set()
    for path in (path for package in ROOT.glob("lit_*") for path in package.rglob("*.py")):
        called = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in called}
        if names & LISTING:
            found.add(path.relative_to(ROOT).as_posix())
    assert "lit_core/files/listing.py" in found and found - OWN.keys() == set()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "given"
    for name in ("a.txt", ".b.txt", ".git/c.txt", "d/e.txt", "d/.f/g.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("A text of some words.")
    return folder


def test_what_is_hidden_is_no_document(folder):
    assert [path.name for path in listed(folder)] == ["a.txt", "d"]
    assert [document.id for document in Corpus(str(folder), "c").documents()] == ["a.txt", "d/e.txt"]
    assert [path.name for path in open_texts(folder, "texts").files] == ["a.txt"]
    assert [path.name for path in files_of(folder, (".txt",), "path")] == ["a.txt"]


@pytest.mark.parametrize("target", ["/etc/hostname", "../secret.txt", "../outside/x.txt", "nowhere"])
@pytest.mark.parametrize(
    "read",
    [
        lambda folder: list(Corpus(str(folder), "c").documents()),
        lambda folder: open_texts(folder, "texts"),
        lambda folder: files_of(folder, (".txt",), "path"),
        lambda folder: ImageFolder(str(folder.parent), "i", groups=False).samples(),
    ],
)
def test_links_out_of_a_folder_are_refused(folder, tmp_path, target, read):
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "z.txt").symlink_to(target)
    (folder / "z.png").symlink_to(target)
    with pytest.raises(UserError, match=r"z\.\w+ is a link (out of|to a file that does not exist)"):
        read(folder)


def test_a_link_inside_its_folder_is_followed(folder):
    (folder / "z.txt").symlink_to("d/e.txt")
    assert [path.name for path in open_texts(folder, "texts").files] == ["a.txt", "z.txt"]
    (folder.parent / "link").symlink_to(folder)  # which the user names
    assert len(open_texts(folder.parent / "link", "texts").files) == 2


@pytest.mark.parametrize("pattern", ["*", "**/*"])
def test_a_name_that_is_not_text_is_named(tmp_path, pattern):
    (tmp_path / "inner").mkdir()
    (tmp_path / ("." if pattern == "*" else "inner") / os.fsdecode(b"\xffcat\x1b.txt")).touch()
    with pytest.raises(UserError, match=r"\\udcffcat\\x1b.txt has a name that is not in UTF-8.*; rename it"):
        listed(tmp_path, pattern)
