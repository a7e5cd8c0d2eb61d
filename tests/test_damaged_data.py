"""A damaged file of prepared data is noticed by whoever reads it, and what the message advises mends it."""

import ast
import csv
import re
import shutil
from itertools import islice
from pathlib import Path

import pytest

from lit_core.corpora import Austen, TextFolder
from lit_core.errors import UserError

#: Files that nothing is compared with; other values that make sense are taken.
NOT_HASHED = ("prepare.json", "tokenizer_config.json")
ROOT = Path(__file__).parents[1]


def passages(count):
    return [document.text[:300] for document in islice(Austen().documents(), count)]


def moe(place):
    from lit_core.prepare import prepare

    (place / "prose").mkdir(exist_ok=True)
    for number, text in enumerate(passages(8)):
        (place / "prose" / f"{number}.txt").write_text(text)
    return lambda **verify: prepare(
        str(place / "root"), [TextFolder(str(place / "prose"), "prose")], "bytes", test_fraction=0.2, **verify
    )


def detect(place):
    from lit_detect.data.prepare import prepare
    from lit_detect.formats import TextTable

    with (place / "texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, i % 2) for i, text in enumerate(passages(40)))])
    source = TextTable("twins", str(place / "texts.csv"))
    return lambda **verify: prepare(str(place / "root"), [source], val_fraction=0.2, test_fraction=0.2, **verify)


def valuation(place):
    from lit_valuation.commands.prepare import prepare
    from lit_valuation.data.division import Division, Owner
    from lit_valuation.sources import Digits

    division = Division(train=20, val=10, test=10, evaluation_useful=0.0, owners={"one": Owner()}, owner_samples=20)
    return lambda **verify: prepare(str(place / "root"), Digits(), division=division, **verify)


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


@pytest.mark.parametrize("package", [moe, detect, valuation])
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
        "lit_detect/data/module.py",  # digests, which stand in the index
        "lit_valuation/exchange/folder.py",  # compared with the manifest
    }
