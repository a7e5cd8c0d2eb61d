"""A user's file: read lazily by number, in its order, checked when it is opened."""

import json
import pickle
import tracemalloc

import pytest
from austen_pairs import passages

from lit_core.errors import RunFailure, UserError
from lit_detect.data.user_texts import TextFile
from lit_detect.language.normalize import normalize_text

TEXTS = ["", "🤖" * 30, 'one,\n"two"\r\nthree\u2028four', *passages(5)]


@pytest.fixture(params=["csv", "tsv", "jsonl"])
def path(request, tmp_path):
    path = tmp_path / f"f.{request.param}"
    if request.param == "jsonl":
        path.write_text("\n".join(json.dumps({"lang": "en", "text": text, "n": 1}) for text in TEXTS))
    else:
        import csv

        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="," if request.param == "csv" else "\t")
            writer.writerows([["lang", "text", "n"], *(["en", text, 1] for text in TEXTS)])
    return path


def test_samples_and_rows_in_any_order(path):
    found = pickle.loads(pickle.dumps(TextFile(path, group_column="lang")))
    assert len(found) == len(TEXTS)
    for number in [*range(len(TEXTS))[::-1], 2]:
        sample = {"text": TEXTS[number], "y": -100, "index": number, "group": "en"}
        assert found[number] == sample
        assert {key: str(value) for key, value in found.row(number).items()} == {
            "lang": "en", "text": TEXTS[number], "n": "1"
        }  # fmt: skip
    assert "group" not in TextFile(path)[0]


def test_a_byte_order_mark_before_a_quoted_name(tmp_path):
    (tmp_path / "f.csv").write_bytes('\ufeff"text","n"\n"a","1"\n"b","2"\n'.encode())
    found = TextFile(tmp_path / "f.csv")
    assert [found[1]["text"], found.row(0)["n"]] == ["b", "1"]


def test_a_column_that_is_not_there(path):
    with pytest.raises(UserError, match=r'f\.[a-z]+, line 2? ?.*has no .texts..*"text"'):
        TextFile(path, "texts")
    with pytest.raises(UserError, match="has no 'language'"):
        TextFile(path, group_column="language")


def test_a_text_per_line_or_per_file(tmp_path):
    (tmp_path / "f.txt").write_bytes("\ufefffirst\r\n\n  second \n\u00e9".encode())
    found = TextFile(tmp_path / "f.txt")
    assert [found[number]["text"] for number in range(len(found))] == ["first", "  second ", "é"]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.txt").write_text("one\n\ntwo\n")
    (folder / "a.txt").write_text("")
    (folder / "c.md").write_text("not read")
    found = TextFile(folder)
    assert [found.row(number) for number in range(len(found))] == [
        {"file": "a.txt", "text": ""}, {"file": "b.txt", "text": "one\n\ntwo\n"}
    ]  # fmt: skip
    assert found[1] == {"text": "one\n\ntwo\n", "y": -100, "index": 1}


def test_a_transform_is_for_samples(tmp_path):
    (tmp_path / "f.txt").write_text("a\u200bb")
    found = TextFile(tmp_path / "f.txt", transform=normalize_text)
    assert found[0]["text"] == "ab" and found.row(0)["text"] == "a\u200bb"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.csv", "text,n\na,1\nb\n", r"f\.csv, line 3 ends a row of 1 cells"),
        ("f.csv", 'text,n\na,"1\n', r"f\.csv, line 2 is no CSV"),
        ("f.csv", "text,text\na,1\n", "line 1 names a column twice"),
        ("f.csv", "text\n", "has no texts"),
        ("f.csv", b"text\na\n\xff\n", r"f\.csv, line 3 is not in UTF-8"),
        ("f.jsonl", '{"text": "a"}\n{"text": 1}\n', r"f\.jsonl, line 2, text is a number"),
        ("f.jsonl", '{"text": "a"}\n{"text": "b', r"f\.jsonl, line 2 is no JSON"),
        ("f.jsonl", '"a"', r"f\.jsonl, line 1 holds no object"),
        ("f.txt", b"a\n\xff", r"f\.txt, line 2 is not in UTF-8"),
        ("f.txt", "\n \n", "has no texts"),
        ("f.docx", "a", r"must end in \.csv"),
    ],
)
def test_mistakes_are_one_sentence_with_file_and_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as error:
        TextFile(tmp_path / name)
    assert "\n" not in str(error.value)


def test_no_file_and_no_columns(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        TextFile(tmp_path / "none.csv")
    (tmp_path / "f.txt").write_text("a")
    with pytest.raises(UserError, match="group_column is lang"):
        TextFile(tmp_path / "f.txt", group_column="lang")


def test_a_file_that_changes_meanwhile_is_a_failure(path):
    found = TextFile(path)
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(RunFailure, match="changed while it was read"):
        found[len(found) - 1]


def test_a_large_file_is_not_held_in_memory(tmp_path):
    with (tmp_path / "f.jsonl").open("w") as file:
        for _ in range(2000):
            file.write(json.dumps({"text": "word " * 3000}) + "\n")
    tracemalloc.start()
    found = TextFile(tmp_path / "f.jsonl")
    assert sum(len(found[number]["text"]) for number in range(len(found))) == 2000 * 15_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6, "30 MB of text"
