"""Every format of `open_texts` with every kind of bad input: one sentence, or a right answer."""

import gzip
import lzma
import zipfile
import zlib
from pathlib import Path

import pytest
from documents import write_docx, write_pdf
from test_open_texts import FORMATS, RECORDS, packed, written

from lit_core.errors import UserError
from lit_core.files import documents
from lit_core.files.bad_rows import BadRows
from lit_core.files.text_files import plain_name
from lit_detect.data.user_texts import open_texts

FILES = [name for name in FORMATS if name.startswith(".")]
TEXT_FILES = [name for name in FILES if plain_name(Path(name)) in (".csv", ".tsv", ".jsonl", ".txt")]
TEXTS = {
    "empty": "",
    "HTML": "<script>alert('x')</script> &amp; <b>bold</b>",
    "right to left": "שלום עולם، مرحبا بالعالم \u202eabc\u202c",
    "combining marks": "e\u0301a\u0308 \U0001f468\u200d\U0001f469\u200d\U0001f467",
}


def content_of(name, text):
    """The bytes of a file with one text."""
    import csv
    import io
    import json

    kind = plain_name(Path(name))
    if kind == ".csv":
        file = io.StringIO()
        csv.writer(file).writerows([["text"], [text]])
        return file.getvalue().encode()
    return {".tsv": f"text\n{text}\n", ".jsonl": json.dumps({"text": text}), ".txt": text}[kind].encode()


def write(path, content):
    path.write_bytes(content)
    packed(path)
    return path


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", FILES)
def test_a_text_of_any_letters_is_read_as_it_is(name, kind, tmp_path):
    path, text = tmp_path / f"f{name}", TEXTS[kind]
    if name == ".parquet":
        import pyarrow
        from pyarrow.parquet import write_table

        write_table(pyarrow.table({"text": [text]}), path)
    elif name == ".docx":
        write_docx(path, text)
    elif name == ".pdf":
        text = text.encode("cp1252", "ignore").decode("cp1252")
        write_pdf(path, text)
    else:
        write(path, content_of(name, text))
    words = {".txt": "has no texts", ".tsv": "has no texts", ".docx": "holds no text", ".pdf": "holds no text"}
    if not text and (refused := words.get(plain_name(Path(name)))):
        with pytest.raises(UserError, match=refused):
            open_texts(path, "x")
    else:
        texts = open_texts(path, "x")
        assert len(texts) == 1 and texts[0]["text"].split() == text.split()


OTHERS = {
    "a PDF": lambda path: write_pdf(path, "A text."),
    "office document": lambda path: write_docx(path, "A text."),
    "an old or encrypted office document": lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600)),
    "RTF": lambda path: path.write_bytes(rb"{\rtf1 A text.}"),
    "gzip": lambda path: path.write_bytes(gzip.compress(b"A text.")),
    "xz": lambda path: path.write_bytes(lzma.compress(b"A text.")),
    "HTML": lambda path: path.write_bytes(b"\xef\xbb\xbf\n<!DOCTYPE HTML><html><body>A text.</body></html>"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", TEXT_FILES)
def test_what_is_no_text_is_told_by_its_content(name, kind, tmp_path):
    OTHERS[kind](path := tmp_path / f"f{name}")
    packed(path)
    with pytest.raises(UserError, match=rf"f{name} is .*{kind}.* by its content, not by its name; rename it"):
        open_texts(path, "x")


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        bytes(range(256)) * 9,
        b"\x7fELF" + 3 * b"\nchance\n\0",
        "A".encode("utf-16"),
        b"\xff\xd8",
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_bytes_that_are_no_text_are_one_sentence(name, content, tmp_path):
    path = tmp_path / f"f{name}"
    for compress in {name in TEXT_FILES, False}:
        path.write_bytes(content)
        if compress:
            packed(path)
        for bad in (BadRows(), BadRows("skip")):
            with pytest.raises(UserError, match=rf"f{name}.* (not in UTF-8|not a complete|carriage return)") as error:
                open_texts(path, "x", bad=bad)
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_or_empty_is_one_sentence(name, tmp_path):
    path = written(name, tmp_path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2]):
        path.write_bytes(content)
        if content and name in (".txt", ".tsv", ".csv", ".jsonl"):
            continue  # the first half of rows can be whole rows
        with pytest.raises(UserError) as error:
            open_texts(path, "x")
        assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", FILES)
def test_a_text_that_is_longer_than_any_book_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_detect.formats.reading._LONGEST", 20)
    with pytest.raises(UserError, match=r"has \d\d characters, but one text has at most 20; divide it"):
        open_texts(written(name, tmp_path), "x")


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_line_that_is_longer_than_memory_is_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_core.files.text_files.LARGEST", 1 << 12)
    monkeypatch.setattr("lit_core.files.rows._LARGEST", 1 << 11)
    for size in (3000, 9000):
        path = write(tmp_path / f"f{name}", content_of(name, "a" * size))
        if size > 4096 or plain_name(path).endswith("sv"):
            with pytest.raises(UserError, match=r"line \d (is longer than|belongs to a row of more than)"):
                open_texts(path, "x")


def test_documents_that_cannot_be_read_are_one_sentence(tmp_path, monkeypatch):
    from pypdf import PdfReader, PdfWriter

    write_pdf(tmp_path / "a.pdf", "A secret.")
    for password, words in (("secret", "is encrypted; save it without a password"), ("", None)):
        writer = PdfWriter(clone_from=PdfReader(tmp_path / "a.pdf"))
        writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
        writer.write(tmp_path / "e.pdf")
        if words is None:
            assert open_texts(tmp_path / "e.pdf", "x")[0]["text"] == "A secret."
        else:
            with pytest.raises(UserError, match=words):
                open_texts(tmp_path / "e.pdf", "x")
    (tmp_path / "e.docx").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(600))
    with pytest.raises(UserError, match=r"e\.docx is encrypted or an old \.doc; save it as \.docx without a password"):
        open_texts(tmp_path / "e.docx", "x")
    monkeypatch.setattr(documents, "RequirementCache", lambda name: False)
    for name in ("python-docx", "pypdf"):
        with pytest.raises(UserError, match=rf'needs `{name}`; install it with `pip install "lit-shift\[documents\]"`'):
            open_texts(tmp_path / {"pypdf": "a.pdf"}.get(name, "e.docx"), "x")


def test_the_lines_of_a_pdf_are_running_text(tmp_path):
    write_pdf(tmp_path / "a.pdf", "The ket-", "tle sang on the", "stove of Mary-", "Ann.")
    assert open_texts(tmp_path / "a.pdf", "x")[0]["text"] == "The kettle sang on the stove of Mary- Ann."


def test_all_words_of_a_docx_are_read_once_and_in_their_order(tmp_path):
    from docx import Document
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    document = Document()
    document.add_heading("Title")
    document.add_table(1, 2).cell(0, 1).text = "cell"
    kinds = "<w:ins w:id='1'><w:r><w:t>added </w:t></w:r></w:ins>"
    kinds += "<w:del w:id='2'><w:r><w:delText>x</w:delText></w:r></w:del>"
    box = "<w:r><w:pict><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p></w:txbxContent></w:pict></w:r>"
    tabs = "<w:pPr><w:tabs><w:tab w:val='left' w:pos='1'/></w:tabs></w:pPr>"
    end = "<w:r><w:t>end</w:t><w:tab/><w:t>.</w:t></w:r>"
    document.element.body.insert(0, parse_xml(f"<w:p {nsdecls('w')}>{tabs}{kinds}{box}{end}</w:p>"))
    document.sections[0].header.paragraphs[0].text = "header"
    document.save(tmp_path / "a.docx")
    assert open_texts(tmp_path / "a.docx", "x")[0]["text"].split("\n") == ["added end\t.", "box", "Title", "", "cell"]


@pytest.mark.parametrize("kind", ["docx", "pdf"])
def test_a_small_document_is_no_large_one(kind, tmp_path, monkeypatch):
    path = tmp_path / f"f.{kind}"
    if kind == "pdf":
        write_pdf(path, stream=zlib.compress(b"(a) Tj " * 20_000_000, 1))
        words = "is not a complete .pdf .*[Ll]imit"
    else:
        write_docx(path, "A text.")
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("word/more.xml", b" " * ((1 << 26) + 1))
        words = r"has \d+ parts that stand for 67,\d+,\d+ bytes, too many for a document"
    assert path.stat().st_size < 2_000_000
    with pytest.raises(UserError, match=words):
        open_texts(path, "x")


def test_an_entity_of_a_docx_is_no_file(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    write_docx(tmp_path / "a.docx", "A text.")
    with zipfile.ZipFile(tmp_path / "a.docx") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    entity = f'<!DOCTYPE d [<!ENTITY x SYSTEM "file://{tmp_path}/secret.txt">]><w:document'.encode()
    document = parts["word/document.xml"].replace(b"<w:document", entity, 1).replace(b"A text.", b"A &x; text.")
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as archive:
        for name, content in {**parts, "word/document.xml": document}.items():
            archive.writestr(name, content)
    assert "secret" not in open_texts(tmp_path / "a.docx", "x")[0]["text"]


def test_a_data_set_that_cannot_be_had_is_one_sentence(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "two").mkdir()
    for split in ("train", "test"):
        written(".parquet", tmp_path).rename(tmp_path / f"two/{split}.parquet")
    for name, words in (
        ("hf:nobody/nothing:train", "could not be loaded from nobody/nothing train .*; without a network, give a file"),
        (f"hf:{tmp_path}/two", "has the splits train, test; give one, as in hf:.*two:train"),
        (f"hf:{tmp_path}/two:val", "could not be loaded"),
        ("hf:", "must be hf:NAME"),
        (f"hf:{tmp_path}/two:train", None),
    ):
        if words is None:
            assert len(open_texts(name, "x")) == len(RECORDS)
        else:
            with pytest.raises(UserError, match=words) as error:
                open_texts(name, "x")
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["plain", "with an image"])
def test_classes_are_read_by_their_names(kind, tmp_path):
    """The number 0 is not human where the set calls it machine."""
    import datasets

    label = datasets.ClassLabel(names=["machine", "human"])
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]})
    (tmp_path / "set").mkdir()
    rows = rows.cast_column("label", label)
    if "image" in kind:  # is not decoded, since files of others may lie behind it
        rows = rows.add_column("image", [{"bytes": b"none", "path": None}] * 3).cast_column("image", datasets.Image())
    rows.to_parquet(tmp_path / "set/train.parquet")
    for path in (tmp_path / "set/train.parquet", f"hf:{tmp_path}/set"):
        assert [record.label for record in open_texts(path, "x").records()] == [1, 0, None]


def test_several_files_and_patterns(tmp_path, capsys):
    for name in ("a/x.csv", "b/x.csv", "b/y.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "json"}' if name.endswith("l") else f"text\n{name}\n\n")
    texts = open_texts([f"{tmp_path}/*/x.csv", tmp_path / "b/y.jsonl"], "x")
    assert [texts[n]["text"] for n in range(3)] == ["a/x.csv", "b/x.csv", "json"]
    assert [texts.where(n).removeprefix(f"{tmp_path}/") for n in range(3)] == [
        "a/x.csv, line 2", "b/x.csv, line 2", "b/y.jsonl, line 1"
    ]  # fmt: skip
    assert "5 rows read, 3 kept, 2 set aside, since they are blank" in capsys.readouterr().out
    ids = [record.id for record in texts.records()]
    assert len(set(ids)) == 3 and ids[2] == "y-0000001" and "a/x.csv-0000001" in ids[0]
    for folder, kinds in (("a", ("docx",)), ("b", ("docx", "pdf"))):
        (tmp_path / folder / "x.csv").unlink()
        for kind in kinds:
            {"docx": write_docx, "pdf": write_pdf}[kind](tmp_path / f"{folder}/x.{kind}", folder)
    texts = open_texts([f"{tmp_path}/a/x.docx", f"{tmp_path}/b/x.docx", f"{tmp_path}/b/x.pdf"], "x")
    assert len({record.id for record in texts.records()}) == 3
    assert [record.id for record in open_texts(tmp_path / "b", "x").records()] == ["x.docx", "x.pdf"]
    with pytest.raises(UserError, match="x is an empty list"):
        open_texts([], "x")
    with pytest.raises(UserError, match=r"x is .*\*\.tsv, a pattern that no file matches"):
        open_texts(f"{tmp_path}/*.tsv", "x")
    with pytest.raises(UserError, match=r"x names .*x\.docx twice, so its texts would count twice"):
        open_texts([tmp_path / "a/x.docx", f"{tmp_path}/a/*"], "x")


MALFORMED = {
    ".csv": b"text,label\ngood,0\nshort\n\xff,1\nbetter,1\n",
    ".tsv": b"text\tlabel\ngood\t0\nshort\n\xff\t1\nbetter\t1\n",
    ".jsonl": b'{"text": "good", "label": 0}\n{"text": 3}\n{"text": "\xff"}\n{"text": "better", "label": 1}\n',
    ".txt": b"good\nca\rt\n\xff\nbetter\n",
}


@pytest.mark.parametrize("name", TEXT_FILES)
def test_bad_rows_are_set_aside_with_file_line_and_reason(name, tmp_path, capsys):
    path = write(tmp_path / f"f{name}", MALFORMED[plain_name(Path(name))])
    with pytest.raises(UserError, match=r"line [23]"):
        open_texts(path, "x")
    texts = open_texts(path, "x", bad=(bad := BadRows("skip")))
    assert [texts[n]["text"] for n in range(2)] == ["good", "better"] and len(texts) == 2
    first = 2 + name.startswith((".csv", ".tsv"))
    assert [(row.file, row.row) for row in bad.rows] == [(str(path), f"line {first + n}") for n in range(2)]
    assert "4 rows read, 2 kept, 2 set aside (2 bad)" in capsys.readouterr().out
    bad.write(tmp_path / "set_aside.csv")
    assert (tmp_path / "set_aside.csv").read_text().splitlines()[0] == "file,row,reason"


def test_bad_files_among_several_are_set_aside(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_docx(folder / "a.docx", "A text.")
    (folder / "b.pdf").write_bytes(b"no PDF")
    write_pdf(folder / "c.txt", "A PDF.")
    texts = open_texts(folder, "x", bad=(bad := BadRows("skip")))
    assert len(texts) == 1 and [(row.file, row.row) for row in bad.rows] == [
        (str(folder / "b.pdf"), ""), (str(folder / "c.txt"), "")
    ]  # fmt: skip
    texts = open_texts([folder / "c.txt", folder / "a.docx"], "x", bad=BadRows("skip"))
    assert len(texts) == 1
    with pytest.raises(UserError, match=r"c\.txt, which has no texts that can be read: .*is a PDF by its content"):
        open_texts(folder / "c.txt", "x", bad=BadRows("skip"))


def test_what_follows_wrong_quotes_is_never_taken_for_texts(tmp_path):
    (tmp_path / "f.csv").write_text('text,label\n"He said "hello" and\nleft.",0\n')
    with pytest.raises(UserError, match=r"f\.csv.*is not valid CSV"):
        open_texts(tmp_path / "f.csv", "x", bad=BadRows("skip"))
    with pytest.raises(UserError, match=r"`on_error` is 'ignore', but must be stop or skip"):
        BadRows("ignore")
