"""FAST, a detector that reads the graph of names of a text and the coherence of its sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from lit_core.errors import check_at_least
from lit_core.seeds import part_seed
from lit_detect.detectors.base import TrainedDetector
from lit_detect.functional.graph import EntityGraph, batch_graphs, entity_graph
from lit_detect.language.entities import Extractor, split_sentences
from lit_detect.nn.encoders import load_encoder
from lit_detect.nn.fast import FASTNetwork


class FASTDetector(TrainedDetector):
    """Classifies a text by the graph of its names, the coherence of its sentences and an encoder's document vector.

    FAST (Zhong et al. 2020, arXiv 2010.07475) is the semantic detector that Pu et al. 2023 examined; `FASTNetwork` says
    what differs here. The detector reads at most 150 names in 45 sentences. Like every trained detector it learns the
    generators, the decoding and the domain of its training set. The rules find names by their capitals; other languages
    need a spaCy pipeline.

    Args:
        model: Name of a Hugging Face encoder, a local folder, minilm for the packaged all-MiniLM-L6-v2, or
            scratch-4x128 for 4 layers of width 128 with new weights, for which nothing is fetched.
        max_tokens: Number of tokens to read from the start of a text, special tokens included; 8 or more, at most what
            the encoder takes.
        width: Width of the states of names and sentences, 1 or more.
        spacy_model: Name or folder of an installed spaCy pipeline that finds the names; None finds them by rules.
        seed: Seed of the newly initialised weights, 0 or more; None takes that of the run.

    Attributes:
        document_path: Whether the classification also reads the encoder's vector of the whole text.
    """

    document_path: ClassVar[bool] = True

    def __init__(
        self,
        model: str,
        max_tokens: int = 512,
        width: int = 128,
        spacy_model: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, width=width)
        seed = part_seed(seed)
        self._extract = Extractor(spacy_model)
        self.encoder, self.tokenizer, name, _ = load_encoder(model, max_tokens, seed, classifies=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = FASTNetwork(self.encoder.config.hidden_size, width, self.document_path)  # type: ignore[union-attr, arg-type]
        self.name, self.max_tokens = f"{type(self).__name__}[{name}]", max_tokens
        self.special_tokens = self.tokenizer.special_tokens

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the logits of human and machine, ``(n, 2)``; see `TrainedDetector.forward`."""
        tokens = self.tokenizer(texts, next(self.parameters()).device)
        if not len(texts):
            return tokens.ids_BT.new_zeros(0, 2, dtype=torch.float32)
        words_BTD = self.encoder(input_ids=tokens.ids_BT, attention_mask=tokens.mask_BT.long()).last_hidden_state
        graphs = [self.graph(text, offsets_T2) for text, offsets_T2 in zip(texts, tokens.offsets_BT2, strict=True)]
        logits: Tensor = self.network(words_BTD, batch_graphs(graphs).to(words_BTD))
        return logits

    def graph(self, text: str, offsets_T2: Tensor) -> EntityGraph:
        """Return the graph of the names in the part of a text that the encoder reads.

        Args:
            text: The text.
            offsets_T2: Start and end of each token that the encoder reads, in characters, ``(tokens, 2)``.
        """
        read = text[: int(offsets_T2.max())]
        return entity_graph(self._extract(read), split_sentences(read), offsets_T2)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text, without special tokens."""
        return self.tokenizer.count(texts)
