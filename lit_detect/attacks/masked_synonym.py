"""Attack that replaces words by the predictions of a masked language model."""

from __future__ import annotations

import torch

from lit_core.errors import check_shares, require
from lit_detect.attacks.base import Attack, Attacked, attacked, checked_fraction
from lit_detect.attacks.editable_text import STOP_WORDS, EditableText
from lit_detect.language.parts_of_speech import RuleTagger, Tagger
from lit_detect.language.word_vectors import WordVectors
from lit_detect.scoring.masked_language_model import MaskedLM

_SIDE, _TAG_SIDE, _CANDIDATES = 20, 4, 20


class MaskedSynonym(Attack):
    """RAID's synonym attack: replaces words by the likeliest similar word that a masked language model predicts.

    The candidates for a word are the model's 20 likeliest words, given 20 words on each side. The best candidate is the
    likeliest one that has the word's part of speech, and at least ``min_cosine`` and ``min_probability``. The words
    with the likeliest best candidates are replaced first. RAID compares fine-grained parts of speech and FastText
    vectors; here parts of speech are universal tags, and words without a vector are not replaced.

    Args:
        masked: The masked language model.
        vectors: Word vectors that give the similarity of words; null fetches GloVe 6B of 50 dimensions, whose cosines
            say less than those of FastText.
        tagger: Part-of-speech tagger; null takes RuleTagger.
        fraction: Largest share of the words of a text that are replaced, from 0 to 1.
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
        require(-1 <= min_cosine <= 1, "min_cosine", min_cosine, "from -1 to 1")
        check_shares(min_probability=min_probability)
        self.masked, self.fraction = masked, checked_fraction("fraction", fraction)
        self.vectors = WordVectors() if vectors is None else vectors
        self.tagger = RuleTagger() if tagger is None else tagger
        self.min_cosine, self.min_probability = min_cosine, min_probability
        self.name = f"MaskedSynonym[{masked.name}, {self.vectors.name}]"

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; the attack is deterministic and ignores the seed. See the base class."""
        document = EditableText.of_words(text)
        indices = [i for i, word in enumerate(document.words) if word.isalpha() and word.lower() not in STOP_WORDS]
        replacements = self._replacements(document, indices)
        replacements.sort(key=lambda replacement: -replacement[0])
        for _, index, word in replacements[: int(len(document.words) * self.fraction)]:
            document.words[index] = word
        return attacked(
            text,
            document.edits(),
            thresholds={"min_cosine": self.min_cosine, "min_probability": self.min_probability},
            fraction=self.fraction,
            words=len(document.words),
        )

    def _replacements(self, document: EditableText, indices: list[int]) -> list[tuple[float, int, str]]:
        """Return probability, word index and word of the best replacement of each word that has one."""
        rows, masks = [], []
        for index in indices:
            row, mask = self._window(document, index)
            rows.append(row)
            masks.append([mask])
        replacements = []
        for index, log_probs in zip(indices, self.masked.log_probs(rows, masks), strict=True):
            values, ids = torch.topk(log_probs[0], min(_CANDIDATES, log_probs.shape[1]))
            words = [self.masked.tokenizer.decode([token]).strip() for token in ids.tolist()]
            passing = self._passing(document, index, words)
            for probability, word in zip(values.exp().tolist(), words, strict=True):
                if word in passing and probability >= self.min_probability:
                    replacements.append((probability, index, word))
                    break
        return replacements

    def _window(self, document: EditableText, index: int) -> tuple[list[int], int]:
        """Return the token ids of the window with the word masked, and the position of the mask."""
        tokenizer, side = self.masked.tokenizer, (self.masked.max_length - 3) // 2
        first, last = max(0, index - _SIDE), min(len(document.words), index + _SIDE + 1)
        before = document.window(first, index) + document.gaps[index].rstrip(" ") if index > first else ""
        after = document.gaps[index + 1] + document.window(index + 1, last) if index + 1 < last else ""
        left, right = self.masked.encode(before)[-side:], self.masked.encode(after)[:side]
        row = [tokenizer.cls_token_id, *left, tokenizer.mask_token_id, *right, tokenizer.sep_token_id]
        return row, 1 + len(left)

    def _passing(self, document: EditableText, index: int, words: list[str]) -> set[str]:
        """Return those of ``words`` that are similar to the word at ``index`` and have its part of speech."""
        old = document.words[index]
        near = [word for word in words if word.isalpha() and word != old and self._near(old, word)]
        first, last = max(0, index - _TAG_SIDE), min(len(document.words), index + _TAG_SIDE + 1)
        window, position = document.words[first:last], index - first
        variants = [[*window[:position], word, *window[position + 1 :]] for word in (old, *near)]
        tags = [row[position] for row in self.tagger.tag(variants)]
        return {word for word, tag in zip(near, tags[1:], strict=True) if tag == tags[0]}

    def _near(self, word: str, other: str) -> bool:
        cosine = self.vectors.cosine(word.lower(), other.lower())
        return cosine is not None and cosine >= self.min_cosine
