"""Replaces random words: what is left of DFTFooler without its language model."""

from __future__ import annotations

import numpy as np

from lit_core.errors import UserError
from lit_detect.attacks.base import Attacked
from lit_detect.attacks.substitution import Substitution
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.similarity import Similarity
from lit_detect.language.synonyms import Synonyms


class RandomPerturbation(Substitution):
    """The baseline of DFTFooler (Pu et al. 2023, arXiv 2210.09421): random words, the most similar synonym of each.

    The same words come into question and synonyms pass the same filters as in DFTFooler, but words are taken in random
    order, and of a word's synonyms the first that passes; no language model is asked.

    Args:
        synonyms: Where the synonyms come from; null takes EmbeddedSynonyms.
        tagger: What tells the parts of speech; null takes RuleTagger.
        similarity: What compares the 15 words around a replaced one; null takes WordOverlap, which is blind to meaning.
        replacements: Most words to replace, 1 or more.
        min_similarity: Smallest similarity of the 15 words before and after; 0.7 is the published one, which other
            encoders than its own must have calibrated anew.
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
        places = np.array(self.replaceable(document), dtype=np.int64)
        kept: list[float] = []
        for place in np.random.default_rng(seed).permutation(places).tolist():
            if len(kept) == self.replacements:
                break
            passing = next(self.similar(document, place, self.choices(document, place)), None)
            if passing is not None:
                document.words[place] = passing[0]
                kept.append(passing[1])
        return self.result(document, text, kept)


def checked_replacements(replacements: int) -> int:
    """Return a number of replacements, or refuse it.

    Raises:
        UserError: If it is below 1.
    """
    if replacements < 1:
        raise UserError(f"replacements is {replacements}, but must be 1 or more; set it so.")
    return replacements
