"""DFTFooler as its released code goes about it, written straightforwardly, for the benchmark and the tests.

Each synonym's window goes through the language model alone, each pair of windows through the sentence encoder alone,
and each sentence through the tagger alone; the order of the checks is the published one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_detect.attacks.editable_text import STOP_WORDS
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.synonyms import Synonyms

#: Probability of the first token of each word of a text of words; None of a word that is not read.
Reader = Callable[[list[str]], list[float | None]]


@dataclass
class Published:
    """The released loop.

    Attributes:
        read: The language model.
        synonyms: Word vectors or what stands for them.
        tagger: Parts of speech.
        similar: Similarity of two texts.
        replacements: Most words to replace.
        max_probability: Synonyms must be less likely.
        min_similarity: Smallest similarity of windows of 15 words.
    """

    read: Reader
    synonyms: Synonyms
    tagger: Tagger
    similar: Callable[[str, str], float]
    replacements: int = 10
    max_probability: float = 0.01
    min_similarity: float = 0.7

    def __call__(self, text: str) -> str:
        """Attack a text."""
        original = [part for part in text.split(" ") if part]
        if not original:
            return ""
        words = list(original)
        candidates = [
            (probability, place)
            for place, (word, probability) in enumerate(zip(words, self.read(words), strict=True))
            if probability is not None and word not in STOP_WORDS and word in self.synonyms
        ]
        candidates.sort(key=lambda pair: pair[0], reverse=True)
        done = 0
        for _, place in candidates:
            if done == self.replacements:
                break
            found = [other for other, _ in self.synonyms.candidates(words[place])]
            chosen = self.least_likely(original, words, place, self.alike(words, place, found))
            if chosen:
                words[place] = chosen
                done += 1
        return " ".join(words)

    def alike(self, words: list[str], place: int, found: list[str]) -> list[str]:
        """Return the synonyms that keep the 15 words around alike."""
        half, length = 7, len(words)
        if place >= half and length - place - 1 >= half:
            first, last = place - half, place + half + 1
        elif place < half and length - place - 1 >= half:
            first, last = 0, 15
        elif place >= half:
            first, last = max(0, length - 15), length
        else:
            first, last = 0, length
        kept = []
        for other in found:
            changed = [*words[:place], other, *words[place + 1 :]]
            if self.similar(" ".join(words[first:last]), " ".join(changed[first:last])) >= self.min_similarity:
                kept.append(other)
        return kept

    def least_likely(self, original: list[str], words: list[str], place: int, found: list[str]) -> str:
        """Return the least likely synonym of the right part of speech, or the empty string."""
        own = self.tagger.tag([original])[0][place]
        least, chosen = 10.0, ""
        for other in found:
            changed = [*words[:place], other, *words[place + 1 :]]
            if len(changed) > 10:
                tag = self.tagger.tag([changed[max(place - 4, 0) : place + 5]])[0][min(4, place)]
            else:
                tag = self.tagger.tag([changed])[0][place]
            if tag != own and {tag, own} != {"NOUN", "VERB"}:
                continue
            probability = self.read(changed[max(0, place - 7) : place + 8])[min(place, 7)]
            if probability is not None and probability < self.max_probability and probability < least:
                least, chosen = probability, other
        return chosen


def causal_reader(model: Any, encode: Callable[[str], list[int]], start: int, limit: int = 512) -> Reader:
    """Read texts with a causal model of transformers, one forward pass a text, probabilities rounded to five digits."""

    @torch.no_grad()
    def read(words: list[str]) -> list[float | None]:
        ids = encode(" ".join(words))[:limit]
        logits = model(torch.tensor([[start, *ids]])).logits[0, :-1].float()
        probabilities = logits.softmax(-1)[torch.arange(len(ids)), ids].tolist()
        found = list[float | None]()
        at = 0
        for place, word in enumerate(words):
            size = len(encode(word if place == 0 else f" {word}"))
            found.append(round(probabilities[at], 5) if size and at < len(ids) else None)
            at += size
        return found

    return read


def masked_reader(model: Any, tokenizer: Any, side: int = 20, limit: int = 512) -> Reader:
    """Read texts with a masked model of transformers, each token masked in turn in a padded window."""

    @torch.no_grad()
    def read(words: list[str]) -> list[float | None]:
        ids = tokenizer.encode(" ".join(words), add_special_tokens=False)[:limit]
        row = torch.tensor([[tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]])
        probabilities = [_masked(model, tokenizer, row, place, side) for place in range(len(ids))]
        found = list[float | None]()
        at = 0
        for word in words:
            size = len(tokenizer.encode(word, add_special_tokens=False))
            found.append(probabilities[at] if size and at < len(ids) else None)
            at += size
        return found

    return read


def _masked(model: Any, tokenizer: Any, row: Tensor, place: int, side: int) -> float:
    masked = row.clone()
    masked[0, place + 1] = tokenizer.mask_token_id
    first, last = max(0, place - side), min(row.shape[1] - 1, place + side + 1)
    window = masked[:, first:last]
    missing = 2 * side + 1 - window.shape[1]
    left = side - place if first == 0 else 0
    window = torch.nn.functional.pad(window, (left, missing - left), value=tokenizer.pad_token_id)
    logits = model(input_ids=window).logits[0, side + 1].float()
    return float(logits.softmax(-1)[row[0, place + 1]])
