"""Words that a masked language model would put in a word's place."""

from __future__ import annotations

import torch

from lit_core.errors import UserError
from lit_detect.attacks.base import Attack, Attacked
from lit_detect.attacks.document import STOP_WORDS, Document
from lit_detect.attacks.raid import attacked, checked_fraction
from lit_detect.language.parts_of_speech import RuleTagger, Tagger
from lit_detect.language.word_vectors import WordVectors
from lit_detect.scoring.masked_language_model import MaskedLM

_SIDE, _TAG_SIDE, _CANDIDATES = 20, 4, 20


class MaskedSynonym(Attack):
    """RAID's synonym attack: the likeliest word that a masked model puts in a word's place, if it is near to the word.

    Of the model's 20 likeliest words in the window of 20 words on each side those are left that have the word's part of
    speech, a cosine with the word and a probability of at least the given ones; words with the most probable
    replacement change first. RAID compares fine parts of speech and FastText's vectors; here the parts are universal
    ones, and a word without a vector stays.

    Args:
        masked: The masked language model.
        vectors: Vectors that tell how near words are; null fetches GloVe 6B of 50 dimensions, under which a cosine
            means less than under FastText.
        tagger: What tells the parts of speech; null takes RuleTagger.
        fraction: Share of all words of a text that change, from 0 to 1, as far as there are replacements.
        min_cosine: Smallest cosine of the word and its replacement, from -1 to 1.
        min_probability: Smallest probability of the replacement, from 0 to 1.

    Raises:
        UserError: If a share or threshold is out of range.
    """

    def __init__(
        self,
        masked: MaskedLM,
        vectors: WordVectors | None = None,
        tagger: Tagger | None = None,
        fraction: float = 0.5,
        min_cosine: float = 0.5,
        min_probability: float = 0.0025,
    ) -> None:
        if not -1 <= min_cosine <= 1 or not 0 <= min_probability <= 1:
            raise UserError(
                f"min_cosine is {min_cosine} and min_probability {min_probability}, but they must be from -1 to 1 and "
                "from 0 to 1; set them so."
            )
        self.masked, self.fraction = masked, checked_fraction(fraction)
        self.vectors = WordVectors() if vectors is None else vectors
        self.tagger = RuleTagger() if tagger is None else tagger
        self.min_cosine, self.min_probability = min_cosine, min_probability
        self.name = f"MaskedSynonym[{masked.name}, {self.vectors.name}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; nothing is drawn. See the base class."""
        document = Document.of_words(text)
        places = [i for i, word in enumerate(document.words) if word.isalpha() and word.lower() not in STOP_WORDS]
        found = self._replacements(document, places)
        found.sort(key=lambda choice: -choice[0])
        for _, place, word in found[: int(len(document.words) * self.fraction)]:
            document.words[place] = word
        return attacked(
            text,
            document.edits(),
            thresholds={"min_cosine": self.min_cosine, "min_probability": self.min_probability},
            fraction=self.fraction,
            words=len(document.words),
        )

    def _replacements(self, document: Document, places: list[int]) -> list[tuple[float, int, str]]:
        """Return probability, place and word of the best replacement of each place that has one."""
        rows, masks = [], []
        for place in places:
            row, mask = self._window(document, place)
            rows.append(row)
            masks.append([mask])
        found = []
        for place, log_probs in zip(places, self.masked.log_probs(rows, masks), strict=True):
            values, ids = torch.topk(log_probs[0], min(_CANDIDATES, log_probs.shape[1]))
            words = [self.masked.tokenizer.decode([token]).strip() for token in ids.tolist()]
            passing = self._passing(document, place, words)
            for probability, word in zip(values.exp().tolist(), words, strict=True):
                if word in passing and probability >= self.min_probability:
                    found.append((probability, place, word))
                    break
        return found

    def _window(self, document: Document, place: int) -> tuple[list[int], int]:
        """Return the ids of the window with the word masked, and where the mask is."""
        tokenizer, side = self.masked.tokenizer, (self.masked.max_length - 3) // 2
        first, last = max(0, place - _SIDE), min(len(document.words), place + _SIDE + 1)
        before = document.window(first, place) + document.gaps[place].rstrip(" ") if place > first else ""
        after = document.gaps[place + 1] + document.window(place + 1, last) if place + 1 < last else ""
        left, right = self.masked.encode(before)[-side:], self.masked.encode(after)[:side]
        row = [tokenizer.cls_token_id, *left, tokenizer.mask_token_id, *right, tokenizer.sep_token_id]
        return row, 1 + len(left)

    def _passing(self, document: Document, place: int, words: list[str]) -> set[str]:
        old = document.words[place]
        near = [word for word in words if word.isalpha() and word != old and self._near(old, word)]
        first, last = max(0, place - _TAG_SIDE), min(len(document.words), place + _TAG_SIDE + 1)
        around = document.words[first:last]
        at = place - first
        tags = [row[at] for row in self.tagger.tag([[*around[:at], w, *around[at + 1 :]] for w in [old, *near]])]
        return {word for word, tag in zip(near, tags[1:], strict=True) if tag == tags[0]}

    def _near(self, word: str, other: str) -> bool:
        cosine = self.vectors.cosine(word.lower(), other.lower())
        return cosine is not None and cosine >= self.min_cosine
