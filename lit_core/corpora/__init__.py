"""Corpora: text that ships with the package, text that is fetched, and text that the user has."""

from lit_core.corpora.anarchism import AnarchistFAQ
from lit_core.corpora.austen import Austen
from lit_core.corpora.base import Corpus, Document
from lit_core.corpora.handbook import DebianHandbook
from lit_core.corpora.manpages import GermanManPages
from lit_core.corpora.pythondocs import PythonDocs
from lit_core.corpora.stdlib import PythonStdlib
from lit_core.corpora.user import HuggingFaceDataset, JSONLines, TextFolder

__all__ = [
    "AnarchistFAQ",
    "Austen",
    "Corpus",
    "DebianHandbook",
    "Document",
    "GermanManPages",
    "HuggingFaceDataset",
    "JSONLines",
    "PythonDocs",
    "PythonStdlib",
    "TextFolder",
]
