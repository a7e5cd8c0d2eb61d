"""One hostile answer, whatever is in it, is refused by name, and the others are ranked."""

import csv
import hashlib
import io
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
from crossing import answer, checkpoint, files
from forging import forged, members_of, seal
from PIL import Image

from lit_core.errors import UserError
from lit_valuation.cli import main
from lit_valuation.exchange.ledger import SharingLedger


def npy(header, data=b""):
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def png(side):
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, format="PNG")
    return buffer.getvalue()


def first_input(content, extension="npy"):
    """Replace the first sample's input."""

    def change(folder):
        members = members_of(folder)
        name = min(name for name in members if name.endswith(".png"))
        seal(
            folder,
            {
                f"000000.{extension}" if key == name else key: content if key == name else value
                for key, value in members.items()
            },
        )

    return change


def all_inputs(value):
    def change(folder):
        buffer = io.BytesIO()
        np.save(buffer, np.full((1, 8, 8), value, dtype=np.float32))
        values = [buffer.getvalue()[:-4] + np.float32(value * (1 - i / 100)).tobytes() for i in range(100)]
        members = {
            name.replace(".png", ".npy"): values[i] if name.endswith(".png") else content
            for i, (name, content) in enumerate(members_of(folder).items())
        }
        seal(folder, members)

    return change


def first_label(content):
    def change(folder):
        seal(folder, members_of(folder) | {"000000.json": content})

    return change


def index_with(**changes):
    return lambda folder: seal(folder, change_index=lambda index: index.update(changes))


def shard_named(name):
    def change(folder):
        seal(
            folder,
            None,
            lambda index: index["shards"][0].update(file=name),
            lambda manifest: manifest["contents"]["shards"][0].update(file=name),
        )

    return change


def meta_with(**changes):
    return lambda folder: seal(folder, change_index=lambda index: index["meta"].update(changes))


def manifest_with(**changes):
    return lambda folder: seal(folder, change_manifest=lambda manifest: manifest.update(changes))


def contents_with(**changes):
    return lambda folder: seal(folder, change_manifest=lambda manifest: manifest["contents"].update(changes))


def written(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def huge(folder):
    """Declare images that take gigabytes, in an answer that is small."""
    seal(
        folder,
        None,
        lambda index: index["meta"].update(shape=[1, 30000, 30000]),
        lambda manifest: manifest["contents"].update(shape=[1, 30000, 30000]),
    )


def many(folder):
    members = members_of(folder)
    more = {f"{1000 + i:06d}.{end}": members[f"000000.{end}"] for i in range(3000) for end in ("png", "json")}
    seal(folder, members | more)


def packed(**header):
    """Add a member whose header a tar reader would follow back, or search for hours."""

    def change(folder):
        seal(folder, members_of(folder))
        path = folder / "000000.tar"
        member = tarfile.TarInfo("x")
        for key, value in header.items():
            setattr(member, key, value)
        content = b"9" * max(member.size, 0)
        made = path.read_bytes().rstrip(b"\0")
        made += b"\0" * (-len(made) % 512) + member.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * 10240
        path.write_bytes(made)
        known = {"sha256": hashlib.sha256(made).hexdigest(), "size": len(made)}
        seal(
            folder,
            None,
            lambda index: index["shards"][0].update(known),
            lambda manifest: manifest["contents"]["shards"][0].update(known),
        )

    return change


def linked(name):
    def change(folder):
        shutil.move(folder / name, folder.parent / f"{folder.name}-{name}")
        (folder / name).symlink_to(folder.parent / f"{folder.name}-{name}")

    return change


def replaced(name, make):
    def change(folder):
        (folder / name).unlink()
        make(folder / name)

    return change


DEEP = b"[" * 100_000
HOSTILE = {
    "header cut": first_input(npy(b"{'descr': (")),
    "header of code": first_input(npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os'),)}")),
    "header of objects": first_input(npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1, 8, 8), }")),
    "header of gigabytes": first_input(npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40, 8), }")),
    "header deep": first_input(npy(b"(" * 9000)),
    "header not text": first_input(npy(b"\xff\xfe")),
    "image of another size": first_input(png(3000), "png"),
    "image cut": first_input(png(8)[:40], "png"),
    "label of a surrogate": first_label(b'{"label": "\\ud800"}'),
    "label deep": first_label(DEEP),
    "label of a number": first_label(b"1e999"),
    "label not text": first_label(b"\xff"),
    "class of a surrogate": meta_with(classes=["\ud800"]),
    "classes deep": written("index.json", DEEP),
    "samples negative": index_with(samples=-1),
    "shard of 300 characters": shard_named("a" * 300 + ".tar"),
    "shard of a surrogate": shard_named("\ud800.tar"),
    "shard with a null": shard_named("a\0.tar"),
    "shard elsewhere": shard_named("../000000.tar"),
    "images of gigabytes": huge,
    "too many images": many,
    "counts that cancel": contents_with(classes={"1": 40, "2": -28}),
    "no classes": contents_with(classes={}),
    "shape of nothing": contents_with(shape=[]),
    "manifest deep": written("manifest.json", DEEP),
    "manifest empty": written("manifest.json", b""),
    "manifest not text": written("manifest.json", b"\xff\xfe{}"),
    "keys of numbers": manifest_with(keys=[1, 2]),
    "weights of nan": manifest_with(weights=[float("nan")] * 12),
    "a file too many": written("\x1b[2J\n.txt", b""),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "index missing": lambda folder: (folder / "index.json").unlink(),
    "shard missing": lambda folder: (folder / "000000.tar").unlink(),
    "shard that leads back": packed(size=-512),
    "shard of digits": packed(type=tarfile.XHDTYPE, size=150_000),
    "shard a link": linked("000000.tar"),
    "manifest a link": linked("manifest.json"),
    "index a pipe": replaced("index.json", os.mkfifo),
    "shard a folder": replaced("000000.tar", os.mkdir),
    "not a folder": lambda folder: shutil.rmtree(folder),
}


@pytest.fixture
def sent(made, place):
    """An honest answer and one of each kind of hostile ones, by owner."""
    answers = {"honest": place / "answer_5"}
    for name, change in HOSTILE.items():
        folder = place / "in" / name
        shutil.copytree(place / "answer_1", folder)
        change(folder)
        answers[name] = folder
    for name, value in (("gradients", 3e38), ("loss", 1e15)):
        answers[f"no finite {name}"] = forged(place / "answer_1", place / f"in/{name}")
        all_inputs(value)(answers[f"no finite {name}"])
    return {name: str(path) for name, path in answers.items()}


def test_a_hostile_query_is_refused_before_anything_is_written(place):
    before = files(place / "data")
    for name, change in HOSTILE.items():
        folder = place / "in" / name
        shutil.copytree(place / "query", folder)
        change(folder)
        with pytest.raises(UserError) as error:
            answer(place, 1, query=str(folder), output=str(place / "new"))
        assert str(error.value).isprintable() and len(str(error.value)) < 1000, name
    assert not (place / "new").exists() and files(place / "data") == before


def test_the_others_are_ranked(place, sent, capsys):
    line = [
        "rank",
        "--query",
        str(place / "query"),
        "--answers",
        json.dumps(sent),
        "--data",
        str(place / "data/trainer"),
    ]
    line += ["--ckpt_path", checkpoint(place), "--output", str(place / "ranking"), "--seeds", "2"]
    assert main([*line, "--expect_digests", json.dumps({"Honest": "0" * 12})]) == 2  # every one is refused
    said = capsys.readouterr().out
    assert "not the expected 000000000000" in said
    assert main(line) == 3
    said = capsys.readouterr().out
    with (place / "ranking/ranking.csv").open() as file:
        rows = {row["owner"]: row["rank"] for row in csv.DictReader(file)}
    assert rows == {"honest": "1", "(nothing shared)": "–"} | dict.fromkeys(set(sent) - {"honest"}, "refused")
    page = (place / "ranking/report.html").read_text()
    for name in set(sent) - {"honest"}:
        (line,) = [line for line in said.splitlines() if line.startswith(f"{name} is refused: ")]
        assert line.isprintable() and line.endswith((".", "?")) and len(line) < 1000, line
        assert "restore" not in line.lower() and "prepare the" not in line, line
        assert f"<li>{name}: " in page
    received = [
        e.counterparty for e in SharingLedger(place / "data/trainer/ledger.jsonl").entries() if e.event == "received"
    ]
    assert sorted(received) == ["honest", "no finite gradients", "no finite loss"]
