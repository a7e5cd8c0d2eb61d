import gzip
import re
import shutil
import subprocess
from collections import Counter

import pytest

from lit_core.corpora import GermanManPages
from lit_core.corpora.roff import plain, roff_to_text

PAGE = r"""'\" t
.\" -*- coding: UTF-8 -*-
.ie \n(.g .ds Aq \(aq
.el       .ds Aq '
.de XX
never shown
..
.TH LS 1 "September 2022" "GNU coreutils 9.1"
.SH BEZEICHNUNG
ls \- Verzeichnisinhalte auflisten
.SH "ÜBER SICHT"
\fBls\fP [\fI\,OPTION\/\fP]… [\fI\,DATEI\/\fP]…
.PP
Ein Absatz über
zwei Zeilen \(en mit Strich
.BR wait (2),
und \*(Aqx\*(Aq.
.TP
\fB\-a\fP, \fB\-\-all\fP
alles zeigen
.IP \(bu 2
ein Punkt
.if n \{\
.RS 4
never shown
.\}
.nf
  int main\e
    \fBreturn\fP;
.fi
.UR https://example.org
Seite
.UE .
.TS
tab(@);
l l.
a@b
T{
lange
Zelle
T}@d
.TE
"""

TEXT = r"""BEZEICHNUNG

ls - Verzeichnisinhalte auflisten

ÜBER SICHT

ls [OPTION]… [DATEI]…

Ein Absatz über zwei Zeilen – mit Strich wait(2), und 'x'.

-a, --all
alles zeigen

• ein Punkt

  int main\
    return;

Seite ⟨https://example.org⟩.

a	b
lange Zelle	d
"""


def test_a_page_becomes_plain_text():
    assert roff_to_text(PAGE) == TEXT


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"\fIa\fR\-\f[B]b\f(CWc", "a-bc"),
        (r"\(aqx\[aq] \(Bqy\(lq \[u2014] \[char176]", "'x' „y“ — °"),
        (r"a\ b\~c\0d\&e\|f\%g\:h", "a b c defgh"),
        (r"\s-1small\s0 \s'+2'x\h'-04'y", "small xy"),
        (r"C:\\dir\en \(rs", "C:\\dir\\n \\"),
        (r"text \" comment", "text "),
    ],
)
def test_escapes(source, text):
    assert plain(source) == text


def test_references_and_other_macros_are_no_pages():
    assert roff_to_text(".so man1/ls.1\n") == ""
    assert roff_to_text(".Dd March 1\n.Dt X 1\n.Sh NAME\n.Nm x\n") == ""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_words_are_those_of_groff():
    """An independent reader of the same pages; what it has more are the headers and footers of pages."""
    ours, theirs = Counter(), Counter()
    for path in list(GermanManPages().files("usr/share/man/de", "man*/*.gz"))[::12]:
        source = gzip.decompress(path.read_bytes())
        text = roff_to_text(source.decode())
        if text:
            command = ["groff", "-k", "-Kutf8", "-t", "-man", "-Tutf8", "-P-c", "-P-u", "-P-b", "-rHY=0", "-rLL=10000n"]
            shown = subprocess.run(command, input=source, capture_output=True, check=True).stdout.decode()
            ours.update(re.findall(r"\w+", text))
            theirs.update(re.findall(r"\w+", shown))
    assert (ours - theirs).total() < 0.01 * ours.total()
    assert (theirs - ours).total() < 0.04 * theirs.total()
