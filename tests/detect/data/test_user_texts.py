"""A user's file: read lazily by number, in its order, checked when it is opened."""

import json
import pickle
import tracemalloc

import pytest
from austen_pairs import passages

from lit_core.errors import RunFailure, UserError
from lit_detect.data.user_texts import open_texts
from lit_detect.language.normalize import normalize_text

TEXTS = ["", "🤖" * 30, 'one,\n"two"\r\nthree\u2028four', *passages(5)]


@pytest.fixture(params=["csv", "jsonl"])
def path(request, tmp_path):
    path = tmp_path / f"f.{request.param}"
    if request.param == "jsonl":
        path.write_text("\n".join(json.dumps({"lang": "en", "text": text, "n": 1}) for text in TEXTS))
    else:
        import csv

        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["lang", "text", "n"], *(["en", text, 1] for text in TEXTS)])
    return path


def test_samples_and_rows_in_any_order(path):
    found = pickle.loads(pickle.dumps(open_texts(path, "x", group_column="lang")))
    assert len(found) == len(TEXTS)
    for number in [*range(len(TEXTS))[::-1], 2]:
        sample = {"text": TEXTS[number], "y": -100, "index": number, "group": "en"}
        assert found[number] == sample
        assert {key: str(value) for key, value in found.row(number).items()} == {
            "lang": "en", "text": TEXTS[number], "n": "1"
        }  # fmt: skip
    assert "group" not in open_texts(path, "x")[0]


def test_a_byte_order_mark_before_a_quoted_name(tmp_path):
    (tmp_path / "f.csv").write_bytes('\ufeff"text","n"\n"a","1"\n"b","2"\n'.encode())
    found = open_texts(tmp_path / "f.csv", "x")
    assert [found[1]["text"], found.row(0)["n"]] == ["b", "1"]


def test_a_column_that_is_not_there(path):
    with pytest.raises(UserError, match=r'f\.[a-z]+, line 2? ?.*has no .texts..*"text"'):
        open_texts(path, "x", "texts")
    with pytest.raises(UserError, match="has no 'language'"):
        open_texts(path, "x", group_column="language")


def test_a_text_per_line_or_per_file(tmp_path, capsys):
    (tmp_path / "f.txt").write_bytes("\ufefffirst\r\n\n  second \n\u00e9".encode())
    found = open_texts(tmp_path / "f.txt", "x")
    said = capsys.readouterr().out
    assert f"{tmp_path / 'f.txt'} has blank lines, as a document has, but each of its lines is judged alone" in said
    assert [found[number]["text"] for number in range(len(found))] == ["first", "  second ", "é"]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.txt").write_text("one\n\ntwo\n")
    (folder / "a.txt").write_text("")
    (folder / "c.md").write_text("not read")
    found = open_texts(folder, "x")
    assert "judged alone" not in capsys.readouterr().out
    assert [found.row(number) for number in range(len(found))] == [
        {"file": "a.txt", "text": ""}, {"file": "b.txt", "text": "one\n\ntwo\n"}
    ]  # fmt: skip
    assert found[1] == {"text": "one\n\ntwo\n", "y": -100, "index": 1}


def test_a_transform_is_for_samples(tmp_path):
    (tmp_path / "f.txt").write_text("a\u200bb")
    found = open_texts(tmp_path / "f.txt", "x", transform=normalize_text)
    assert found[0]["text"] == "ab" and found.row(0)["text"] == "a\u200bb"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("f.csv", "text,n\na,1\nb\n", r"f\.csv, line 3 ends a row of 1 cells"),
        ("f.csv", 'text,n\na,"1\n', r"f\.csv, line 2 is not valid CSV"),
        ("f.csv", "text,text\na,1\n", "line 1 names a column twice"),
        ("f.csv", "text\n", "has no texts"),
        ("f.csv", b"text\na\n\xff\n", r"f\.csv, line 3 is not in UTF-8"),
        ("f.jsonl", '{"text": "a"}\n{"text": 1}\n', r"f\.jsonl, line 2, text is a number"),
        ("f.jsonl", '{"text": "a"}\n{"text": "b', r"f\.jsonl, line 2 is not valid JSON"),
        ("f.jsonl", '"a"', r"f\.jsonl, line 1 is a text, but must be an object"),
        ("f.txt", b"a\n\xff", r"f\.txt, line 2 is not in UTF-8"),
        ("f.txt", "\n \n", "has no texts"),
        ("f.doc", "a", r"must be a file that ends in \.csv"),
    ],
)
def test_mistakes_are_one_sentence_with_file_and_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as error:
        open_texts(tmp_path / name, "x")
    assert "\n" not in str(error.value)


def test_no_file_and_no_columns(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_texts(tmp_path / "none.csv", "x")
    (tmp_path / "f.txt").write_text("a")
    with pytest.raises(UserError, match=r"grouped by lang, but .* no columns"):
        open_texts(tmp_path / "f.txt", "x", group_column="lang")


def test_a_file_that_changes_meanwhile_is_a_failure(path):
    found = open_texts(path, "x")
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(RunFailure, match="changed while it was read"):
        found[len(found) - 1]


def test_a_large_file_is_not_held_in_memory(tmp_path):
    with (tmp_path / "f.jsonl").open("w") as file:
        for _ in range(2000):
            file.write(json.dumps({"text": "word " * 3000}) + "\n")
    tracemalloc.start()
    found = open_texts(tmp_path / "f.jsonl", "x")
    assert sum(len(found[number]["text"]) for number in range(len(found))) == 2000 * 15_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6, "30 MB of text"
