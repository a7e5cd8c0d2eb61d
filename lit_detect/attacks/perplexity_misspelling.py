"""Misspellings where a language model least expects them."""

from __future__ import annotations

from functools import cache

import numpy as np

from lit_core.lm.language_model import LanguageModel
from lit_detect.attacks.base import Attack, Attacked
from lit_detect.attacks.causal_scores import CausalScorer
from lit_detect.attacks.document import Document
from lit_detect.attacks.raid import attacked, checked_fraction, like_case
from lit_detect.attacks.word_lists import lines_of

#: Tokens that the language model reads at once.
_TOKENS = 1024


class PerplexityMisspelling(Attack):
    """RAID's misspelling attack: common misspellings of the words that a language model finds the likeliest.

    Words of a shipped list come into question. Where they are more than the share allows, those with the highest
    log-probability in the text are taken, the sum over their tokens.

    Args:
        language_model: What tells how likely words are.
        fraction: Share of all words of a text that are misspelled, from 0 to 1, as far as the list has them.

    Raises:
        UserError: If the fraction is out of range.
    """

    def __init__(self, language_model: LanguageModel, fraction: float = 0.2) -> None:
        self.language_model, self.fraction = language_model, checked_fraction(fraction)
        self.name = f"PerplexityMisspelling[{language_model.name}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; see the base class."""
        document, rng, known = Document.of_words(text), np.random.default_rng(seed), misspellings()
        places = [i for i, word in enumerate(document.words) if word.lower() in known]
        count = min(int(len(document.words) * self.fraction), len(places))
        if 0 < count < len(places):
            likely = CausalScorer(self.language_model, document, _TOKENS, faithful=False).all_words()
            places = sorted(sorted(places, key=lambda place: -likely[place])[:count])  # type: ignore[operator]
        for place in places[:count]:
            word = document.words[place]
            choices = known[word.lower()]
            document.words[place] = like_case(choices[int(rng.integers(len(choices)))], word)
        return attacked(text, document.edits(), fraction=self.fraction, words=len(document.words))


@cache
def misspellings() -> dict[str, list[str]]:
    """Return common misspellings of each word of the list."""
    return {word: found for word, *found in lines_of("misspellings.txt")}
