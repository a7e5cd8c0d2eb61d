"""Base class of attacks that replace words by synonyms: candidate words, their synonyms, and the similarity filter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lit_core.errors import require
from lit_core.seeds import part_seed
from lit_detect.attacks.base import Attack, Attacked, attacked
from lit_detect.attacks.editable_text import STOP_WORDS, EditableText
from lit_detect.attacks.raid import like_case
from lit_detect.language.parts_of_speech import RuleTagger, Tagger, same_part
from lit_detect.language.similarity import Similarity, WordOverlap
from lit_detect.language.synonyms import Synonyms
from lit_detect.language.wordnet import EmbeddedSynonyms

#: Words on each side of a replaced one that its part of speech is determined from, and its similarity.
_TAG_SIDE, _SIMILARITY_SIDE = 4, 7
#: Synonyms that are compared in one batch: in the first one, and at most; the size doubles from batch to batch.
_FIRST, _MOST = 2, 32


class Substitution(Attack):
    """Base class of attacks that replace words by synonyms of the same part of speech in a similar window.

    Args:
        synonyms: Source of the synonyms; None takes EmbeddedSynonyms.
        tagger: Part-of-speech tagger; None takes RuleTagger.
        similarity: Similarity of the window of 15 words before and after; None takes WordOverlap.
        min_similarity: Smallest similarity of the windows, at most 1.
        faithful: Whether texts are divided and windows compared as in the released code of DFTFooler.
    """

    def __init__(
        self,
        synonyms: Synonyms | None,
        tagger: Tagger | None,
        similarity: Similarity | None,
        min_similarity: float,
        faithful: bool,
    ) -> None:
        require(-1 <= min_similarity <= 1, "min_similarity", min_similarity, "from -1 to 1, as a cosine is")
        self.synonyms = EmbeddedSynonyms() if synonyms is None else synonyms
        self.tagger = RuleTagger() if tagger is None else tagger
        self.similarity = WordOverlap() if similarity is None else similarity
        self.min_similarity, self.faithful = min_similarity, faithful

    def document(self, text: str) -> EditableText:
        """Return the words of a text."""
        return EditableText.of_parts(text) if self.faithful else EditableText.of_words(text)

    def replaceable(self, document: EditableText) -> list[int]:
        """Return the indices of the words that have a synonym and are not stop words, in ascending order."""
        words = document.words if self.faithful else [word.lower() for word in document.words]
        return [i for i, word in enumerate(words) if word not in STOP_WORDS and word in self.synonyms]

    def has_choices(self, document: EditableText, index: int) -> bool:
        """Return whether a word has a synonym of any part of speech."""
        word = document.words[index]
        return bool(self.synonyms.candidates(word if self.faithful else word.lower()))

    def choices(self, document: EditableText, index: int) -> list[str]:
        """Return the synonyms that have the word's part of speech, in its letter case, the most similar first."""
        word = document.words[index]
        candidates = [other for other, _ in self.synonyms.candidates(word if self.faithful else word.lower())]
        if not self.faithful:
            candidates = [like_case(other, word) for other in candidates]
        if not candidates:
            return []
        first, last = _tag_window(document, index)
        words = document.words[first:last]
        variants = [[*words[: index - first], other, *words[index - first + 1 :]] for other in candidates]
        if self.faithful:  # the word's own tag is the one that it has in the whole original text
            own = self._original_tags(document)[index]
        else:
            variants.append(words)
        tags = [row[index - first] for row in self.tagger.tag(variants)]
        if not self.faithful:
            own = tags.pop()
        return [other for other, tag in zip(candidates, tags, strict=True) if same_part(own, tag)]

    def _original_tags(self, document: EditableText) -> list[str]:
        if document.tags is None:
            document.tags = self.tagger.tag([document.original])[0]
        return document.tags

    def similar(self, document: EditableText, index: int, choices: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Yield the synonyms, in their order, whose window is similar enough, each with the similarity.

        If ``faithful``, the windows are compared with the current text, so changes add up; otherwise with the original.
        """
        first, last = _similarity_window(len(document.words), index)
        before = document.window(first, last, original=not self.faithful)
        start, size = 0, _FIRST
        while start < len(choices):
            batch = choices[start : start + size]
            start, size = start + size, min(2 * size, _MOST)
            after = [document.window(first, last, {index: other}) for other in batch]
            for other, value in zip(batch, self.similarity(before, after), strict=True):
                if value >= self.min_similarity:
                    yield other, float(value)

    def result(
        self, document: EditableText, text: str, similarities: Sequence[float], queries: int = 0, **meta: Any
    ) -> Attacked:
        """Return the result of the attack, with its thresholds and resources in ``meta``.

        Args:
            document: The attacked words.
            text: The original text.
            similarities: Similarity of the windows at each replacement.
            queries: Number of texts that the detector scored.
            meta: Further entries of the result's ``meta``.
        """
        return attacked(
            text,
            document.edits(),
            queries,
            replacements=len(similarities),
            window_similarity=min(similarities) if similarities else None,
            thresholds={"min_similarity": self.min_similarity, **self.synonyms.thresholds},
            synonyms=self.synonyms.name,
            tagger=self.tagger.name,
            similarity=self.similarity.name,
            faithful=self.faithful,
            **meta,
        )


def _tag_window(document: EditableText, index: int) -> tuple[int, int]:
    length = len(document.words)
    return (max(0, index - _TAG_SIDE), min(length, index + _TAG_SIDE + 1)) if length > 10 else (0, length)


def _similarity_window(length: int, index: int) -> tuple[int, int]:
    """Return first and last, exclusive, of the 15 words around an index; at the ends of a text the window moves in."""
    width = 2 * _SIMILARITY_SIDE + 1
    first = max(0, min(index - _SIMILARITY_SIDE, length - width))
    return first, min(length, first + width)


def substitution_similarities(
    attack: Substitution, texts: Sequence[str], seed: int | None = None, each: int = 20
) -> np.ndarray:
    """Return the window similarities of candidate substitutions in some texts, as input of `calibrate_threshold`.

    Args:
        attack: The attack; its ``min_similarity`` is ignored.
        texts: Texts like those that will be attacked.
        seed: Seed of the sample of words, 0 or more; None takes that of the run.
        each: Most words sampled from each text.

    Returns:
        Similarity of the window before and after each substitution of a sampled word by a synonym of its part of
        speech, float64 of shape ``(substitutions,)``.
    """
    rng, similarities = np.random.default_rng(part_seed(seed)), [np.zeros(0)]
    for text in texts:
        document = attack.document(text)
        indices = np.array(attack.replaceable(document), dtype=np.int64)
        for index in rng.permutation(indices)[:each].tolist():
            choices = attack.choices(document, index)
            first, last = _similarity_window(len(document.words), index)
            after = [document.window(first, last, {index: other}) for other in choices]
            similarities.append(attack.similarity(document.window(first, last), after))
    return np.concatenate(similarities)
