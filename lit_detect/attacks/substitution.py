"""What attacks that replace words by synonyms share: which words, by which ones, and how alike the text must stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lit_core.errors import UserError
from lit_detect.attacks.base import Attack, Attacked
from lit_detect.attacks.document import STOP_WORDS, Document
from lit_detect.attacks.raid import attacked, like_case
from lit_detect.language.parts_of_speech import RuleTagger, Tagger, same_part
from lit_detect.language.similarity import Similarity, WordOverlap
from lit_detect.language.synonyms import Synonyms
from lit_detect.language.wordnet import EmbeddedSynonyms

#: Words on each side of a replaced one that its part of speech is told from, and its similarity.
_TAG_SIDE, _SIMILARITY_SIDE = 4, 7
#: Synonyms that are compared at once while the first one that passes is looked for: at first, and at most.
_FIRST, _MOST = 2, 32


class Substitution(Attack):
    """Replaces words by synonyms of the same part of speech that keep their window like it was.

    Args:
        synonyms: Where the synonyms come from.
        tagger: What tells the parts of speech.
        similarity: What compares the window of 15 words before and after.
        min_similarity: Smallest similarity of the windows.
        faithful: Whether texts are read and windows compared as in the released code.
    """

    def __init__(
        self,
        synonyms: Synonyms | None,
        tagger: Tagger | None,
        similarity: Similarity | None,
        min_similarity: float,
        faithful: bool,
    ) -> None:
        if min_similarity > 1:
            raise UserError(f"min_similarity is {min_similarity}, but nothing is more alike than 1; set it lower.")
        self.synonyms = EmbeddedSynonyms() if synonyms is None else synonyms
        self.tagger = RuleTagger() if tagger is None else tagger
        self.similarity = WordOverlap() if similarity is None else similarity
        self.min_similarity, self.faithful = min_similarity, faithful

    def document(self, text: str) -> Document:
        """Return the words of a text."""
        return Document.of_parts(text) if self.faithful else Document.of_words(text)

    def replaceable(self, document: Document) -> list[int]:
        """Return the numbers of the words that have a synonym and are no stop words, by place."""
        words = document.words if self.faithful else [word.lower() for word in document.words]
        return [i for i, word in enumerate(words) if word not in STOP_WORDS and word in self.synonyms]

    def has_choices(self, document: Document, place: int) -> bool:
        """Tell whether a word has any synonym, whatever its part of speech."""
        word = document.words[place]
        return bool(self.synonyms.candidates(word if self.faithful else word.lower()))

    def choices(self, document: Document, place: int) -> list[str]:
        """Return the synonyms of a word's part of speech in its case, the most similar first."""
        word = document.words[place]
        found = [other for other, _ in self.synonyms.candidates(word if self.faithful else word.lower())]
        if not self.faithful:
            found = [like_case(other, word) for other in found]
        if not found:
            return []
        first, last = _tag_window(document, place)
        words = document.words[first:last]
        variants = [[*words[: place - first], other, *words[place - first + 1 :]] for other in found]
        if self.faithful:  # the word's own tag is that which it had in the whole text at the beginning
            own = self._original_tags(document)[place]
        else:
            variants.append(words)
        tags = [row[place - first] for row in self.tagger.tag(variants)]
        if not self.faithful:
            own = tags.pop()
        return [other for other, tag in zip(found, tags, strict=True) if same_part(own, tag)]

    def _original_tags(self, document: Document) -> list[str]:
        if document.tags is None:
            document.tags = self.tagger.tag([document.original])[0]
        return document.tags

    def similar(self, document: Document, place: int, choices: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Yield those of some synonyms, in their order, that keep the window alike, and how alike it is.

        As in the released code the windows are compared with the text as it is now, so that changes add up, or else
        with the text as it was.
        """
        first, last = _similarity_window(len(document.words), place)
        before = document.window(first, last, original=not self.faithful)
        start, size = 0, _FIRST
        while start < len(choices):
            some = choices[start : start + size]
            start, size = start + size, min(2 * size, _MOST)
            after = [document.window(first, last, {place: other}) for other in some]
            for other, value in zip(some, self.similarity(before, after), strict=True):
                if value >= self.min_similarity:
                    yield other, float(value)

    def result(self, document: Document, text: str, kept: Sequence[float], queries: int = 0, **meta: Any) -> Attacked:
        """Return what became of a text, with all that decided it.

        Args:
            document: Its words now.
            text: The text.
            kept: Similarity of the windows at each replacement.
            queries: How often the detector was asked.
            meta: What else is worth keeping.
        """
        return attacked(
            text,
            document.edits(),
            queries,
            replacements=len(kept),
            window_similarity=min(kept) if kept else None,
            thresholds={"min_similarity": self.min_similarity, **self.synonyms.thresholds},
            synonyms=self.synonyms.name,
            tagger=self.tagger.name,
            similarity=self.similarity.name,
            faithful=self.faithful,
            **meta,
        )


def _tag_window(document: Document, place: int) -> tuple[int, int]:
    length = len(document.words)
    return (max(0, place - _TAG_SIDE), min(length, place + _TAG_SIDE + 1)) if length > 10 else (0, length)


def _similarity_window(length: int, place: int) -> tuple[int, int]:
    """Return the window of 15 words around a place, moved inwards at the ends of a text."""
    width = 2 * _SIMILARITY_SIDE + 1
    first = max(0, min(place - _SIMILARITY_SIDE, length - width))
    return first, min(length, first + width)


def substitution_similarities(attack: Substitution, texts: Sequence[str], seed: int = 0, each: int = 20) -> np.ndarray:
    """Return the similarities of the substitutions that come into question in some texts, for `calibrate_threshold`.

    Args:
        attack: The attack, whose threshold is ignored.
        texts: Texts of the kind that is to be attacked.
        seed: Seed of the words that are drawn, 0 or more.
        each: Most words drawn of each text.

    Returns:
        Similarity of the window with each synonym of the drawn words' part of speech, float64 ``(n,)``.
    """
    rng, found = np.random.default_rng(seed), [np.zeros(0)]
    for text in texts:
        document = attack.document(text)
        places = np.array(attack.replaceable(document), dtype=np.int64)
        for place in rng.permutation(places)[:each].tolist():
            choices = attack.choices(document, place)
            first, last = _similarity_window(len(document.words), place)
            after = [document.window(first, last, {place: other}) for other in choices]
            found.append(attack.similarity(document.window(first, last), after))
    return np.concatenate(found)
