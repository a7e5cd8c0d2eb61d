"""Base class of the corpora: named sequences of documents with a licence and an origin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from lit_core.corpora.described import Described


@dataclass(frozen=True)
class Document:
    """A text of a corpus; it is never divided between train, val and test.

    Args:
        id: Name of the document, unique in its corpus.
        text: The text.
        group: What the document is a part of, such as a novel. Each group is divided separately, so that every split
            has a share of it.
    """

    id: str
    text: str
    group: str = ""


class Corpus(Described):
    """Base class of corpora: a named sequence of documents.

    To add a corpus, derive from this class, export it from ``lit_core.corpora``, and write its YAML and its test.

    Attributes:
        name: Name of the source made of the corpus, used for its folder and in metric keys.
        licence: Licence of the text.
        origin: Where the text comes from.
        language: ISO 639-1 code of the language, or the name of a programming language.
    """

    language: str
    described = (*Described.described, "language")

    @abstractmethod
    def documents(self) -> Iterator[Document]:
        """Yield the documents, always in the same order.

        Raises:
            UserError: If something is missing; the message says what, and what to do.
        """
