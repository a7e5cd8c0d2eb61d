"""Detector by statistics of the names in a text: the information that FAST reads, without a network."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_core.errors import check_at_least
from lit_detect.detectors.linear import LinearFeatureDetector
from lit_detect.functional.name_statistics import NameStatistics, name_statistics
from lit_detect.language.entities import Extractor, split_sentences

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_PRONOUNS = frozenset("he him his himself she her hers herself it its itself they them their theirs themselves".split())


class EntityStatistics(LinearFeatureDetector):
    """Classifies a text by a logistic regression on twelve statistics of its names, `NameStatistics`.

    The statistics tell how many names there are, how often and at what distance they are repeated, how they link the
    sentences, and how many pronouns there are besides. The detector is the baseline for networks on the graph of names.
    Pronouns are counted in English only.

    Args:
        max_tokens: Number of words to read from the start of a text, 1 or more.
        spacy_model: Name or folder of an installed spaCy pipeline that finds the names; None finds them by rules.
    """

    def __init__(self, max_tokens: int = 512, spacy_model: str | None = None) -> None:
        super().__init__()
        check_at_least(1, max_tokens=max_tokens)
        self._extract = Extractor(spacy_model)
        self.name, self.max_tokens = f"EntityStatistics[{self._extract.name}]", max_tokens

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the statistics."""
        return NameStatistics._fields

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return the statistics of each text, float64 of shape ``(n, 12)``."""
        rows = [self.statistics(text) for text in texts]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(self.feature_names))

    def statistics(self, text: str) -> NameStatistics:
        """Return the statistics of the first ``max_tokens`` words of a text."""
        words = list(_WORD.finditer(text))
        assert self.max_tokens is not None
        if len(words) > self.max_tokens:
            text, words = text[: words[self.max_tokens].start()], words[: self.max_tokens]
        return name_statistics(
            [(mention.sentence, " ".join(mention.text.split())) for mention in self._extract(text)],
            sentences=len(split_sentences(text)),
            words=len(words),
            pronouns=sum(word[0].lower() in _PRONOUNS for word in words),
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of words of each whole text."""
        return [sum(1 for _ in _WORD.finditer(text)) for text in texts]
