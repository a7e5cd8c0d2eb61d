"""Replaces words that a language model expects by synonyms that it does not."""

from __future__ import annotations

import numpy as np

from lit_core.errors import UserError
from lit_core.lm.language_model import LanguageModel
from lit_detect.attacks.base import Attacked
from lit_detect.attacks.causal_scores import CausalScorer
from lit_detect.attacks.document import Document
from lit_detect.attacks.masked_scores import MaskedScorer
from lit_detect.attacks.random_perturbation import checked_replacements
from lit_detect.attacks.substitution import Substitution
from lit_detect.attacks.word_scores import WordScorer
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.similarity import Similarity
from lit_detect.language.synonyms import Synonyms
from lit_detect.scoring.masked_language_model import MaskedLM


class DFTFooler(Substitution):
    """DFTFooler (Pu et al. 2023, arXiv 2210.09421): words that a language model is sure of become unlikely synonyms.

    The attacked detector is never asked, and no surrogate of it is needed. Words are taken by their probability in the
    text, the most likely first. A synonym must have the word's part of speech, a probability below a threshold in the
    window of 7 words on each side, and keep the window of 15 words alike; of those that pass the least likely is taken,
    and where none does, the next word's turn comes.

    ``faithful=True`` does what the released code does: words are what single spaces divide, so that none with a capital
    or with punctuation is ever replaced, and runs of spaces become one; a word's probability is that of its first
    token, which for causal models is rounded to five digits; a text is read up to ``max_tokens``; windows are compared
    with the text as it is by then, so that changes add up; a word's part of speech is told from the whole original
    text, that of a synonym from 4 words on each side; a masked model sees one token of a word masked and the others
    not, padding, and never the end of the text. ``False`` mends all of it: punctuation and capitals are kept and no
    hindrance, a probability is that of the whole word, texts are read to their end, windows are compared with the
    original, and both parts of speech are told from the same window.

    The cheap filters run first, and synonyms are compared from the least likely one on until one passes, which changes
    the order of work and not what is chosen.

    Args:
        language_model: What tells how likely words are: a causal language model, or lit_detect.scoring.MaskedLM.
        synonyms: Where the synonyms come from; null takes EmbeddedSynonyms. Published are the 50 nearest counter-fitted
            vectors with a cosine of 0.7 or more.
        tagger: What tells the parts of speech; null takes RuleTagger.
        similarity: What compares the 15 words around a replaced one; null takes WordOverlap, which is blind to meaning.
        replacements: Most words to replace, 1 or more.
        max_probability: Synonyms must be less likely than this, above 0 to 1.
        min_similarity: Smallest similarity of the 15 words before and after; 0.7 is the published one, which other
            encoders than its own must have calibrated anew.
        max_tokens: Tokens of a text that the language model reads at once, 2 or more.
        faithful: Whether to do what the released code does, with its quirks.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        language_model: LanguageModel | MaskedLM,
        synonyms: Synonyms | None = None,
        tagger: Tagger | None = None,
        similarity: Similarity | None = None,
        replacements: int = 10,
        max_probability: float = 0.01,
        min_similarity: float = 0.7,
        max_tokens: int = 512,
        faithful: bool = False,
    ) -> None:
        super().__init__(synonyms, tagger, similarity, min_similarity, faithful)
        if not 0 < max_probability <= 1 or max_tokens < 2:
            raise UserError(
                f"max_probability is {max_probability} and max_tokens {max_tokens}, but they must be above 0 to 1 and "
                "2 or more; set them so."
            )
        self.language_model, self.max_probability, self.max_tokens = language_model, max_probability, max_tokens
        self.replacements = checked_replacements(replacements)
        self.name = f"DFTFooler[{language_model.name}, {self.synonyms.name}{', faithful' if faithful else ''}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; nothing is drawn. See the base class."""
        document, kept = self.document(text), list[float]()
        queue = self.replaceable(document)
        if queue:
            scorer = self._scorer(document)
            likely = scorer.all_words()
            queue = [place for place in queue if likely[place] is not None]
            queue.sort(key=lambda place: -likely[place])  # type: ignore[operator]
            queue = [place for place in queue if self.has_choices(document, place)]
            for turn, place in enumerate(queue):
                if len(kept) == self.replacements:
                    break
                choices = self.choices(document, place)
                if not choices:
                    continue
                probabilities = scorer.choices(place, choices, queue[turn + 1 :])
                order = np.argsort(probabilities, kind="stable").tolist()
                unlikely = [choices[i] for i in order if probabilities[i] < self.max_probability]
                passing = next(self.similar(document, place, unlikely), None)
                if passing is not None:
                    document.words[place] = passing[0]
                    scorer.replaced(place)
                    kept.append(passing[1])
        return self.result(document, text, kept, max_probability=self.max_probability)

    def _scorer(self, document: Document) -> WordScorer:
        if isinstance(self.language_model, MaskedLM):
            return MaskedScorer(self.language_model, document, self.max_tokens, self.faithful)
        return CausalScorer(self.language_model, document, self.max_tokens, self.faithful)
