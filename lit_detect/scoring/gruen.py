"""GRUEN scores of texts, with the language model, classifier and word vectors that they need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch

from lit_core.errors import check_at_least
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.transformers_loading import loading
from lit_detect.functional.gruen import focus, grammaticality, gruen, parts_of, redundancy, word_mover_similarity
from lit_detect.language.entities import split_sentences
from lit_detect.language.word_vectors import WordVectors
from lit_detect.scoring.masked_language_model import MaskedLM

_WORD = re.compile(r"\w+")


class Gruen:
    """Scores the quality of texts from 0 to 1, without a reference; see `lit_detect.functional.gruen`.

    The paper takes ``bert-base-cased`` as language model, the same model fine-tuned on CoLA as classifier, and the
    vectors of spaCy's ``en_core_web_md``. Scores of different models are not comparable.

    Args:
        language_model: Name of a Hugging Face masked language model, or a local folder.
        acceptability: Name or folder of a classifier that was fine-tuned on CoLA, whose second label is acceptable.
        vectors: Word vectors that give the similarity of neighbouring sentences; null omits the penalty for a lack of
            focus.
        batch_size: Sentences per forward pass, 1 or more.

    Raises:
        UserError: If a model cannot be loaded, or the batch size is below 1.
    """

    def __init__(
        self, language_model: str, acceptability: str, vectors: WordVectors | None = None, batch_size: int = 32
    ) -> None:
        check_at_least(1, batch_size=batch_size)
        self.lm = MaskedLM.from_pretrained(language_model)
        self.acceptability, self.vectors, self.batch_size = acceptability, vectors, batch_size
        self.name = f"Gruen[{self.lm.name}, {acceptability.rstrip('/').split('/')[-1]}]"
        _ = self._classifier

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """Return the score of each text, from 0 to 1; a text without a sentence of two words scores 0, as published."""
        parts, owners = list[list[str]](), list[int]()
        for i, text in enumerate(texts):
            sentences = [" ".join(text[start:end].split()) for start, end in split_sentences(text)]
            sentences = [sentence for sentence in sentences if len(_WORD.findall(sentence)) > 1]
            for part in parts_of(sentences) if sentences else []:
                parts.append(part)
                owners.append(i)
        sentences = [sentence for part in parts for sentence in part]
        losses, logits = self._losses(sentences), self._logits(sentences)
        scores: list[list[float]] = [[] for _ in texts]
        start = 0
        for owner, part in zip(owners, parts, strict=True):
            rows = slice(start, start := start + len(part))
            similarities = [] if self.vectors is None else [self._similarity(a, b) for a, b in pairwise(part)]
            scores[owner].append(
                gruen(grammaticality(losses[rows], logits[rows]), redundancy(part), focus(similarities))
            )
        return [sum(own) / len(own) if own else 0.0 for own in scores]

    @torch.no_grad()
    def _losses(self, sentences: Sequence[str]) -> list[float]:
        """Return the mean loss of the unmasked tokens of each sentence, special tokens included, in nats."""
        losses: list[float] = []
        tokenizer, module = self.lm.tokenizer, self.lm.module
        for batch in self._batches(tokenizer, sentences, self.lm.max_length):
            with evaluating(module):
                log_probs = module(**batch).logits.float().log_softmax(-1)
            nll = -log_probs.gather(2, batch["input_ids"][..., None]).squeeze(2).double()
            mask = batch["attention_mask"].double()
            losses += ((nll * mask).sum(1) / mask.sum(1)).tolist()
        return losses

    @torch.no_grad()
    def _logits(self, sentences: Sequence[str]) -> list[float]:
        tokenizer, module = self._classifier
        logits: list[float] = []
        for batch in self._batches(tokenizer, sentences, 128):  # as published
            with evaluating(module):
                logits += module(**batch).logits[:, 1].double().tolist()
        return logits

    def _batches(self, tokenizer: Any, sentences: Sequence[str], limit: int) -> list[Any]:
        most = min(limit, tokenizer.model_max_length)
        batches = [sentences[start : start + self.batch_size] for start in range(0, len(sentences), self.batch_size)]
        return [
            tokenizer(list(batch), padding=True, truncation=True, max_length=most, return_tensors="pt")
            for batch in batches
        ]

    def _similarity(self, a: str, b: str) -> float:
        """Return the similarity of two sentences; 1 if one has no word with a vector."""
        vectors = self.vectors
        assert vectors is not None
        first, second = ([word for word in _WORD.findall(text.lower()) if word in vectors] for text in (a, b))
        if not first or not second:
            return 1.0
        return word_mover_similarity(first, second, lambda x, y: vectors.cosine(x, y) or 0.0)

    @cached_property
    def _classifier(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        remedy = "give a classifier of acceptable sentences by its Hugging Face name or a folder with safetensors"
        with loading(f"`acceptability` is {self.acceptability}", remedy, self.acceptability):
            module, weights = AutoModelForSequenceClassification.from_pretrained(
                self.acceptability, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
            if weights["missing_keys"]:
                raise ValueError("it has no trained classifier")
            if module.config.num_labels != 2:
                raise ValueError(f"it has {module.config.num_labels} labels, not 2")
            return AutoTokenizer.from_pretrained(self.acceptability, trust_remote_code=False), module.eval()
