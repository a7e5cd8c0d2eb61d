"""Files line by line: what is read, and what is said of a line that is broken."""

import csv
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_core.errors import UserError
from lit_core.files.json_files import json_lines
from lit_core.files.rows import csv_rows
from lit_core.files.text_files import decoded
from lit_detect.data.user_texts import open_texts
from lit_detect.formats.base import split_of_name, stem
from lit_detect.formats.reading import as_label, as_split, as_text

cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(st.lists(st.fixed_dictionaries({"a": cells, "b": cells}), max_size=8))
def test_what_the_csv_writer_writes_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "f.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["a", "b"], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    assert [row for _, row in csv_rows(path)] == rows
    if rows:
        lazy = open_texts(path, "x", "a", "b")
        order = list(range(len(rows)))[::-1]
        assert [lazy.row(number) for number in order] == rows[::-1]
        assert [lazy[number]["text"] for number in order] == [row["a"] for row in rows[::-1]]
        assert lazy[0]["group"] == rows[0]["b"]


@given(st.lists(st.dictionaries(cells, cells | st.integers() | st.none()), max_size=8))
def test_what_json_writes_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("jsonl") / "f.jsonl"
    lines = [json.dumps(row, ensure_ascii=bool(number % 2)) for number, row in enumerate(rows)]
    path.write_bytes("\r\n\n".join(lines).encode())
    assert [row for _, row in json_lines(path)] == rows


def test_a_byte_order_mark_before_a_quoted_name(tmp_path):
    (tmp_path / "f.csv").write_bytes('\ufeff"text","n"\n"a","1"\n'.encode())
    assert [row for _, row in csv_rows(tmp_path / "f.csv")] == [{"text": "a", "n": "1"}]


def test_places_are_lines_of_the_file(tmp_path):
    (tmp_path / "f.csv").write_bytes('\ufefftext,n\r\n"a\r\nb",1\r\n\r\nc,2\r\n'.encode())
    assert [(where.rpartition(" ")[2], row) for where, row in csv_rows(tmp_path / "f.csv")] == [
        ("3", {"text": "a\r\nb", "n": "1"}),
        ("5", {"text": "c", "n": "2"}),
    ]
    (tmp_path / "f.jsonl").write_bytes('\ufeff{"a": 1}\n\n{"a": "\u2028"}'.encode())
    assert [where.rpartition(" ")[2] for where, _ in json_lines(tmp_path / "f.jsonl")] == ["1", "3"]


def broken(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1}\n{"a": "\xff"}\n', r"line 2 is not in UTF-8"),
        ('{"a": 1}\n[1]\n', "line 2 is a list, but must be an object"),
        ('{"a": 1}\n{"a": 1,}\n', r"line 2 is not valid JSON \(.*\)\. It may be truncated; fix or remove"),
        ('{"a": 1}\n{"a": "cut', "line 2 is not valid JSON .*may be truncated"),
        ("[" * 100_000, "line 1 is not valid JSON"),
    ],
)
def test_a_broken_line_of_jsonl(tmp_path, content, words):
    with pytest.raises(UserError, match=words) as error:
        list(json_lines(broken(tmp_path / "f.jsonl", content)))
    assert "f.jsonl" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,\xff\n", r"line 2 is not in UTF-8"),
        ("a,b\n1,2\n1,2,3\n", "line 3 ends a row of 3 cells, but the first line names 2"),
        ("a,b\n1,2\n1", "line 3 ends a row of 1 cells"),
        ('a,b\n1,"2\n3,4\n', "line 3 is not valid CSV"),
        ('a,b\n1,"2"3\n', "line 2 is not valid CSV"),
        ("a,a\n1,2\n", "line 1 must name each column once"),
        ("", "line 1 must name each column once"),
    ],
)
def test_a_broken_row_of_csv(tmp_path, content, words):
    with pytest.raises(UserError, match=words) as error:
        list(csv_rows(broken(tmp_path / "f.csv", content)))
    assert "f.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_torn_gzip_file(tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 5000)
    for content in (whole[:-20], b"PK no", whole[:10] + b"\xff" * 50):
        with pytest.raises(UserError, match=r"f\.jsonl\.gz is not a complete gzip file"):
            list(json_lines(broken(tmp_path / "f.jsonl.gz", content)))


def test_a_text_of_a_megabyte_in_a_cell(tmp_path):
    text = "word\n" * 200_000
    (tmp_path / "f.csv").write_text(f'text,n\n"{text}",1\n')
    ((_, row),) = csv_rows(tmp_path / "f.csv")
    assert row["text"] == text and open_texts(tmp_path / "f.csv", "x")[0]["text"] == text


@pytest.mark.parametrize("value", ["human", "Human", " HUMAN ", "human-written", "Human Written", 0, "0", 0.0, "real"])
def test_spellings_of_human(value):
    assert as_label(value, "x") == 0


@pytest.mark.parametrize("value", ["machine", "Machine-Generated", "machine_generated", "FAKE", 1, "1", 1.0, "AI"])
def test_spellings_of_machine(value):
    assert as_label(value, "x") == 1


@pytest.mark.parametrize("value", ["", None, True, False, 2, -1, "yes", "gpt2", [0]])
def test_other_labels_are_refused(value):
    with pytest.raises(UserError, match=r"f, line 3 has the label .*human or machine"):
        as_label(value, "f, line 3")


def test_splits_by_word_and_by_file_name():
    assert [as_split(word, "x") for word in ("train", "Valid", "dev", " TEST", None, "")] == [
        *("train", "val", "val", "test"), "", "",
    ]  # fmt: skip
    with pytest.raises(UserError, match="f, line 1 has the split 'tset'"):
        as_split("tset", "f, line 1")
    names = ["webtext.train", "xl-1542M-k40.valid", "news_test", "latest", "train-test", "dev"]
    assert [split_of_name(name) for name in names] == ["train", "val", "test", "", "", "val"]


def test_names_of_files(tmp_path):
    names = ["a.jsonl", "a.b.jsonl.gz", "p0.94.jsonl", "plain", ".hidden"]
    assert [stem(tmp_path / name) for name in names] == ["a", "a.b", "p0.94", "plain", ".hidden"]


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(UserError, match="f, line 1, text holds half a surrogate pair at character 1"):
        as_text(json.loads('"a\\ud83d"'), "f, line 1, text")
    assert as_text(json.loads('"a\\ud83d\\ude00"'), "x") == "a😀"
    with pytest.raises(UserError, match="not in UTF-8"):
        decoded(b"\xff\xfea\x00", "f")
