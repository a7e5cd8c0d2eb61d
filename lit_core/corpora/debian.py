"""Corpora that Debian packages."""

from __future__ import annotations

from lit_core.corpora.base import Corpus
from lit_core.fetch.debian import DebianPackage


class DebianCorpus(DebianPackage, Corpus):
    """A corpus made of a Debian package, which is fetched when the documents are read."""
