"""Each format has one reader, with limits; nothing else in the packages parses a file of that format."""

import ast
import csv
import gzip
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lit_core.corpora import TextFolder, user
from lit_core.errors import UserError
from lit_core.files import json_files, parquet_files, rows
from lit_core.files.arrays import map_npy, parse_npy
from lit_core.files.json_files import DEEPEST, json_lines, parse_json, read_json
from lit_core.files.logged import logged_values
from lit_core.files.parquet_files import parquet_rows
from lit_core.files.rows import csv_rows
from lit_core.files.text_files import read_whole
from lit_core.files.yaml_files import parse_yaml
from lit_detect.data.user_texts import open_texts

ROOT = Path(__file__).parents[3]
PACKAGES = ("lit_core", "lit_detect", "lit_moe", "lit_valuation")
#: The only modules that may call the parser of a format, by the last two names of the call.
READERS = {
    "json.loads": {"lit_core/files/json_files.py"},
    "json.load": set(),
    "yaml.SafeLoader": {"lit_core/files/yaml_files.py"},
    "yaml.parse": {"lit_core/files/yaml_files.py"},
    **{f"yaml.{name}": set() for name in ("load", "safe_load", "full_load", "unsafe_load", "load_all", "compose")},
    **{f"{module}.load": set() for module in ("np", "numpy", "pickle", "joblib", "OmegaConf")},
    **{f"np.{name}": set() for name in ("fromfile", "loadtxt", "genfromtxt")},
    **{f"format.{name}": set() for name in ("open_memmap", "read_array")},
    "format.read_magic": {"lit_core/files/arrays.py"},
    "np.memmap": {"lit_core/files/arrays.py", "lit_core/data/tokens.py"},  # .bin files have no header
    "gzip.open": {"lit_core/files/text_files.py"},
    "zstd.open": {"lit_core/files/text_files.py"},
    **{f"zstd.{name}": set() for name in ("decompress", "ZstdFile", "ZstdDecompressor")},
    "docx.Document": {"lit_core/files/documents.py"},
    "pypdf.PdfReader": {"lit_core/files/documents.py"},
    "datasets.load_dataset": {"lit_core/fetch/hub.py"},
    "lzma.open": {"lit_core/files/text_files.py"},
    "pickle.loads": set(),
    "gzip.decompress": set(),
    "lzma.decompress": {"lit_core/files/shipped.py"},  # which the package brings
    "zlib.decompress": set(),
    "csv.reader": {
        "lit_core/files/rows.py",
        "lit_core/files/logged.py",
        "lit_detect/data/row_files.py",  # one row of what `rows.py` has read
        "lit_valuation/sources/newsgroups.py",  # a file whose hash is known
    },
    "csv.DictReader": set(),
    "parquet.ParquetFile": {"lit_core/files/parquet_files.py"},
    "parquet.read_table": set(),
}


def calls():
    """Yield module, line and name of each call whose last two names could be those of a parser."""
    words = {name.rpartition(".")[2] for name in READERS}  # also where it is imported under another name
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        if not any(word in (text := path.read_text()) for word in words):
            continue
        tree = ast.parse(text)
        names = {}  # import json as j; from json import loads
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.asname or alias.name: alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute | ast.Name):
                full = dotted(node, names).replace("numpy.", "np.")
                yield path.relative_to(ROOT).as_posix(), node.lineno, ".".join(full.split(".")[-2:])


def dotted(node, names):
    """The name of a node, as it was imported; what is no name, such as a call, is left out of it."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def test_each_format_has_one_reader():
    found = [(module, line, name) for module, line, name in calls() if name in READERS]
    assert {name for _, _, name in found} >= {"json.loads", "yaml.parse", "format.read_magic"}
    assert [call for call in found if call[0] not in READERS[call[2]]] == []


def test_images_are_opened_in_one_place():
    """Whatever asks for Pillow's module decodes by `decoded_image`, or makes new images only."""
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        if path.name == "images.py" or "pillow_image" not in (text := path.read_text()):
            continue
        used = [node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]
        assert "pillow_image().open" not in text and "Image.open" not in text, path
        assert "frombytes" not in used and "frombuffer" not in used, path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000, "levels deep"),
        (b'{"a":' * 100_000, "levels deep"),
        (b"[" * (DEEPEST + 2) + b"]" * (DEEPEST + 2), "levels deep"),
        (b'{"a": 1, "a": 2}', "key 'a' twice"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "Infinity is not a number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": "\\ud800"}', "half a surrogate pair"),
        (b'{"a": "\xff"}', "not in UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not in UTF-8"),
        (b"", "not valid JSON"),
        (b"[]", "is a list, but must be an object"),
        (b"null", "is null, but must be an object"),
    ],
)
def test_json_has_limits(content, reason):
    with pytest.raises(UserError, match=rf"f\.json.*{reason}.*; restore or create it again"):
        parse_json(content, "f.json")


def test_json_that_is_allowed():
    deepest = b"[" * DEEPEST + b"]" * DEEPEST
    assert parse_json(deepest, "f", list) and parse_json('\ufeff{"a": "[[[["}'.encode(), "f") == {"a": "[[[["}
    assert np.isnan(parse_json("[NaN]", "f", list, lenient=True)[0])


def test_a_compressed_file_is_as_large_as_what_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_core.files.text_files.LARGEST", 1 << 20)
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": "' + b" " * (2 << 20) + b'"}\n'))
    with pytest.raises(UserError, match=r"line 1 is longer than 1 MiB"):
        list(json_lines(path))
    with pytest.raises(UserError, match=r"holds more than 1 MiB"):
        read_whole(path, 1 << 20)
    for cut in (5, -3):
        path.write_bytes(gzip.compress(json.dumps({"a": 1}).encode() * 20)[:cut])
        with pytest.raises(UserError, match="not a complete gzip file"):
            read_json(path)


LEVELS = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LEVELS, "values, with those that aliases repeat"),
        ("a: &a {x: 1}\n" + "b: [" + "*a, " * 60_000 + "]", "values, with those that aliases repeat"),
        ("a: &a [*a]", "line 1, column 8: the alias a stands inside what it names"),
        ("[" * 3000, "levels inside each other"),
        ("- " * 3000 + "x", "levels inside each other"),
        ("".join(f"{' ' * n}a:\n" for n in range(200)), "levels inside each other"),
        ("a: 1" + ":59" * 5000, "a number of 1,000 digits"),
        ("a: " + "9" * 5000, "a number of 1,000 digits"),
        ("a: 2020-13-45", "month must be in"),
        ("a: 1\nb: 2\na: 3", "sets a twice, in lines 1 and 3"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("? {a: 1}\n: 2", "unhashable"),
        (b"a: \xff", "can't decode"),
        ("a: *b", "undefined alias"),
    ],
)
def test_yaml_has_limits(text, reason):
    with pytest.raises(UserError, match=rf"--config c\.yaml .*{reason}"):
        parse_yaml(text, "--config c.yaml")


def npy(header, data=b"", version=b"\x01\x00"):
    size = len(header).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + size + header.encode() + data


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, -1)}"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"12345678"),
        npy("{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000,)}"),
        npy("{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}", b"1" * 16),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", b"1234"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}", b"1" * 8),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}", b"1" * 15),
        npy("(" * 9000),
        npy("[" * 60000),
        npy("{'descr': '<f8'", b"", b"\x03\x00"),
        npy("x"),
        b"\x93NUMPY",
        b"",
    ],
)
def test_npy_has_limits(content, tmp_path):
    with pytest.raises(ValueError, match=r"header|must hold numbers"):
        parse_npy(content)
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.npy is not a \.npy file of numbers"):
        map_npy(tmp_path / "x.npy")


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.arange(6.0).reshape(2, 3).T, np.zeros((0, 3)), 5])
def test_npy_is_read_as_numpy_reads_it(array, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, array)
    for read in (map_npy(path), parse_npy(path.read_bytes())):
        np.testing.assert_array_equal(read, array)
        assert read.dtype == np.asarray(array).dtype


BOMBS = {
    "a text that is stored once": lambda arrow: arrow.DictionaryArray.from_arrays(
        np.zeros(5000, np.int32), ["x" * 100_000]
    ),
    "a number that is repeated": lambda arrow: np.zeros(30_000_000, np.int8),
}


@pytest.mark.parametrize("largest_group", [0, 1 << 26])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_parquet_file_is_no_large_table(bomb, largest_group, tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(parquet_files, "_LARGEST_GROUP", largest_group)

    parquet.write_table(pyarrow.table({"x": BOMBS[bomb](pyarrow)}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet has [\d,]+ bytes and stands for more than 268,435,456, too many"):
        list(parquet_rows(tmp_path / "x.parquet"))


def test_a_large_group_of_rows_is_not_held_in_memory(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(parquet_files, "_LARGEST_GROUP", 1 << 20)
    texts = [f"{number} " * 2000 for number in range(2000)]
    parquet.write_table(pyarrow.table({"n": range(2000), "text": texts}), tmp_path / "x.parquet", write_batch_size=20)
    before, most = pyarrow.total_allocated_bytes(), 0
    for number, (where, row) in enumerate(parquet_rows(tmp_path / "x.parquet")):
        assert where.endswith(f"row {number + 1}") and row == {"n": number, "text": texts[number]}
        most = max(most, pyarrow.total_allocated_bytes() - before)
    assert number == 1999 and most < 6e6, "20 MB of text in one group"


def test_lists_in_parquet_are_refused_only_where_they_are_needed(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {
        "x": [[1], [2]],
        "text": ["a", None],
        "n": [1.5, 2.5],
        "kind": pyarrow.array(["a", "a"]).dictionary_encode(),
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "x.parquet")
    assert [row for _, row in parquet_rows(tmp_path / "x.parquet", ["text", "y"])] == [
        {"text": "a", "n": 1.5, "kind": "a"},
        {"text": None, "n": 2.5, "kind": "a"},
    ]
    for needed in (None, ["x"]):
        with pytest.raises(UserError, match="column x holds lists or structures; convert it"):
            list(parquet_rows(tmp_path / "x.parquet", needed))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'text\n"' + b"word\n" * 1000, "line 201 belongs to a row of more than 0 MiB; close its quotes"),
        (b"text,n\na" + b"," * 200, "line 2 belongs to a row of more than 100 separators"),
        (",".join(map(str, range(60))).encode(), "line 1 has 60 columns, but at most 50 are read; divide"),
    ],
)
def test_a_small_compressed_csv_is_no_large_row(content, words, monkeypatch, tmp_path):
    for name, limit in (("_LARGEST", 1000), ("_MOST_SEPARATORS", 100), ("MOST_COLUMNS", 50)):
        monkeypatch.setattr(rows, name, limit)
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(content))
    for read in (csv_rows, lambda path: open_texts(path, "texts")):
        with pytest.raises(UserError, match=words):
            list(read(path))


def test_json_has_as_many_values_as_memory(monkeypatch):
    monkeypatch.setattr(json_files, "_MOST_VALUES", 100)
    assert parse_json('{"a": "' + "x" * 200 + '"}', "it")
    with pytest.raises(UserError, match="it holds more than 100 values, too many"):
        parse_json('{"a": [' + "[]," * 60 + "0]}", "it")


@pytest.mark.parametrize("separator", [None, "%"])
def test_a_small_compressed_text_is_no_large_document(separator, monkeypatch, tmp_path):
    monkeypatch.setattr(user, "LARGEST", 1000)
    monkeypatch.setattr(user, "read_whole", partial(read_whole, largest=1000))
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"a\n" * 800))
    with pytest.raises(UserError, match=r"x\.txt\.gz holds (a document of )?more than 0 MiB"):
        list(TextFolder(str(tmp_path), "c", "*.gz", separator=separator).documents())


@pytest.mark.parametrize("damage", [b"\r\n0,1.5,7\r\n", b"\r\n-1,1.5\r\n", b"\r\n0,2.5", b"\r\n\r\n"])
def test_a_damaged_row_of_metrics_is_left_out(damage, tmp_path):
    (tmp_path / "metrics.csv").write_bytes(b"step,loss\r\n3,0.5" + damage)
    assert logged_values(tmp_path) == {"loss": [(3, 0.5)]}


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (b"\xff", r"is not in UTF-8 .*; restore or remove it\."),
        (b"x", "has 'x' as loss of step 3"),
        (b"9" * 200_000, r"is not valid CSV \(field larger"),
    ],
)
def test_metrics_that_cannot_be_read_are_named(cell, words, tmp_path):
    csv.field_size_limit(131072)  # of a process that has read no table yet
    (tmp_path / "metrics.csv").write_bytes(b"step,loss\n3," + cell + b"\n")
    with pytest.raises(UserError, match=rf"metrics\.csv {words}"):
        logged_values(tmp_path)
