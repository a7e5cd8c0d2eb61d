"""Statistics of the names of a text with a logistic regression: what FAST looks at, without a network."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.detectors.linear import LinearFeatureDetector
from lit_detect.functional.name_statistics import NameStatistics, name_statistics
from lit_detect.language.entities import Extractor, split_sentences

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_PRONOUNS = frozenset("he him his himself she her hers herself it its itself they them their theirs themselves".split())


class EntityStatistics(LinearFeatureDetector):
    """Classifies a text by twelve statistics of its names (`NameStatistics`), with a logistic regression.

    How many names there are, how often and after how long they come back, how they link the sentences, and how many
    pronouns stand beside them. The baseline that tells what a network on the graph of names adds. Pronouns are English.

    Args:
        max_tokens: Words read of a text, the first ones; 1 or more.
        spacy_model: Name or folder of an installed spaCy pipeline that finds the names; None finds them by rules.
    """

    def __init__(self, max_tokens: int = 512, spacy_model: str | None = None) -> None:
        super().__init__()
        if max_tokens < 1:
            raise UserError(f"max_tokens is {max_tokens}, but must be 1 or more; give the number of words to read.")
        self._extract = Extractor(spacy_model)
        self.name, self.max_tokens = f"EntityStatistics[{self._extract.name}]", max_tokens

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the statistics."""
        return NameStatistics._fields

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return the statistics of texts, float64 ``(n, 12)``."""
        rows = [self.statistics(text) for text in texts]
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(self.feature_names))

    def statistics(self, text: str) -> NameStatistics:
        """Return the statistics of the part of a text that is read."""
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
        """Return the number of words of each text, uncut."""
        return [sum(1 for _ in _WORD.finditer(text)) for text in texts]
