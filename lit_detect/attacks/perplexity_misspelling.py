"""Attack that misspells the words that a language model predicts best."""

from __future__ import annotations

from functools import cache

import numpy as np

from lit_core.lm.language_model import LanguageModel
from lit_detect.attacks.base import Attack, Attacked, attacked, checked_fraction
from lit_detect.attacks.causal_scores import CausalScorer
from lit_detect.attacks.editable_text import EditableText
from lit_detect.attacks.raid import like_case
from lit_detect.attacks.word_lists import lines_of

#: Tokens that the language model reads at once.
_TOKENS = 1024


class PerplexityMisspelling(Attack):
    """RAID's misspelling attack: replaces the likeliest words of a text by common misspellings.

    Only words of a shipped list are replaced. If a text has more of them than the fraction allows, the attack takes
    those with the highest log-probability in the text, summed over their tokens.

    Args:
        language_model: Model that gives the probabilities of words.
        fraction: Largest share of the words of a text that are misspelled, from 0 to 1.

    Raises:
        UserError: If the fraction is out of range.
    """

    def __init__(self, language_model: LanguageModel, fraction: float = 0.2) -> None:
        self.language_model, self.fraction = language_model, checked_fraction("fraction", fraction)
        self.name = f"PerplexityMisspelling[{language_model.name}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; see the base class."""
        document, rng, known = EditableText.of_words(text), np.random.default_rng(seed), misspellings()
        indices = [i for i, word in enumerate(document.words) if word.lower() in known]
        count = min(int(len(document.words) * self.fraction), len(indices))
        if 0 < count < len(indices):
            likely = CausalScorer(self.language_model, document, _TOKENS, faithful=False).all_words()
            indices = sorted(sorted(indices, key=lambda i: -likely[i])[:count])  # type: ignore[operator]
        for i in indices[:count]:
            word = document.words[i]
            choices = known[word.lower()]
            document.words[i] = like_case(choices[int(rng.integers(len(choices)))], word)
        return attacked(text, document.edits(), fraction=self.fraction, words=len(document.words))


@cache
def misspellings() -> dict[str, list[str]]:
    """Return the shipped lists of common misspellings, by word."""
    return {word: wrong for word, *wrong in lines_of("misspellings.txt")}
