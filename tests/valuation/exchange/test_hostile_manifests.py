"""Whatever is in a manifest or an index: refused with one sentence, or what an honest owner could have sent."""

import copy
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from crossing import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_core.errors import UserError
from lit_valuation.cli import main
from lit_valuation.exchange.acceptance import accept
from lit_valuation.exchange.folder import incoming
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.manifest import Query, digest

quickly = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a/b", "../x"])
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


def places(value, path=()):
    """Return where all values lie within a JSON value, itself left out."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in pairs for place in ((*path, key), *places(inner, (*path, key)))]


@st.composite
def altered(draw, plain):
    """Return a JSON value with one value removed, replaced or repeated, or a key too many."""
    changed = copy.deepcopy(plain)
    *way, last = draw(st.sampled_from(places(plain)))
    parent = changed
    for key in way:
        parent = parent[key]
    kind = draw(st.sampled_from(["remove", "replace", "add"]))
    if kind == "remove":
        del parent[last]
    elif kind == "replace":
        parent[last] = draw(VALUES)
    elif isinstance(parent, dict):
        parent[draw(st.text(max_size=5))] = draw(VALUES)
    else:
        parent.append(copy.deepcopy(parent[last]))
    return changed


def as_written(plain):
    """Return canonical bytes, so that nothing but the content tells that they were altered."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")


def judge(folder, made, expected=None):
    """Return whether an answer is accepted; the only error that may come is a sentence."""
    asked = incoming(made / "query", Query)
    try:
        accept(str(folder), asked, expected, SharingLedger(made / "data/trainer/ledger.jsonl"))
    except UserError as error:
        assert str(error).endswith((".", "?")) and str(error).isprintable(), repr(str(error))
        return False
    return True


@quickly
@given(data=st.data())
def test_an_altered_manifest(made, tmp_path, data):
    folder = tmp_path / "answer"
    if not folder.exists():
        shutil.copytree(made / "answer_1", folder)
    honest = (made / "answer_1/manifest.json").read_bytes()
    content = as_written(data.draw(altered(json.loads(honest))))
    (folder / "manifest.json").write_bytes(content)
    assert judge(folder, made, hashlib.sha256(honest).hexdigest()) == (content == honest)
    judge(folder, made)  # without the digest an owner's word on itself may differ, no more


@quickly
@given(data=st.data())
def test_an_index_that_its_owner_vouches_for(made, tmp_path, data):
    folder = tmp_path / "answer"
    if not folder.exists():
        shutil.copytree(made / "answer_1", folder)
    index = as_written(data.draw(altered(json.loads((made / "answer_1/index.json").read_bytes()))))
    manifest = json.loads((made / "answer_1/manifest.json").read_bytes())
    manifest["contents"]["index"] = hashlib.sha256(index).hexdigest()
    (folder / "index.json").write_bytes(index)
    (folder / "manifest.json").write_bytes(as_written(manifest))
    judge(folder, made)


@pytest.mark.parametrize("place", ["settings", "classes", "file"])
def test_a_name_with_control_characters_is_escaped_in_the_refusal(made, tmp_path, place):
    folder, name = tmp_path / "answer", "\n\x1b[2Jaccepted"
    shutil.copytree(made / "answer_1", folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    if place == "settings":
        manifest["choice"]["settings"][name] = []
    elif place == "classes":
        manifest["contents"]["classes"][name] = 1
    else:
        (folder / name).touch()
    (folder / "manifest.json").write_bytes(as_written(manifest))
    assert not judge(folder, made)


@pytest.mark.parametrize("key", ["budget", "columns", "contents", "encoder", "format", "kind", "version"])
def test_the_commands_say_one_sentence(place, key, monkeypatch, capsys):
    monkeypatch.chdir(place)
    path = Path("query/manifest.json")
    plain = json.loads(path.read_bytes())
    honest = digest(incoming("query", Query).manifest)
    for changed in ({k: v for k, v in plain.items() if k != key}, plain | {key: "?"}):
        path.write_bytes(as_written(changed))
        select = ["select", "--query", "query", "--data", "data/owners/owner_1", "--to", "t", "--limit", "20"]
        select += ["--selector", "RandomSelector", "--output", "new", "--expect_digest", honest]
        rank = ["rank", "--query", "query", "--answers", '{"a": "answer_1"}', "--data", "data/trainer"]
        rank += ["--ckpt_path", checkpoint(place), "--output", "ranking"]
        for command in (select, rank):
            assert main(command) == 2
            said = capsys.readouterr().err
            assert "Traceback" not in said and "query/manifest.json" in said
    assert not Path("new").exists() and not Path("ranking").exists()
