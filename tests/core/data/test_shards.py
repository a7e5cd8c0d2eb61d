"""Shards: readable by others, whole or absent, and damage found by name."""

import io
import json
import pickle
import resource
import subprocess
import sys
import tarfile
import textwrap

import numpy as np
import pytest
import tiny_run
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_core.data import ShardSet, write_index, write_shard
from lit_core.errors import RunFailure, UserError

PNG = bytes.fromhex("89504e470d0a1a0a") + b"not decoded here"


def mixed_samples():
    for number, text in enumerate(tiny_run.real_documents()):
        yield {
            "__key__": f"doc/{number}",
            "txt": text,
            "json": {"label": number, "name": "Ä"},
            "npy": np.arange(6, dtype=np.float32).reshape(2, 3) * number,
            "png": PNG,
            "__text_bytes__": len(text.encode()),
        }


@pytest.fixture
def folder(tmp_path):
    entry = write_shard(tmp_path / "set" / "000000.tar", mixed_samples())
    write_index(tmp_path / "set", [entry], kind="mixed", source="stdlib", split="train", meta={"made": "here"})
    return tmp_path / "set"


def edit(folder, change):
    index = json.loads((folder / "index.json").read_text())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def test_samples_come_back(folder):
    shards = ShardSet(folder)
    assert len(shards) == 3
    for sample, written in zip(shards, mixed_samples(), strict=True):
        assert sample.keys() == written.keys() - {"__text_bytes__"}
        np.testing.assert_array_equal(sample.pop("npy"), written["npy"])
        assert all(written[key] == value for key, value in sample.items())
    assert shards.index["text_bytes"] == sum(len(text.encode()) for text in tiny_run.real_documents())
    assert shards.index["tokens"] == 0  # a matrix of floats is no row of tokens
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(shards))[2]["npy"], shards[2]["npy"])


def test_tarfile_and_webdataset_read_them(folder):
    import webdataset

    with tarfile.open(folder / "000000.tar") as archive:
        names = archive.getnames()
        assert names[:4] == ["doc/0.json", "doc/0.npy", "doc/0.png", "doc/0.txt"]
        for member, entry in zip(archive, ShardSet(folder).members, strict=True):
            assert (member.name, member.offset_data, member.size) == entry[1:4]
        np.testing.assert_array_equal(np.load(io.BytesIO(archive.extractfile("doc/2.npy").read()))[1], [6, 8, 10])
    dataset = webdataset.WebDataset(str(folder / "000000.tar"), shardshuffle=False).decode()
    for sample, written in zip(dataset, mixed_samples(), strict=True):
        assert sample["txt"] == written["txt"] and sample["json"] == written["json"]
        np.testing.assert_array_equal(sample["npy"], written["npy"])


def test_equal_samples_give_equal_bytes(folder, tmp_path):
    entry = write_shard(tmp_path / "again.tar", mixed_samples())
    assert (tmp_path / "again.tar").read_bytes() == (folder / "000000.tar").read_bytes()
    assert entry["sha256"] == ShardSet(folder).index["shards"][0]["sha256"]


def test_a_flipped_byte_is_found_by_name(folder):
    path = folder / "000000.tar"
    ShardSet(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"000000\.tar is damaged: its SHA-256"):
        ShardSet(folder)


def test_damage_within_a_member_is_found_by_name(folder):
    path, shards = folder / "000000.tar", ShardSet(folder)
    offset = next(member[2] for member in shards.members if member[1] == "doc/1.npy")
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(b"no numpy")
    ShardSet(folder, verify=False)[0]
    with pytest.raises(RunFailure, match=r"000000\.tar is damaged: its member doc/1\.npy"):
        ShardSet(folder, verify=False)[1]


def test_a_truncated_or_missing_shard_is_found_at_once(folder):
    path = folder / "000000.tar"
    shards = ShardSet(folder)
    path.write_bytes(path.read_bytes()[:-512])
    with pytest.raises(UserError, match=r"000000\.tar has \d+ bytes, but index\.json says"):
        ShardSet(folder)
    with pytest.raises(RunFailure, match="bytes now"):  # between opening and reading
        shards[0]
    path.unlink()
    with pytest.raises(UserError, match=r"000000\.tar is missing"):
        ShardSet(folder)
    with pytest.raises(UserError, match=r"it has no index\.json"):
        ShardSet(folder / "none")


def set_member(**values):
    return lambda index: index["shards"][0]["members"][0].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_member(name="../../etc/passwd.txt"), "would leave its folder"),
        (set_member(name="/etc/passwd.txt"), "would leave its folder"),
        (set_member(name="a\\..\\b.txt"), "would leave its folder"),
        (set_member(name=3), "would leave its folder"),
        (set_member(name="doc/0.pkl"), "is not of json, npy"),
        (set_member(name="doc/0.pth"), "is not of json, npy"),
        (set_member(offset=10**9), "does not lie within"),
        (set_member(size=-1), "does not lie within"),
        (set_member(tokens="many"), "tokens of"),
        (lambda index: index["shards"][0].update(file="../000000.tar"), "plain name"),
        (lambda index: index["shards"][0].update(file="/tmp/000000.tar"), "plain name"),
        (lambda index: index["shards"][0].update(samples=2), '"samples" must be 3'),
        (lambda index: index["shards"][0].update(size="big"), "integers"),
        (lambda index: index.update(format="other"), '"format"'),
        (lambda index: index.update(version=2), "this release reads versions up to 1"),
        (lambda index: index.update(dtype="float16"), '"dtype"'),
        (lambda index: index.update(tokens=5), '"tokens" is not the sum'),
        (lambda index: index.update(shards={}), '"shards" must be a list'),
        (lambda index: index.pop("kind"), '"kind" must be'),
    ],
)
def test_a_malformed_index_is_refused(folder, change, words):
    edit(folder, change)
    with pytest.raises(UserError, match=words) as raised:
        ShardSet(folder)
    assert str(folder / "index.json") in str(raised.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**7) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_index_causes_anything_but_one_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("bad")
    entry = write_shard(folder / "000000.tar", [{"__key__": "a", "npy": np.arange(9, dtype=np.uint16)}])
    write_index(folder, [entry], kind="tokens", source="x", split="val", dtype="uint16")
    index = json.loads((folder / "index.json").read_text())
    place = data.draw(st.sampled_from([index, index["shards"][0], index["shards"][0]["members"][0]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    (folder / "index.json").write_text(json.dumps(index))
    try:
        list(ShardSet(folder, verify=False))
        ShardSet(folder)
    except (UserError, RunFailure) as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ({"txt": "no key"}, "__key__ is None"),
        ({"__key__": "../a", "txt": ""}, "__key__ is"),
        ({"__key__": "/a", "txt": ""}, "__key__ is"),
        ({"__key__": "a.b", "txt": ""}, "without a dot"),
        ({"__key__": "a", "pkl": b""}, "members are"),
        ({"__key__": "a", "png": np.zeros(3)}, "members are"),
        ({"__key__": "a", "npy": np.array([object()])}, "pickled"),
    ],
)
def test_bad_samples_are_refused(tmp_path, sample, words):
    with pytest.raises(UserError, match=words):
        write_shard(tmp_path / "x.tar", [sample])
    assert not list(tmp_path.iterdir())


def test_a_key_occurs_once(tmp_path):
    with pytest.raises(UserError, match="occurs twice"):
        write_shard(tmp_path / "x.tar", [{"__key__": "a", "txt": ""}] * 2)


def put_member(folder, name, content):
    """Make the source one that holds a single member."""
    with (folder / "000000.tar").open("wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    size = (folder / "000000.tar").stat().st_size
    totals = {"samples": 1, "tokens": 0, "text_bytes": 0}
    members = [{"name": name, "offset": 512, "size": len(content)}]
    shard = {"file": "000000.tar", "sha256": "", "size": size, "members": members, **totals}
    edit(folder, lambda index: index.update(shards=[shard], **totals))


def test_an_array_or_a_nesting_that_is_too_large_is_damage(folder):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**44,)})
    for name, content in (("doc/0.npy", header.getvalue()), ("doc/0.json", b"[" * 200_000)):
        put_member(folder, name, content)
        with pytest.raises(RunFailure, match="cannot be decoded"):
            ShardSet(folder, verify=False)[0]
    (folder / "index.json").write_bytes(b"[" * 200_000)
    with pytest.raises(UserError, match="is not valid JSON"):
        ShardSet(folder)


def test_pickles_in_an_array_are_not_loaded(folder):
    """An .npy file can hold a pickle; here one that would write a file."""

    class Harm:
        def __reduce__(self):
            return open, (str(folder / "harmed"), "w")

    content = io.BytesIO()
    np.save(content, np.array([Harm()], dtype=object), allow_pickle=True)
    put_member(folder, "doc/0.npy", content.getvalue())
    with pytest.raises(RunFailure, match=r"doc/0\.npy cannot be decoded"):
        ShardSet(folder, verify=False)[0]
    assert not (folder / "harmed").exists()


def test_a_write_that_fails_leaves_nothing(tmp_path):
    """The kernel refuses to let the file grow, as it does where a quota or a disk is full."""
    script = f"""
        import resource, signal
        import numpy as np
        from lit_core.data import write_shard
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        samples = ({{"__key__": str(i), "npy": np.zeros(9000, np.uint16)}} for i in range(99))
        write_shard({str(tmp_path / "x.tar")!r}, samples)
    """
    (tmp_path / "x.tar").write_bytes(b"the former file")
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 1 and "RunFailure: The disk is full" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]
    assert (tmp_path / "x.tar").read_bytes() == b"the former file"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    """A file system of 128 kB, where the machine lets us mount one."""
    script = """
        import subprocess, sys
        from pathlib import Path
        import numpy as np
        from lit_core.data import write_shard
        from lit_core.errors import RunFailure
        folder = Path(sys.argv[1])
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], check=True)
        try:
            write_shard(folder / "x.tar", ({"__key__": str(i), "npy": np.zeros(9000, np.uint16)} for i in range(99)))
        except RunFailure as error:
            print(error, list(folder.iterdir()))
    """
    command = ["unshare", "--mount", "--map-root-user", sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if "unshare" in result.stderr or "mount" in result.stderr:
        pytest.skip("this machine does not let us mount a file system")
    assert "The disk is full" in result.stdout and result.stdout.endswith("[]\n"), result.stderr
