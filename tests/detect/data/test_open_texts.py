"""Every command reads every format of `open_texts` alike, with its labels; both are found by code."""

import ast
import csv
import gzip
import json
import lzma
import os
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from documents import write_docx, write_pdf

import lit_detect
from lit_core.errors import RunFailure, UserError
from lit_core.files.text_files import COMPRESSIONS, _zstd, plain_name
from lit_detect.attacks import Attack, Attacked
from lit_detect.commands.attack import attack
from lit_detect.commands.report import gather
from lit_detect.data.module import TextDataModule
from lit_detect.data.one_class import read_texts
from lit_detect.data.prepare import prepare
from lit_detect.data.text_shards import write_texts
from lit_detect.data.user_texts import FORMATS, open_texts
from lit_detect.formats import LitShiftJSONL, TextTable
from lit_detect.formats.litshift import read_records
from lit_detect.records import HUMAN, MACHINE, Record

RECORDS = [
    Record("h0", "The kettle sang on the stove.", HUMAN, "test", "human", "homes", "p0"),
    Record("m0", 'Said he, "No, never;" and left.', MACHINE, "test", "gpt2", "homes", "p0"),
    Record("h1", "Grüße aus Köln, wo es regnet.", HUMAN, "test", "human", "news", "p1"),
    Record("m1", "A second machine wrote this one.", MACHINE, "test", "gpt2", "news", "p1"),
    Record("h1-x", "GRÜSSE AUS KÖLN, WO ES REGNET.", HUMAN, "test", "human", "news", "p1", attack="Upper"),
]
QUOTE = '"'
COLUMNS = ("id", "text", "label", "split", "source", "domain", "pair_id", "attack")


def table(path, separator):
    with path.open("w", newline="", encoding="utf-8") as file:
        quotes = {} if separator == "," else {"quoting": csv.QUOTE_NONE, "quotechar": None}
        rows = csv.DictWriter(file, COLUMNS, extrasaction="ignore", delimiter=separator, **quotes)
        rows.writeheader()
        rows.writerows(record.to_dict() for record in RECORDS)


def folder(path):
    path.mkdir()
    writers = {"txt": lambda file, text: file.write_text(text), "docx": write_docx, "pdf": write_pdf}
    for number, record in enumerate(RECORDS):
        kind = ("txt", "docx", "pdf")[number % 3]
        writers[kind](path / f"{number}.{kind}", record.text)


def parquet(path):
    import pyarrow
    from pyarrow.parquet import write_table

    columns = {name: [record.to_dict()[name] for record in RECORDS] for name in COLUMNS}
    write_table(pyarrow.table(columns), path, row_group_size=2)


def dataset(path):
    path.mkdir()
    parquet(path / "test.parquet")


def root(path):
    lines(path.with_suffix(".jsonl"))
    prepare(str(path), [LitShiftJSONL(str(path.with_suffix(".jsonl")), "texts", split="test")])


def lines(path):
    path.write_text("".join(json.dumps(record.to_dict()) + "\n" for record in RECORDS))


WRITERS = {
    ".csv": lambda path: table(path, ","),
    ".tsv": lambda path: table(path, "\t"),
    ".jsonl": lines,
    ".txt": lambda path: path.write_text("\n".join(record.text for record in RECORDS)),
    ".parquet": parquet,
    ".docx": lambda path: write_docx(path, RECORDS[0].text),
    ".pdf": lambda path: write_pdf(path, RECORDS[0].text),
    "folder of documents": folder,
    "Hugging Face": dataset,
    "prepared split": lambda path: write_texts(path, RECORDS, source="s", split="test"),
    "prepared source": root,
    "prepared root": root,
}


def packed(path):
    """Compress a file as the end of its name says; return whether it does."""
    write = {".gz": gzip.compress, ".xz": lzma.compress, ".zst": lambda content: _zstd().compress(content)}
    if path.suffix in COMPRESSIONS:
        path.write_bytes(write[path.suffix](path.read_bytes()))
    return path.suffix in COMPRESSIONS


def written(name, tmp_path):
    """The path of the records in a format."""
    plain = tmp_path / f"texts{plain_name(Path(name)) if name.startswith('.') else ''}"
    WRITERS[plain.suffix or name](plain)
    path = plain.rename(tmp_path / f"texts{name}") if name.startswith(".") else plain
    packed(path)
    return {"prepared source": path / "texts", "Hugging Face": Path(f"hf:{path}:test")}.get(name, path)


class Nothing(Attack):
    """Leaves a text as it is."""

    name = "Nothing"

    def __call__(self, text, seed):
        return Attacked(text, ())


def by_attack(path, tmp_path, known):
    attack(Nothing(), str(tmp_path / "out.jsonl"), input=str(path), labels="both")
    found = list(read_records(tmp_path / "out.jsonl"))
    assert [(r.meta["original"], r.label) for r in found] == [(r.text, r.label) for r in known]
    assert [record.id for record in found] == [record.id for record in known]


def by_report(path, tmp_path, known):
    if known[0].label is None:
        with pytest.raises(UserError, match=r"(line 1|0\.txt|texts\.(docx|pdf)) has no label"):
            gather([str(path)], "test")
    else:
        assert gather([str(path)], "test") == {str(path): known}


def by_calibrate(path, tmp_path, known):
    for argument, label in (("human", HUMAN), ("machine", MACHINE)):
        chosen = [
            record for record in known if record.label in (label, None) and not (record.attack and label == HUMAN)
        ]
        assert read_texts(str(path), argument, label)[0] == [record.text for record in chosen]


def by_predict(path, tmp_path, known):
    texts = TextDataModule(predict=str(path)).predict_texts
    samples = [texts[index] for index in reversed(range(len(known)))]
    expected = [{"text": record.text, "y": -100, "index": index} for index, record in enumerate(known)]
    assert samples[::-1] == expected and len(texts) == len(known)


#: What reads texts in each module that opens them.
READERS = {
    "commands/attack.py": by_attack,
    "commands/report.py": by_report,
    "data/one_class.py": by_calibrate,
    "data/module.py": by_predict,
}


def sources():
    package = Path(lit_detect.__file__).parent
    return {path.relative_to(package).as_posix(): ast.parse(path.read_text()) for path in package.rglob("*.py")}


def test_every_format_has_a_writer_here_and_every_caller_a_reader():
    assert {plain_name(Path(name)) if name.startswith(".") else name for name in FORMATS} == set(WRITERS)
    calls = {
        module
        for module, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open_texts"
    }
    assert calls == set(READERS)


def test_no_command_has_a_reader_of_its_own():
    own = {"LitShiftJSONL", "TextTable", "TextSet", "read_records", "json_lines", "csv_rows", "open", "read_text"}
    for module, tree in sources().items():
        if module.startswith("commands/"):
            imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
            assert not imported & own, module


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", FORMATS)
def test_every_command_reads_every_format_alike(name, reader, tmp_path):
    path = written(name, tmp_path)
    known = list(open_texts(path, "x").records())
    if known[0].label is None:
        texts = RECORDS[:1] if name in (".docx", ".pdf") else RECORDS
        assert [(record.text, record.label) for record in known] == [(record.text, None) for record in texts]
    else:
        assert sorted(known, key=lambda record: record.id) == sorted(RECORDS, key=lambda record: record.id)
    reader(path, tmp_path, known)


@pytest.mark.parametrize("label", ["human", 0, "0", "Human-Written"])
def test_labels_of_machine_texts_are_never_ignored(label, tmp_path, capsys):
    rows = [{"text": "By hand.", "label": label}, {"text": "By machine.", "label": "machine"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_texts(str(tmp_path / "t.jsonl"), "human", HUMAN) == (["By hand."], [""])
    assert "1 machine texts of" in capsys.readouterr().out
    assert read_texts(str(tmp_path / "t.jsonl"), "machine", MACHINE) == (["By machine."], [""])
    assert "1 human texts of" in capsys.readouterr().out
    (tmp_path / "t.jsonl").write_text(json.dumps(rows[1]))
    with pytest.raises(UserError, match=r"`human` is .*t\.jsonl, whose texts are all labelled machine"):
        read_texts(str(tmp_path / "t.jsonl"), "human", HUMAN)


def test_texts_without_a_label_among_labelled_ones_are_told(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text,label\na,0\nb,\nc,1\n")
    assert read_texts(str(tmp_path / "t.csv"), "human", HUMAN)[0] == ["a", "b"]
    assert "1 texts of" in (said := capsys.readouterr().out) and "have no label and count as human" in said
    with pytest.raises(UserError, match=r"t\.csv, line 3 has no label"):
        gather([str(tmp_path / "t.csv")], "test")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "a", "label": "perhaps"}, "line 1 has the label 'perhaps'"),
        ({"text": "a", "lable": 1}, "line 1 has 'lable' but no 'label'"),
        ({"text": "a", "Label": 1}, "line 1 has 'Label' but no 'label'"),
        ({"text": "a", "decoding": 3}, "line 1, decoding is 3, but must be an object"),
    ],
)
def test_a_label_that_cannot_be_read_is_refused(row, words, tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=words):
        list(open_texts(tmp_path / "t.jsonl", "x").records())


def test_columns_of_other_names_are_kept_and_can_group(tmp_path):
    (tmp_path / "t.csv").write_text("body,table,decoding,attack,id\na,x,greedy,none,7\n")
    (record,) = open_texts(tmp_path / "t.csv", "x", "body").records()
    assert record == Record("7", "a", decoding={"name": "greedy"}, meta={"table": "x"})
    (tmp_path / "t.jsonl").write_text(json.dumps(Record("1", "a", meta={"language": "en"}).to_dict()))
    assert open_texts(tmp_path / "t.jsonl", "x", group_column="language")[0]["group"] == "en"
    write_texts(tmp_path / "set", RECORDS, source="s", split="test")
    texts = open_texts(tmp_path / "set", "x", group_column="generator")
    assert texts.groups == {"human", "gpt2"} and texts[1]["group"] == "gpt2"


def test_a_split_is_chosen_and_a_folder_without_it_refused(tmp_path):
    root(tmp_path / "texts")
    for path in (tmp_path / "texts", tmp_path / "texts/texts"):
        with pytest.raises(UserError, match="has no val split"):
            open_texts(path, "`texts`", split="val")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"`texts` is .*empty, a folder with neither"):
        open_texts(tmp_path / "empty", "`texts`")


@pytest.mark.parametrize("name", [name for name in FORMATS if Path(name).suffix in COMPRESSIONS or "parquet" in name])
def test_rows_that_are_read_forwards_in_any_order_and_in_other_processes(name, tmp_path):
    path = written(name, tmp_path)
    texts = open_texts(path, "x")
    assert [texts[index]["text"] for index in (3, 0, 4)] == [RECORDS[index].text for index in (3, 0, 4)]
    child = os.fork()
    if not child:  # moves its own place in the file, not ours
        os._exit(texts[0]["text"] != RECORDS[0].text)
    assert os.waitpid(child, 0)[1] == 0
    assert texts[4]["text"] == RECORDS[4].text == pickle.loads(pickle.dumps(texts))[4]["text"]


@pytest.mark.parametrize("name", [name for name in FORMATS if "doc" in name or name.startswith(".")])
def test_another_file_of_the_same_size_is_a_failure(name, tmp_path):
    path = written(name, tmp_path)
    texts = open_texts(path, "x")
    for file in texts.files:
        os.utime(file, ns=(0, 0))
    with pytest.raises(RunFailure, match="changed while it was read"):
        texts[0]
    texts.files[0].unlink()
    with pytest.raises(RunFailure, match="changed while it was read"):
        texts[0]


def test_equal_records_of_a_table_and_of_attacked_ones_have_one_name(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,0\nb,1\n")
    attack(Nothing(), str(tmp_path / "out.jsonl"), input=str(tmp_path / "t.csv"))
    (clean,) = gather([str(tmp_path / "t.csv")], "test").values()
    ((attacked,),) = gather([str(tmp_path / "out.jsonl")], "test").values()
    assert replace(attacked, attack="", meta={}) == clean[1]


@pytest.mark.parametrize("label", [HUMAN, MACHINE])
def test_a_column_of_another_name_is_no_label_and_that_is_told(label, tmp_path, capsys):
    (tmp_path / "t.csv").write_text("text,generated\na,0\nb,1\n")
    argument = ("human", "machine")[label]
    assert read_texts(str(tmp_path / "t.csv"), argument, label)[0] == ["a", "b"]
    assert f"2 texts of {tmp_path / 't.csv'} have no label and count as {argument}." in capsys.readouterr().out


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.tsv", "t.txt"])
def test_what_is_not_utf_8_is_refused(name, tmp_path):
    with_names = 'text\n{"text": "abc"}\n'
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32-le"):
        (tmp_path / name).write_bytes(with_names.encode(encoding))
        with pytest.raises(UserError, match=r"line 1 is not in UTF-8"):
            open_texts(tmp_path / name, "x")


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_another_separator_is_named(name, separator, tmp_path):
    (tmp_path / name).write_text(separator.join(("text", "label")) + "\n" + separator.join(('"a, b"', "0")) + "\n")
    if separator == {"t.csv": ",", "t.tsv": "\t"}[name]:
        text = '"a, b"' if separator == "\t" else "a, b"  # a .tsv has no quoting
        assert next(open_texts(tmp_path / name, "x").records()).text == text
    else:
        with pytest.raises(UserError, match=r"line 1 names a single column, .* separated by a (tab|comma)"):
            open_texts(tmp_path / name, "x")


def test_stray_quotes_in_a_tsv_swallow_no_row_and_the_rows_are_counted(tmp_path, capsys):
    texts = [f"{'' if number % 3 else QUOTE}Text {number}{QUOTE * (number % 2)}" for number in range(60)]
    content = "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(texts))
    for path in (tmp_path / "t.tsv", tmp_path / "t.tsv.gz"):
        write = gzip.compress if path.suffix == ".gz" else bytes
        path.write_bytes(write(f"text\tlabel\n{content}\n".encode()))
        opened = list(open_texts(path, "x").records())
        assert [(one.text, one.label) for one in opened] == [(text, n % 2) for n, text in enumerate(texts)]
        assert list(TextTable("t", str(path)).records())[59].text == texts[59]
        assert f"{path}: 61 rows read, 60 kept, 1 set aside, since they are blank." in capsys.readouterr().out
    (tmp_path / "t.tsv").write_text('text\tlabel\n"a\tb"\t0\n')
    for read in (partial(open_texts, tmp_path / "t.tsv", "x"), TextTable("t", str(tmp_path / "t.tsv")).records):
        with pytest.raises(UserError, match=r"line 2 ends a row of 3 cells, but .* names 2; .* A .tsv has no quotes"):
            list(read())


def test_a_single_column_may_have_any_name(tmp_path):
    (tmp_path / "t.csv").write_text("a;b\nc\n")
    assert open_texts(tmp_path / "t.csv", "x", "a;b")[0]["text"] == "c"


def test_lines_that_end_in_carriage_returns_alone_are_not_one_text(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"One text.\rAnother.\r")
    with pytest.raises(UserError, match=r"t\.txt, line 1 has a carriage return inside"):
        open_texts(tmp_path / "t.txt", "x")
    (tmp_path / "t.txt").write_bytes(b"One text.\r\n\r\nAnother.\r\n")
    assert [record.text for record in open_texts(tmp_path / "t.txt", "x").records()] == ["One text.", "Another."]


def test_no_file_of_a_folder_is_passed_over_silently(tmp_path):
    for name in ("a.txt", "B.TXT", "c.Txt"):
        (tmp_path / name).write_text(name)
    assert {record.text for record in open_texts(tmp_path, "x").records()} == {"a.txt", "B.TXT", "c.Txt"}
    (tmp_path / "link.txt").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"link\.txt is a link to a file that does not exist"):
        open_texts(tmp_path, "x")
    (tmp_path / "lines").mkdir()
    lines(tmp_path / "lines/T.JSONL")
    assert list(LitShiftJSONL(str(tmp_path / "lines"), "texts").records()) == RECORDS


def test_an_empty_path_is_not_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="`human` is empty"):
        open_texts("", "`human`")
    assert len(open_texts(".", "`human`")) == 1


@pytest.mark.parametrize("content", ['text\n"a\n', "text\n\n\n\n", "text\na,b\n"])
def test_rows_that_change_without_another_time_are_a_failure_too(content, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text\nabc\n"[: len(content)])
    status, texts = path.stat(), open_texts(path, "x")
    path.write_text(content[: status.st_size])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(RunFailure, match=r"t\.csv changed while it was read"):
        texts[0]
