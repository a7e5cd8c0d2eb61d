"""Asks the detector which words matter and which synonyms mislead it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lit_core.errors import UserError
from lit_detect.attacks.base import Attacked
from lit_detect.attacks.document import Document
from lit_detect.attacks.substitution import Substitution
from lit_detect.detectors.base import Detector
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.similarity import Similarity
from lit_detect.language.synonyms import Synonyms


class TextFooler(Substitution):
    """TextFooler (Jin et al. 2020, arXiv 1907.11932): words by their importance to the detector, until it is misled.

    A word's importance is how far the score falls without it. From the most important on, each word becomes the synonym
    that lowers the score most, or, as soon as some bring it below the threshold, that of them whose window is most
    alike, and the attack ends. Each scored text is a query, the original among them; at the cap the attack ends with
    what it has.

    The release takes the 50 nearest counter-fitted vectors with a cosine of 0.5 or more, though its paper says 0.7.

    Args:
        detector: The detector that is attacked; only its scores are looked at.
        synonyms: Where the synonyms come from; null takes EmbeddedSynonyms.
        tagger: What tells the parts of speech; null takes RuleTagger.
        similarity: What compares the 15 words around a replaced one; null takes WordOverlap, which is blind to meaning.
        threshold: Score from which on the detector says machine; a text below it already is not attacked.
        max_queries: Most texts that the detector scores for one document, 1 or more.
        min_similarity: Smallest similarity of the 15 words before and after; 0.5 is the release's, which other encoders
            than its own must have calibrated anew.
        batch_size: Texts handed to the detector at once, 1 or more.

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
        if max_queries < 1 or batch_size < 1:
            raise UserError(
                f"max_queries is {max_queries} and batch_size {batch_size}, but both must be 1 or more; set them so."
            )
        self.detector, self.threshold = detector, threshold
        self.max_queries, self.batch_size = max_queries, batch_size
        self.name = f"TextFooler[{detector.name}, {self.synonyms.name}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; nothing is drawn. See the base class."""
        document, kept = self.document(text), list[float]()
        asked = _Asked(self.detector, self.max_queries, self.batch_size)
        before = score = float(asked([text])[0])
        if score >= self.threshold:
            for place in self._by_importance(document, score, asked):
                passing = list(self.similar(document, place, self.choices(document, place)))
                scores = asked([_whole(document, {place: word}) for word, _ in passing])
                passing = passing[: len(scores)]
                if not passing:
                    if not asked.left:
                        break
                    continue
                misleading = [i for i, value in enumerate(scores) if value < self.threshold]
                best = max(misleading, key=lambda i: passing[i][1]) if misleading else int(np.argmin(scores))
                if scores[best] < score:
                    document.words[place] = passing[best][0]
                    kept.append(passing[best][1])
                    score = float(scores[best])
                if score < self.threshold:
                    break
        return self.result(
            document,
            text,
            kept,
            asked.queries,
            threshold=self.threshold,
            max_queries=self.max_queries,
            score_before=before,
            score_after=score,
        )

    def _by_importance(self, document: Document, score: float, asked: _Asked) -> list[int]:
        """Return the words that have synonyms, by how far the score falls without them; at the cap only those asked."""
        places = [place for place in self.replaceable(document) if self.has_choices(document, place)]
        scores = asked([_whole(document, {place: ""}) for place in places])
        order = np.argsort(scores - score, kind="stable")
        return [places[i] for i in order.tolist()]


class _Asked:
    """Scores texts and counts them, as many as the cap allows."""

    def __init__(self, detector: Detector, most: int, batch_size: int) -> None:
        self._detector, self._batch_size = detector, batch_size
        self.left, self.queries = most, 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the scores of the texts, or of the first ones where the cap is reached, float64."""
        texts = texts[: self.left]
        self.left -= len(texts)
        self.queries += len(texts)
        parts = [
            self._detector.score(texts[i : i + self._batch_size]).numpy()
            for i in range(0, len(texts), self._batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)


def _whole(document: Document, replaced: dict[int, str]) -> str:
    length = len(document.words)
    return document.gaps[0] + document.window(0, length, replaced) + document.gaps[length]
