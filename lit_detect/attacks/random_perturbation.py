"""Attack that replaces random words by synonyms: the baseline of DFTFooler, without its language model."""

from __future__ import annotations

import numpy as np

from lit_core.errors import check_at_least
from lit_detect.attacks.base import Attacked
from lit_detect.attacks.substitution import Substitution
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.similarity import Similarity
from lit_detect.language.synonyms import Synonyms


class RandomPerturbation(Substitution):
    """Baseline of DFTFooler (Pu et al. 2023, arXiv 2210.09421): replaces random words by their most similar synonyms.

    The words and synonyms pass the same filters as in DFTFooler. The words are taken in random order, and each is
    replaced by the first of its synonyms that passes. The attack uses no language model.

    Args:
        synonyms: Source of the synonyms; null takes EmbeddedSynonyms.
        tagger: Part-of-speech tagger; null takes RuleTagger.
        similarity: Similarity of the 15 words around a replaced word, before and after; null takes WordOverlap, which
            ignores meaning.
        replacements: Most words to replace in a text, 1 or more.
        min_similarity: Smallest similarity of the 15 words before and after. 0.7 is the published value for the
            published encoder; calibrate it again for another one.
        faithful: Whether words and windows are those of the released code, in which a word with a capital or with
            punctuation is never replaced.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        synonyms: Synonyms | None = None,
        tagger: Tagger | None = None,
        similarity: Similarity | None = None,
        replacements: int = 10,
        min_similarity: float = 0.7,
        faithful: bool = False,
    ) -> None:
        super().__init__(synonyms, tagger, similarity, min_similarity, faithful)
        self.replacements = checked_replacements(replacements)
        self.name = f"RandomPerturbation[{self.synonyms.name}{', faithful' if faithful else ''}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; see the base class."""
        document = self.document(text)
        indices = np.array(self.replaceable(document), dtype=np.int64)
        similarities: list[float] = []
        for index in np.random.default_rng(seed).permutation(indices).tolist():
            if len(similarities) == self.replacements:
                break
            passing = next(self.similar(document, index, self.choices(document, index)), None)
            if passing is not None:
                document.words[index] = passing[0]
                similarities.append(passing[1])
        return self.result(document, text, similarities)


def checked_replacements(replacements: int) -> int:
    """Return the number of replacements if it is valid.

    Raises:
        UserError: If it is below 1.
    """
    check_at_least(1, replacements=replacements)
    return replacements
