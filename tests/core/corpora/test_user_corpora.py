import gzip
import json
import lzma
from importlib import metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_core.corpora import HuggingFaceDataset, JSONLines, TextFolder
from lit_core.errors import UserError

ROWS = [{"text": "Zeile eins\r\n", "id": 1}, {"text": "naïve\n£", "id": 2}, {"text": "", "id": 3}]


def texts(corpus):
    return [document.text for document in corpus.documents()]


def test_a_folder_of_files_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.txt").write_bytes("größe\r\n".encode())
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "notes.md").write_text("no")
    corpus = TextFolder(str(tmp_path), "mine", pattern="**/*.txt*")
    assert [(d.id, d.text) for d in corpus.documents()] == [
        ("a.txt", "first"),
        ("b/x.txt", "größe\r\n"),
        ("c.txt.gz", "packed"),
    ]
    assert len(texts(TextFolder(str(tmp_path), "mine"))) == 2


def test_separator_lines_divide_a_file(tmp_path):
    (tmp_path / "a.txt").write_text("one\nstill one\n<|endoftext|>\n<|endoftext|>\ntwo <|endoftext|> two\n")
    corpus = TextFolder(str(tmp_path), "mine", separator="<|endoftext|>")
    assert [(d.id, d.text, d.group) for d in corpus.documents()] == [
        ("a.txt#0", "one\nstill one\n", "a.txt"),
        ("a.txt#1", "two <|endoftext|> two\n", "a.txt"),
    ]


def test_facts_change_with_the_files(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    corpus = TextFolder(str(tmp_path), "mine")
    before = corpus.facts()
    assert before == corpus.facts()
    (tmp_path / "a.txt").write_text("longer than the first")
    assert corpus.facts() != before
    json.dumps(before)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_json_lines(tmp_path, suffix):
    content = "\n".join(json.dumps(row) for row in ROWS).encode() + b"\n\n"
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl{suffix}").write_bytes(pack(content))
    corpus = JSONLines(str(tmp_path / f"*.jsonl{suffix}"), "mine")
    assert texts(corpus) == [row["text"] for row in ROWS] * 2
    assert [d.id for d in corpus.documents()][:2] == [f"a.jsonl{suffix}:1", f"a.jsonl{suffix}:2"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "ok"', "rows.jsonl, line 2 is not valid JSON"),
        (b"[1]", "rows.jsonl, line 2 is a list, but must be an object"),
        (b'{"test": "x"}', 'no field text among test; set `field`. Did you mean "test"'),
        (b'{"text": 3}', "line 2: the field text is a int, but must be text"),
        (b'{"text": null}', "line 2: the field text is a NoneType, but must be text"),
        (b"\xff", "rows.jsonl, line "),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(line, message, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(UserError) as caught:
        texts(JSONLines(str(tmp_path / "rows.jsonl"), "mine"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@given(line=st.binary(max_size=40))
def test_no_row_ends_in_a_traceback(line, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(line)
    try:
        assert all(isinstance(text, str) for text in texts(JSONLines(str(path), "mine")))
    except UserError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextFolder("/nowhere", "mine"), "folder of the corpus mine is /nowhere"),
        (lambda: JSONLines("/nowhere/*.jsonl", "mine"), "path of the corpus mine is /nowhere"),
        (lambda: HuggingFaceDataset("json", "mine", max_documents=0), "max_documents of the corpus mine is 0"),
    ],
)
def test_missing_things_are_refused_at_once(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_wrong_encodings_and_damaged_archives_are_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("größe".encode("latin-1"))
    with pytest.raises(UserError, match=r"a.txt is not in the encoding utf-8"):
        texts(TextFolder(str(tmp_path), "mine"))
    assert texts(TextFolder(str(tmp_path), "mine", encoding="latin-1")) == ["größe"]
    with pytest.raises(UserError, match="not in the encoding utf-9"):
        texts(TextFolder(str(tmp_path), "mine", encoding="utf-9"))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(UserError, match=r"b.txt.gz is not a complete gzip file"):
        texts(TextFolder(str(tmp_path), "mine", pattern="*.gz"))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hugging_face_dataset(streaming, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    files = [str(tmp_path / "rows.jsonl")]
    corpus = HuggingFaceDataset("json", "mine", data_files=files, streaming=streaming, max_documents=2)
    assert [(d.id, d.text) for d in corpus.documents()] == [("0", ROWS[0]["text"]), ("1", ROWS[1]["text"])]
    assert corpus.facts()["files"] == 1
    with pytest.raises(UserError, match="row 0: there is no field body"):
        texts(HuggingFaceDataset("json", "mine", data_files=files, field="body"))
    with pytest.raises(UserError, match="mine could not be loaded from json"):
        texts(HuggingFaceDataset("json", "mine", data_files=[str(tmp_path / "none.jsonl")]))


def test_without_datasets_the_extra_is_named(monkeypatch):
    def not_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", not_installed)
    monkeypatch.setattr(metadata, "version", not_installed)
    with pytest.raises(UserError, match=r"lit-shift\[hf\]"):
        HuggingFaceDataset("x/y", "mine")


def test_files_of_one_name_in_two_folders_are_two(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text(json.dumps({"text": folder}))
    corpus = JSONLines(str(tmp_path / "*" / "rows.jsonl"), "mine")
    assert [d.id for d in corpus.documents()] == ["a/rows.jsonl:1", "b/rows.jsonl:1"]
