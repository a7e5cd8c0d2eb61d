import hashlib
import json

import pytest

from lit_core.errors import UserError
from lit_valuation.encoders import EncoderStamp
from lit_valuation.encoders.stamp import public_name
from lit_valuation.exchange.manifest import (
    Answer,
    Attachment,
    Choice,
    Contents,
    Query,
    Shard,
    digest,
    from_bytes,
    to_bytes,
)

CONTENTS = Contents("table", (3,), {"ä": 2, "b": 1}, "1" * 64, (Shard("000000.tar", "2" * 64, 10240, ("000000.npy",)),))
QUERY = Query(CONTENTS, ("height", "width", "age"), 8, EncoderStamp("Identity", None))
CHOICE = Choice(
    "lit_valuation.selectors.RandomSelector", {"vote": "veto", "k": 3, "x": None}, None, None, None, {"a": 0.5}
)
GUIDED = Query(CONTENTS, None, 8, None, Attachment("model.ckpt", "4" * 64, 99))
ANSWER = Answer("3" * 64, CONTENTS, 8, ("000000",), (1.0,), 5, CHOICE)


@pytest.mark.parametrize("manifest", [QUERY, GUIDED, ANSWER])
def test_bytes_are_canonical_and_come_back(manifest):
    content = to_bytes(manifest)
    assert from_bytes(type(manifest), content, "x") == manifest
    assert digest(manifest) == hashlib.sha256(content).hexdigest()
    plain = json.loads(content)
    assert content == json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert (plain["format"], plain["version"]) == ("litshift-exchange", 2 if manifest is GUIDED else 1)
    assert ("model" in plain) == (manifest is GUIDED)  # former releases read all others


def test_no_query_has_two_forms():
    first, second = (json.loads(to_bytes(one)) for one in (QUERY, GUIDED))
    for plain in (
        first | {"version": 2},
        first | {"version": 2, "model": None},
        first | {"model": None},
        second | {"version": 1},
    ):
        content = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        with pytest.raises(UserError, match="was altered"):
            from_bytes(Query, content, "x")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda plain: plain | {"budget": "8"}, "budget is .*, but must be a whole number"),
        (lambda plain: plain | {"budget": True}, "budget is .*, but must be a whole number"),
        (lambda plain: plain | {"more": 1}, "has more; ask its sender"),
        (
            lambda plain: {key: value for key, value in plain.items() if key != "columns"},
            "has no columns; ask its sender",
        ),
        (lambda plain: plain | {"version": 3}, "of version 3 of litshift-exchange, but this release reads"),
        (lambda plain: plain | {"kind": "answer"}, "\"kind\" is 'answer'"),
        (
            lambda plain: plain | {"contents": plain["contents"] | {"shape": [3, "x"]}},
            r"contents.shape\[\] is a text, but must be a whole number",
        ),
        (
            lambda plain: plain | {"contents": plain["contents"] | {"classes": {"b": 1.5}}},
            "contents.classes.b is a number, but must be a whole number",
        ),
        (lambda plain: [plain], "is a list, but must be an object"),
    ],
)
def test_malformed(change, reason):
    content = json.dumps(change(json.loads(to_bytes(QUERY))), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with pytest.raises(UserError, match=reason):
        from_bytes(Query, content.encode(), "manifest.json")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_no_json(content):
    with pytest.raises(UserError, match=r"manifest\.json is not (valid JSON|in UTF-8).*ask its sender"):
        from_bytes(Query, content, "manifest.json")


def test_blanks_and_repeated_keys_are_alterations():
    content = to_bytes(QUERY)
    for changed in (content + b"\n", content.replace(b'"budget":8', b'"budget":9,"budget":8')):
        with pytest.raises(UserError, match=r"was altered|has the key 'budget' twice"):
            from_bytes(Query, changed, "manifest.json")


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("HuggingFaceEncoder[/home/me/models/clip]", "HuggingFaceEncoder[clip]"),
        ("HuggingFaceEncoder[~/clip]", "HuggingFaceEncoder[clip]"),
        ("HuggingFaceEncoder[../me/clip]", "HuggingFaceEncoder[clip]"),
        ("HuggingFaceEncoder[openai/clip-vit]", "HuggingFaceEncoder[openai/clip-vit]"),
        (r"C:\Users\me\clip", "clip"),
        ("EfficientNetLite0[224]", "EfficientNetLite0[224]"),
    ],
)
def test_names_lose_their_folders(name, public):
    assert public_name(name) == public
