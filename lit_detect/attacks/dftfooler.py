"""Attack that replaces words that a language model predicts well by synonyms that it does not expect."""

from __future__ import annotations

import numpy as np

from lit_core.errors import check_at_least, require
from lit_core.lm.language_model import LanguageModel
from lit_detect.attacks.base import Attacked
from lit_detect.attacks.causal_scores import CausalScorer
from lit_detect.attacks.editable_text import EditableText
from lit_detect.attacks.masked_scores import MaskedScorer
from lit_detect.attacks.random_perturbation import checked_replacements
from lit_detect.attacks.substitution import Substitution
from lit_detect.attacks.word_scores import WordScorer
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.similarity import Similarity
from lit_detect.language.synonyms import Synonyms
from lit_detect.scoring.masked_language_model import MaskedLM


class DFTFooler(Substitution):
    """DFTFooler (Pu et al. 2023, arXiv 2210.09421): replaces well-predicted words by unlikely synonyms.

    The attack queries a language model, but neither the attacked detector nor a surrogate of it:

    1. Sort the words of the text by their probability under the language model, the most likely first.
    2. For the next word, take its synonyms of the same part of speech.
    3. Keep the synonyms whose probability, given 7 words on each side, is below ``max_probability``.
    4. Keep those for which the window of 15 words around the word has a similarity of at least ``min_similarity``.
    5. Replace the word by the least likely remaining synonym. If none remains, the word stays.
    6. Repeat from 2 until ``replacements`` words are replaced or no word is left.

    The synonyms are compared in step 4 from the least likely one on, and only until one passes. This saves time and
    does not change the result.

    ``faithful=True`` follows the released code. Words are the parts between single spaces, so a word with a capital or
    with punctuation is never replaced, and runs of spaces become one. A word's probability is that of its first token,
    for causal models rounded to five digits. Only the first ``max_tokens`` of a text are read. Windows are compared
    with the text as already changed, so changes add up. A word's part of speech is determined in the whole original
    text, and that of a synonym from 4 words on each side. A masked model sees one token of a word masked and the others
    unmasked, sees padding as text, and never sees the end of the text.

    ``faithful=False`` corrects all of this. Capitals and punctuation are kept and do not prevent a replacement. A
    probability is that of the whole word. Texts are read to their end. Windows are compared with the original text, and
    both parts of speech are determined from the same window.

    Args:
        language_model: Model that gives the probabilities of words: a causal language model, or
            lit_detect.scoring.MaskedLM.
        synonyms: Source of the synonyms; null takes EmbeddedSynonyms. The paper takes the 50 nearest counter-fitted
            vectors with a cosine of 0.7 or more.
        tagger: Part-of-speech tagger; null takes RuleTagger.
        similarity: Similarity of the 15 words around a replaced word, before and after; null takes WordOverlap, which
            ignores meaning.
        replacements: Most words to replace in a text, 1 or more.
        max_probability: Probability that a synonym must stay below, above 0 to 1.
        min_similarity: Smallest similarity of the 15 words before and after. 0.7 is the published value for the
            published encoder; calibrate it again for another one.
        max_tokens: Most tokens of a text that the language model reads at once, 2 or more.
        faithful: Whether to follow the released code, including its quirks.

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
        require(0 < max_probability <= 1, "max_probability", max_probability, "above 0 and at most 1")
        check_at_least(2, max_tokens=max_tokens)
        self.language_model, self.max_probability, self.max_tokens = language_model, max_probability, max_tokens
        self.replacements = checked_replacements(replacements)
        self.name = f"DFTFooler[{language_model.name}, {self.synonyms.name}{', faithful' if faithful else ''}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; the attack is deterministic and ignores the seed. See the base class."""
        document, similarities = self.document(text), list[float]()
        queue = self.replaceable(document)
        if queue:
            scorer = self._scorer(document)
            likely = scorer.all_words()
            queue = [index for index in queue if likely[index] is not None]
            queue.sort(key=lambda index: -likely[index])  # type: ignore[operator]
            queue = [index for index in queue if self.has_choices(document, index)]
            for turn, index in enumerate(queue):
                if len(similarities) == self.replacements:
                    break
                choices = self.choices(document, index)
                if not choices:
                    continue
                probabilities = scorer.choices(index, choices, queue[turn + 1 :])
                order = np.argsort(probabilities, kind="stable").tolist()
                unlikely = [choices[i] for i in order if probabilities[i] < self.max_probability]
                passing = next(self.similar(document, index, unlikely), None)
                if passing is not None:
                    document.words[index] = passing[0]
                    scorer.replaced(index)
                    similarities.append(passing[1])
        return self.result(document, text, similarities, max_probability=self.max_probability)

    def _scorer(self, document: EditableText) -> WordScorer:
        if isinstance(self.language_model, MaskedLM):
            return MaskedScorer(self.language_model, document, self.max_tokens, self.faithful)
        return CausalScorer(self.language_model, document, self.max_tokens, self.faithful)
