"""Attack that queries the detector to find important words and misleading synonyms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lit_core.errors import check_at_least, check_finite_numbers
from lit_detect.attacks.base import Attacked
from lit_detect.attacks.editable_text import EditableText
from lit_detect.attacks.substitution import Substitution
from lit_detect.detectors.base import Detector
from lit_detect.judging import Judge
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.similarity import Similarity
from lit_detect.language.synonyms import Synonyms


class TextFooler(Substitution):
    """TextFooler (Jin et al. 2020, arXiv 1907.11932): replaces the words that matter most until the detector errs.

    1. Score the text. If the score is below ``threshold``, the attack ends.
    2. Sort the words by importance, which is how far the score falls if the word is deleted.
    3. For the next word, take its synonyms of the same part of speech whose window of 15 words is similar enough, and
       score the text with each.
    4. If some scores are below ``threshold``, take the one of these synonyms with the most similar window, and end.
       Otherwise take the synonym that lowers the score most, if one lowers it, and go to 3.

    The score of a text that is longer than what the detector reads at once is the largest of its windows, each of which
    takes as long as a shorter text. Every scored text is a query, including the original. At ``max_queries`` the attack
    ends with the current text.

    The release takes the 50 nearest counter-fitted vectors with a cosine of 0.5 or more, though its paper says 0.7.

    Args:
        detector: The attacked detector, of which only the scores are used.
        synonyms: Source of the synonyms; null takes EmbeddedSynonyms.
        tagger: Part-of-speech tagger; null takes RuleTagger.
        similarity: Similarity of the 15 words around a replaced word, before and after; null takes WordOverlap, which
            ignores meaning.
        threshold: Score from which the detector decides machine; a text that scores less is not attacked.
        max_queries: Most texts that the detector scores for one text to attack, 1 or more.
        min_similarity: Smallest similarity of the 15 words before and after. 0.5 is the release's value for its
            encoder; calibrate it again for another one.
        batch_size: Texts that the detector scores at once, 1 or more.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        detector: Detector,
        synonyms: Synonyms | None = None,
        tagger: Tagger | None = None,
        similarity: Similarity | None = None,
        threshold: float = 0.0,
        max_queries: int = 500,
        min_similarity: float = 0.5,
        batch_size: int = 32,
    ) -> None:
        super().__init__(synonyms, tagger, similarity, min_similarity, faithful=False)
        check_at_least(1, max_queries=max_queries, batch_size=batch_size)
        check_finite_numbers(threshold=threshold)
        detector.require_fitted()
        self.detector, self.threshold = detector, threshold
        self.max_queries, self.batch_size = max_queries, batch_size
        self.name = f"TextFooler[{detector.name}, {self.synonyms.name}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; the attack is deterministic and ignores the seed. See the base class."""
        document, similarities = self.document(text), list[float]()
        budget = _QueryBudget(self.detector, self.max_queries, self.batch_size)
        before = score = float(budget.score([text])[0])
        if score >= self.threshold:
            for index in self._by_importance(document, score, budget):
                passing = list(self.similar(document, index, self.choices(document, index)))
                scores = budget.score([_whole(document, {index: word}) for word, _ in passing])
                passing = passing[: len(scores)]
                if not passing:
                    if not budget.left:
                        break
                    continue
                misleading = [i for i, value in enumerate(scores) if value < self.threshold]
                best = max(misleading, key=lambda i: passing[i][1]) if misleading else int(np.argmin(scores))
                if scores[best] < score:
                    document.words[index] = passing[best][0]
                    similarities.append(passing[best][1])
                    score = float(scores[best])
                if score < self.threshold:
                    break
        return self.result(
            document,
            text,
            similarities,
            budget.queries,
            threshold=self.threshold,
            max_queries=self.max_queries,
            score_before=before,
            score_after=score,
        )

    def _by_importance(self, document: EditableText, score: float, budget: _QueryBudget) -> list[int]:
        """Return the indices of words with synonyms, sorted by how far the score falls without the word.

        Words that the budget does not suffice to score are left out.
        """
        indices = [index for index in self.replaceable(document) if self.has_choices(document, index)]
        scores = budget.score([_whole(document, {index: ""}) for index in indices])
        order = np.argsort(scores - score, kind="stable")
        return [indices[i] for i in order.tolist()]


class _QueryBudget:
    """Scores texts with a detector until a largest number of queries is reached."""

    def __init__(self, detector: Detector, most: int, batch_size: int) -> None:
        self._judge, self._batch_size = Judge(detector), batch_size
        self.left, self.queries = most, 0

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of the texts, or of as many first ones as the budget allows, float64."""
        texts = texts[: self.left]
        self.left -= len(texts)
        self.queries += len(texts)
        parts = [
            self._judge.scores(texts[i : i + self._batch_size], self._batch_size).numpy()
            for i in range(0, len(texts), self._batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)


def _whole(document: EditableText, replaced: dict[int, str]) -> str:
    """Return the whole text with some words replaced."""
    length = len(document.words)
    return document.gaps[0] + document.window(0, length, replaced) + document.gaps[length]
