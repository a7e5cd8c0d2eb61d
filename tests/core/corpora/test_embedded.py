import hashlib
import keyword
import platform
from collections import Counter
from pathlib import Path

from lit_core.corpora import Austen, PythonStdlib
from lit_core.corpora import austen as module

CHAPTERS = {
    "sensesensibility": 50,
    "prideprejudice": 61,
    "mansfieldpark": 48,
    "emma": 55,
    "northangerabbey": 31,
    "persuasion": 24,
}


def test_the_novels_have_their_chapters():
    documents = list(Austen().documents())
    assert Counter(document.group for document in documents) == CHAPTERS
    assert sum(len(document.text.encode()) for document in documents) == 4_022_002
    texts = {document.id: document.text for document in documents}
    assert len(texts) == len(documents)
    assert texts["prideprejudice/01"].split("\n\n")[1].startswith("It is a truth universally acknowledged")
    assert texts["persuasion/24"].rstrip().endswith("national importance.")
    assert all(text.lower().startswith("chapter ") and len(text) > 3000 for text in texts.values())
    # Headings, end marks and editors' notes are not hers.
    whole = "\n".join(texts.values())
    assert not any(note in whole for note in ("VOLUME", "FINIS", "THE END", "Signet", "of this edition", "\n\n\n"))


def test_provenance_states_the_hash():
    content = (Path(module.__file__).parent / "embedded" / "PROVENANCE.md").read_text()
    assert module.SHA256 in content
    assert Austen().facts() == {"sha256": module.SHA256}
    assert len(module.SHA256) == hashlib.sha256().digest_size * 2


def test_the_standard_library_is_code_without_tests():
    corpus = PythonStdlib()
    documents = {document.id: document.text for document in corpus.documents()}
    assert 5_000_000 < sum(map(len, documents.values())) < 20_000_000
    assert {"argparse.py", "json/decoder.py"} <= set(documents)
    assert not any({"test", "tests", "site-packages", "lib2to3"} & set(name.split("/")) for name in documents)
    assert documents["keyword.py"] == Path(keyword.__file__).read_text()
    assert list(documents) == sorted(documents)
    assert platform.python_version() in corpus.origin
    assert corpus.facts()["python"] == platform.python_version()
