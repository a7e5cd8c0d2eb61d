"""A damaged file of prepared data is noticed by whoever reads it, and what the message advises mends it."""

import ast
import re
import shutil
from pathlib import Path

import pytest
from tiny_prepares import PREPARES, detect

from lit_core.data.shards import ShardSet
from lit_core.errors import UserError

#: Files that nothing is compared with; other values that make sense are taken.
NOT_HASHED = ("prepare.json", "tokenizer_config.json")
ROOT = Path(__file__).parents[1]


def swapped(path):
    """Exchange two letters or digits that stand side by side, near the middle of the file where there are such."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    pairs = ((a, a + 1) for a in (*range(middle, len(content) - 1), *range(middle)))
    a, b = next((a, b) for a, b in pairs if content[a] != content[b] and content[a : b + 1].isalnum())
    content[a], content[b] = content[b], content[a]
    path.write_bytes(content)


def shortened(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def contents(root):
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("package", PREPARES.values(), ids=PREPARES)
def test_the_advice_about_each_damaged_file_makes_it_whole(package, tmp_path, capsys):
    prepare = package(tmp_path)
    prepare()
    root = tmp_path / "root"
    written = contents(root)
    for file in written:
        for damage in (swapped, shortened, Path.unlink):
            if file.name in NOT_HASHED and damage is not shortened:
                continue
            damage(root / file)
            with pytest.raises(UserError) as caught:
                prepare(verify=True)
            message = str(caught.value)
            assert "\n" not in message and file.name in message, message
            removed = re.search(r"remove (\S+) to prepare it again", message)
            if removed:
                shutil.rmtree(removed[1])
            else:
                assert "prepare the source" in message, message
            capsys.readouterr()
            prepare()
            assert removed or re.search(rf"is prepared anew\. .*{file.name}", capsys.readouterr().out)
            assert contents(root) == written, (file, damage)


@pytest.mark.parametrize("package", PREPARES.values(), ids=PREPARES)
def test_an_index_that_says_something_else_is_noticed_by_whoever_opens_the_set(package, tmp_path):
    package(tmp_path)()
    for index in (tmp_path / "root").rglob("index.json"):
        ShardSet(index.parent)
        index.write_text(index.read_text().replace('"licence": "', '"licence": "not ', 1))
        with pytest.raises(UserError, match=r"index.json is damaged: its SHA-256 is not the one that prepare.json has"):
            ShardSet(index.parent)


def test_each_reader_of_text_shards_notices_swapped_bytes(tmp_path):
    from lit_detect.data.user_texts import open_texts

    prepare = detect(tmp_path)
    prepare()
    (shard,) = (tmp_path / "root" / "twins" / "test").glob("*.tar")
    folders = [tmp_path / "root" / "twins" / "test", tmp_path / "root" / "twins", tmp_path / "root"]
    for folder in folders:
        open_texts(folder, "input")
    swapped(shard)
    for folder in folders:
        with pytest.raises(UserError, match=f"{shard} is damaged"):
            open_texts(folder, "input")


def test_hashes_are_left_out_only_where_it_was_asked_or_they_are_compared_with_others():
    unverified = {}
    for path in ROOT.glob("lit_*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "verify" and getattr(node.value, "value", None) is False:
                unverified[path.relative_to(ROOT).as_posix()] = node
    assert set(unverified) == {
        "lit_core/prepare.py",  # the index alone, with which new documents must agree
        "lit_detect/data/module.py",  # digests, which stand in the index
        "lit_valuation/commands/prepare.py",  # the index alone, which the command has just written
        "lit_valuation/exchange/folder.py",  # compared with the manifest
    }
