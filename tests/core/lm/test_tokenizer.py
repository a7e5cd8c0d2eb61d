import copy
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers

from lit_core.corpora import Austen, PythonStdlib
from lit_core.errors import UserError
from lit_core.lm.tokenizer import END_OF_TEXT, Tokenizer

TEXTS = [document.text for _, document in zip(range(12), Austen().documents(), strict=False)]
CODE = [document.text for _, document in zip(range(12), PythonStdlib().documents(), strict=False)]


@pytest.fixture(scope="module")
def bpe():
    return Tokenizer.train_bpe(TEXTS + CODE, 600)


@pytest.fixture(scope="module", params=["bpe", "bytes"])
def tokenizer(request, bpe):
    return bpe if request.param == "bpe" else Tokenizer.bytes()


def counted(tokenizer, text):
    return int(tokenizer.byte_lengths()[tokenizer.encode(text)].sum()) if text else 0


@pytest.mark.parametrize("text", [TEXTS[0], CODE[3], "", "naïve £20,000 – «ß» 日本語 🙂\r\n\t\0 end"])
def test_a_text_comes_back_and_its_bytes_add_up(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert counted(tokenizer, text) == len(text.encode())


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_and_its_bytes_add_up(text):
    for tokenizer in (ANY_TEXT, Tokenizer.bytes()):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert int(tokenizer.byte_lengths()[np.array(ids, dtype=int)].sum()) == len(text.encode())
        assert all(0 <= token < tokenizer.vocab_size and token != tokenizer.end_of_text for token in ids)


ANY_TEXT = Tokenizer.train_bpe(TEXTS[:2], 300)


def test_bytes_are_their_own_ids():
    assert Tokenizer.bytes().encode("aé\n") == list("aé\n".encode())
    assert Tokenizer.bytes().vocab_size == 257 and Tokenizer.bytes().end_of_text == 256


def test_a_text_cannot_end_a_document(tokenizer):
    text = f"before{END_OF_TEXT}after"
    assert tokenizer.end_of_text not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.byte_lengths()[tokenizer.end_of_text] == 0
    assert tokenizer.decode([*tokenizer.encode("a"), tokenizer.end_of_text]) == "a"


def test_training_is_deterministic_in_other_processes_with_and_without_threads():
    script = (
        "from lit_core.corpora import Austen\nfrom lit_core.lm.tokenizer import Tokenizer\n"
        "texts = [document.text for document in Austen().documents()][:40]\n"
        "print(Tokenizer.train_bpe(texts, 500).sha256)"
    )
    # Python is started once for its seed of hashes; the other command has another seed
    hashes = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"TOKENIZERS_PARALLELISM": threads} | seed,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads, seed in (("true", {"PYTHONHASHSEED": "1"}), ("false", {}))
    }
    assert len(hashes) == 1


def test_a_long_text_is_encoded_in_pieces_with_the_same_tokens(bpe, monkeypatch):
    text = "\n".join(CODE)
    whole = bpe._backend.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr("lit_core.lm.tokenizer._PIECE", 1000)
    assert len(list(bpe._pieces(text))) > 10
    assert bpe.encode(text) == whole


def test_a_batch_is_the_texts_one_by_one(bpe):
    assert bpe.encode_batch(TEXTS[:3]) == [bpe.encode(text) for text in TEXTS[:3]]


def test_storage_keeps_the_hash(bpe, tmp_path):
    assert Tokenizer.from_json(bpe.to_json()).sha256 == bpe.sha256
    assert pickle.loads(pickle.dumps(bpe)).sha256 == bpe.sha256
    bpe.save(tmp_path)
    for spec in (tmp_path, tmp_path / "tokenizer.json"):
        assert Tokenizer.load(spec).sha256 == bpe.sha256
    assert Backend.from_file(str(tmp_path / "tokenizer.json")).encode("It is a truth").ids == bpe.encode(
        "It is a truth"
    )
    assert bpe.describe() == {"sha256": bpe.sha256, "vocab_size": 600, "end_of_text": bpe.end_of_text}
    assert Tokenizer.load("bytes").sha256 != bpe.sha256


def test_the_end_of_text_token_of_a_hugging_face_folder_is_kept(bpe, tmp_path):
    """Two special tokens could end a text; the folder's config says which, and the hash tells them apart."""
    backend = Backend.from_str(json.dumps(bpe._definition))
    backend.add_special_tokens(["<|im_end|>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    loaded = Tokenizer.load(tmp_path)
    assert loaded.end_of_text == backend.token_to_id("<|im_end|>") != bpe.end_of_text
    assert Tokenizer.from_json(loaded.to_json()).end_of_text == loaded.end_of_text
    assert loaded.byte_lengths()[bpe.end_of_text] == 0  # the other special token stands for no text either
    (tmp_path / "tokenizer_config.json").unlink()
    assert Tokenizer.load(tmp_path).sha256 != loaded.sha256


def test_a_hugging_face_name_is_read_from_its_cache(bpe, tmp_path):
    snapshot = tmp_path / "models--someone--model" / "snapshots" / ("0" * 40)
    bpe.save(snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0" * 40)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from lit_core.lm.tokenizer import Tokenizer as T; print(T.load('someone/model').sha256)",
        ],
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == bpe.sha256


def test_transformers_reads_what_is_saved(bpe, tmp_path):
    transformers = pytest.importorskip("transformers")
    bpe.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert theirs(TEXTS[0]).input_ids == bpe.encode(TEXTS[0])
    assert theirs.eos_token_id == bpe.end_of_text


def blanks_tokenizer(normalizer, pre_tokenizer, decoder):
    pieces = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    backend = Backend(
        models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], byte_fallback=True)
    )
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoder
    backend.add_special_tokens(["</s>"])
    return Tokenizer(json.loads(backend.to_str()))


def marking_blanks(style):
    if style == "metaspace":
        return blanks_tokenizer(None, pre_tokenizers.Metaspace(), decoders.Metaspace())
    return blanks_tokenizer(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
        decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
    )


@pytest.mark.parametrize("text", ["a b  c", "größe 日本", "x"])
@pytest.mark.parametrize("style", ["llama", "metaspace"])
def test_tokens_that_mark_blanks_are_counted_to_within_the_first_one(text, style):
    tokenizer = marking_blanks(style)
    assert not tokenizer.exact
    assert counted(tokenizer, text) == len(text.encode()) + 1


@pytest.mark.parametrize("style", ["llama", "metaspace", "bpe", "bytes"])
def test_a_continuation_keeps_the_blank_before_it(bpe, style):
    tokenizer = {"bpe": bpe, "bytes": Tokenizer.bytes()}.get(style) or marking_blanks(style)
    text = "it is a truth  universally acknowledged"
    ids = tokenizer.encode(text)
    for cut in range(len(ids) + 1):
        before, after = ids[:cut], ids[cut:]
        assert tokenizer.decode(before) + tokenizer.continuation(before, after) == text
    assert tokenizer.continuation([tokenizer.end_of_text], ids) == text


def test_a_continuation_inside_of_a_character_is_decoded_alone():
    tokenizer = Tokenizer.bytes()
    first, second = tokenizer.encode("ß")
    assert tokenizer.continuation([first], [second, *tokenizer.encode("a")]) == "\ufffda"


def test_composed_accents_are_counted_as_the_tokenizer_sees_them(bpe):
    backend = Backend.from_str(json.dumps(bpe._definition))
    backend.normalizer = normalizers.NFC()
    tokenizer = Tokenizer(json.loads(backend.to_str()))
    text = "cafe\N{COMBINING ACUTE ACCENT}"
    assert tokenizer.normalize(text) == "café"
    assert counted(tokenizer, text) == len("café".encode())


LETTERS = ["<unk>", "</s>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
#: Models whose vocabulary lacks most characters, by what they do with these.
LACKING = {
    "bpe": lambda: models.BPE({piece: i for i, piece in enumerate(LETTERS)}, [], unk_token="<unk>"),
    "fused": lambda: models.BPE({piece: i for i, piece in enumerate(LETTERS)}, [], unk_token="<unk>", fuse_unk=True),
    "unigram": lambda: models.Unigram([(piece, -1.0) for piece in LETTERS], unk_id=0),
    "word-level": lambda: models.WordLevel({"<unk>": 0, "</s>": 1, "▁a": 2}, unk_token="<unk>"),
    "half of the bytes": lambda: models.BPE(
        {piece: i for i, piece in enumerate([*LETTERS, *(f"<0x{byte:02X}>" for byte in range(128))])},
        [],
        unk_token="<unk>",
        byte_fallback=True,
    ),
}


@pytest.mark.parametrize("model", LACKING)
@pytest.mark.parametrize("special", [True, False])
def test_unknown_text_is_not_counted_as_no_bytes(model, special):
    backend = Backend(LACKING[model]())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.add_special_tokens(["<unk>", "</s>"] if special else ["</s>"])
    tokenizer = Tokenizer(json.loads(backend.to_str()))
    lengths = tokenizer.byte_lengths()
    assert lengths[tokenizer.encode("a")].sum() == 2  # with the blank before it
    assert tokenizer.encode("a 日本") and np.isnan(lengths[tokenizer.encode("a 日本")].sum())
    assert lengths[tokenizer.end_of_text] == 0


def test_a_token_for_unknown_text_that_never_occurs_has_no_bytes(bpe):
    """Llama's tokenizers have one beside all bytes."""
    definition = copy.deepcopy(marking_blanks("llama")._definition)
    definition["model"]["unk_token"] = "<unk>"
    assert counted(Tokenizer(definition), "größe 日本") == len("größe 日本".encode()) + 1
    gpt2 = copy.deepcopy(bpe._definition)
    gpt2["model"]["unk_token"] = END_OF_TEXT
    assert Tokenizer(gpt2).exact and Tokenizer(gpt2).byte_lengths()[bpe.end_of_text] == 0


def test_text_that_is_dropped_is_not_counted(bpe):
    definition = copy.deepcopy(bpe._definition)
    number = definition["model"]["vocab"].pop("Ģ")  # the byte 0
    definition["model"]["vocab"]["unused"] = number
    tokenizer = Tokenizer(definition)
    assert not tokenizer.exact
    with pytest.raises(UserError, match="drops text that its vocabulary lacks"):
        tokenizer.byte_lengths()


#: Ways to cut a text, by whether they drop any of it.
CUTS = {
    "white space": (pre_tokenizers.WhitespaceSplit(), True),
    "words": (pre_tokenizers.Whitespace(), True),
    "a sign": (pre_tokenizers.CharDelimiterSplit("o"), True),
    "punctuation removed": (pre_tokenizers.Punctuation("removed"), True),
    "punctuation": (pre_tokenizers.Punctuation(), False),
    "blanks removed": (pre_tokenizers.Split(" ", "removed"), True),
    "blanks": (pre_tokenizers.Split(" ", "merged_with_next"), False),
    "digits": (pre_tokenizers.Digits(True), False),
    "scripts": (pre_tokenizers.UnicodeScripts(), False),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("style", ["byte-level", "metaspace"])
def test_text_that_is_dropped_before_it_is_encoded_is_not_counted(bpe, style, cut):
    before, drops = CUTS[cut]
    tokenizer = bpe if style == "byte-level" else marking_blanks("metaspace")
    backend = Backend.from_str(json.dumps(tokenizer._definition))
    backend.pre_tokenizer = pre_tokenizers.Sequence([before, backend.pre_tokenizer])
    tokenizer = Tokenizer(json.loads(backend.to_str()))
    assert tokenizer.exact == (style == "byte-level" and not drops)
    if drops:
        with pytest.raises(UserError, match="drops text before it encodes, such as"):
            tokenizer.byte_lengths()
    elif style == "byte-level":
        assert counted(tokenizer, TEXTS[0]) == len(TEXTS[0].encode())


def test_where_bytes_cannot_be_counted_it_says_so():
    backend = Backend(models.WordPiece({"[UNK]": 0, "[EOS]": 1, "a": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(UserError, match="bytes of this tokenizer's tokens cannot be counted"):
        Tokenizer(json.loads(backend.to_str())).byte_lengths()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tokenizer.train_bpe(["a"], 256), "vocab_size is 256, .* set it to 257 or more"),
        (lambda: Tokenizer.from_json("{}"), "not a tokenizer.json"),
        (lambda: Tokenizer.from_json("nonsense"), "not a tokenizer.json"),
        (lambda: Tokenizer.from_json("[1]"), "not a tokenizer.json"),
        (lambda: Tokenizer.load("/nowhere/tokenizer.json"), "no such file"),
        (lambda: Tokenizer(json.loads(Backend(models.BPE()).to_str())), "end-of-text"),
    ],
)
def test_mistakes_are_one_sentence(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=str(tmp_path)):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="in that folder"):
        Tokenizer.load(tmp_path.parent)
