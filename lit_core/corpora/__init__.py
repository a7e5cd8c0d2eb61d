"""Corpora: text that ships with the package, text that is fetched, and text that the user has."""

from lit_core.corpora.austen import Austen
from lit_core.corpora.base import Corpus, Document
from lit_core.corpora.stdlib import PythonStdlib

__all__ = ["Austen", "Corpus", "Document", "PythonStdlib"]
