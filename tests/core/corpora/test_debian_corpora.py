import gzip
import re

import pytest

from lit_core.corpora import AnarchistFAQ, DebianHandbook, GermanManPages, PythonDocs
from lit_core.corpora.handbook import html_paragraphs
from lit_core.errors import UserError

PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<html><head><title>head</title><link rel="home" /></head><body>
<div id="banner"><a href="x"><span>Download</span></a></div><p id="title"><a><img alt="x" /></a></p>
<ul class="docnav top"><li><a>Zurück</a></li></ul>
<div class="section"><h2 class="title"><a id="x"></a>6.2. <code>apt</code> Befehle</h2><a class="indexterm"></a>
<div class="para">
  Ein &lt;Absatz&gt; &amp;
  mehr.<br/>Weiter.</div><pre class="screen"># apt update
  <strong>Fertig</strong>
</pre><ul><li><div class="para">Punkt</div></li></ul><div class="toc"><dl><dt>Inhalt</dt></dl></div>
<p>Still English.</p></div></body></html>"""


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    return str(root)


def contents(corpus):
    return {document.id: document.text for document in corpus.documents()}


def test_html_without_its_furniture(tmp_path):
    (tmp_path / "x.html").write_text(PAGE)
    assert html_paragraphs(tmp_path / "x.html") == [
        "6.2. apt Befehle",
        "Ein <Absatz> & mehr. Weiter.",
        "# apt update\n  Fertig",
        "Punkt",
        "Still English.",
    ]


def test_a_translation_loses_what_is_still_in_english(tmp_path):
    html = "usr/share/doc/debian-handbook/html"
    english = "<html><body><p>Still English.</p><pre># apt update\n  <b>Fertig</b></pre></body></html>"
    folder = write(
        tmp_path, {f"{html}/de-DE/x.html": PAGE, f"{html}/en-US/x.html": english, f"{html}/de-DE/index.html": PAGE}
    )
    german = contents(DebianHandbook("de", from_folder=folder))
    assert german == {"x": "6.2. apt Befehle\n\nEin <Absatz> & mehr. Weiter.\n\n# apt update\n  Fertig\n\nPunkt\n"}
    assert "Still English." in contents(DebianHandbook("en", from_folder=folder))["x"]
    assert DebianHandbook("de", from_folder=folder).name == "handbook_de"


def test_manual_pages_without_links_and_translators(tmp_path):
    page = ".TH X 1\n.SH NAME\nx \\- tut etwas\n.PP\n.SH ÜBERSETZUNG\nDie deutsche Übersetzung wurde erstellt.\n"
    man = "usr/share/man/de/man1"
    folder = write(tmp_path, {f"{man}/x.1.gz": page, f"{man}/y.1.gz": ".so man1/x.1\n"})
    (tmp_path / man / "z.1.gz").symlink_to("x.1.gz")
    assert contents(GermanManPages(from_folder=folder)) == {"x.1": "NAME\n\nx - tut etwas\n"}


def test_essays_without_markup(tmp_path):
    text = "# A title\n\nIt is **_not_ ** snake_case, [see](sec.md#a) [\n that](b(c).md), 1\\. x  \n\n\n\nEnd _here_.\n"
    markdown = "usr/share/doc/anarchism/markdown"
    folder = write(
        tmp_path, {f"{markdown}/secA1.md.gz": text, f"{markdown}/secAcon.md": "x", f"{markdown}/links.md": "no"}
    )
    found = contents(AnarchistFAQ(from_folder=folder))
    assert found == {"secA1": "# A title\n\nIt is not  snake_case, see\n that, 1. x\n\nEnd here.\n", "secAcon": "x\n"}


def test_documentation_pages_are_taken_as_they_are(tmp_path):
    sources = "usr/share/doc/python3.11/html/_sources"
    folder = write(tmp_path, {f"{sources}/library/os.rst.txt": "os\n==\n", f"{sources}/about.rst.txt": "About"})
    assert contents(PythonDocs(from_folder=folder)) == {"about": "About", "library/os": "os\n==\n"}


@pytest.mark.parametrize("corpus", [AnarchistFAQ, DebianHandbook, GermanManPages, PythonDocs])
def test_a_wrong_folder_is_one_sentence(corpus, tmp_path):
    with pytest.raises(UserError, match=r"from_folder of .* is /nowhere, but there is no such folder"):
        corpus(from_folder="/nowhere")
    with pytest.raises(
        UserError, match=rf"but {re.escape(str(tmp_path))} has no such file; give the folder that `dpkg-deb"
    ):
        contents(corpus(from_folder=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("corpus", "documents", "megabytes", "words"),
    [
        (AnarchistFAQ(), 127, (10, 13), ["Proudhon", "freedom"]),
        (DebianHandbook("en"), 126, (1.0, 1.3), ["administrator", "Falcot"]),
        (DebianHandbook("de"), 117, (0.9, 1.2), ["Administrator", "Konfiguration"]),
        (DebianHandbook("fr"), 117, (0.7, 1.1), ["administrateur", "réseau"]),
        (GermanManPages(), 880, (6, 9), ["Datei", "Vorgabe"]),
        (PythonDocs(), 490, (10, 13), [":func:", "exception"]),
    ],
)
def test_fetched_text_is_what_was_looked_at(corpus, documents, megabytes, words):
    texts = [document.text for document in corpus.documents()]
    low, high = megabytes
    assert len([text for text in texts if text.strip()]) >= 0.9 * documents
    assert low * 1e6 < sum(len(text.encode()) for text in texts) < high * 1e6
    assert all(sum(word in text for text in texts) > 0.02 * len(texts) for word in words)
    # A few pages speak of such marks.
    assert sum(any(mark in text for mark in ("\ufffd", "<div", "\\fB\\", "\x1b")) for text in texts) <= 3
    assert len(corpus.facts()["sha256"]) == 64
