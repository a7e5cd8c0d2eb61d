"""Detector by a fine-tuned sequence encoder, such as BERT-Defense and RoBERTa-Defense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_core.seeds import part_seed
from lit_detect.detectors.base import TrainedDetector
from lit_detect.nn.encoders import load_encoder, renew_last_layers
from lit_detect.records import HUMAN, MACHINE, label_of


class EncoderDetector(TrainedDetector):
    """Classifies a text by a fine-tuned encoder with the sequence-classification head of transformers.

    BERT-Defense of Pu et al. 2023 (after Ippolito et al. 2020) is ``bert-large-cased`` with ``reinit_layers`` 5.
    RoBERTa-Defense (after Solaiman et al. 2019) is ``roberta-base`` with all weights kept. A fine-tuned encoder learns
    the generators, the decoding and the domain of its training set; its scores say little about others.

    Args:
        model: Name of a Hugging Face encoder, a local folder, minilm for the packaged all-MiniLM-L6-v2, or
            scratch-4x128 for 4 layers of width 128 with new weights, for which nothing is fetched.
        max_tokens: Number of tokens to read from the start of a text, special tokens included; 8 or more, at most what
            the encoder takes. None takes that.
        reinit_layers: Number of last layers to initialise newly, together with the pooler; 0 keeps all weights.
        machine_label: Label of the model that means machine, 0 or 1; published detectors have either. None takes what
            the names of the labels in a published detector's config say, and 1 where they do not say it, in which case
            the detector judges only after a training.
        seed: Seed of the newly initialised weights, 0 or more; None takes that of the run.
    """

    def __init__(
        self,
        model: str,
        max_tokens: int | None = 512,
        reinit_layers: int = 0,
        machine_label: Literal[0, 1] | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_at_least(0, reinit_layers=reinit_layers)
        if machine_label not in (0, 1, None):
            raise UserError(f"machine_label is {machine_label}, but must be 0 or 1. Give the label that means machine.")
        seed = part_seed(seed)
        self.network, self.tokenizer, name, is_whole = load_encoder(model, max_tokens, seed, classifies=True)
        is_trained = is_whole and not reinit_layers
        config = self.network.config
        named = _machine_index(config) if is_trained else None
        if None not in (named, machine_label) and named != machine_label:
            raise UserError(
                f"machine_label is {machine_label}, but the labels of {name} are called {_labels(config)}; leave it "
                "out, or correct the names in the model's config."
            )
        machine_label = named if machine_label is None else machine_label
        self.has_trained_weights = is_trained and machine_label is not None
        self._unclear = _labels(config) if is_trained and machine_label is None else ""
        if reinit_layers:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                renew_last_layers(self.network, reinit_layers)
        self.name = f"EncoderDetector[{name}{f', last {reinit_layers} layers renewed' if reinit_layers else ''}]"
        self.max_tokens, self.machine_label = (
            self.tokenizer.max_tokens,
            MACHINE if machine_label is None else machine_label,
        )
        self.special_tokens = self.tokenizer.special_tokens

    def require_fitted(self) -> None:
        """Raise an error if the weights are not trained, or it is not known which label means machine.

        Raises:
            UserError: If it is so.
        """
        if self._unclear and not self.is_fitted:
            raise UserError(
                f"{self.name} has the labels {self._unclear}, which do not say which one means machine; set "
                "machine_label to 0 or 1."
            )
        super().require_fitted()

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the logits of human and machine, ``(n, 2)``; see `TrainedDetector.forward`."""
        tokens = self.tokenizer(texts, next(self.parameters()).device)
        if not len(texts):
            return tokens.ids_BT.new_zeros(0, 2, dtype=torch.float32)
        logits: Tensor = self.network(input_ids=tokens.ids_BT, attention_mask=tokens.mask_BT.long()).logits
        return logits if self.machine_label == 1 else logits.flip(1)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text, without special tokens."""
        return self.tokenizer.count(texts)


def _labels(config: Any) -> str:
    """Return the labels of a model's config with their names, and those that contradict them."""
    names = " and ".join(f"{index} {config.id2label[index]!r}" for index in (0, 1))
    others = config.label2id or {}
    contradicted = any(others.get(config.id2label[index], index) != index for index in (0, 1))
    return f"{names}, but in label2id {others}" if contradicted else names


def _machine_index(config: Any) -> Literal[0, 1] | None:
    """Return which of two labels means machine by their names in a model's config; None where they do not say it."""
    names = [str(config.id2label[index]) for index in (0, 1)]
    if any((config.label2id or {}).get(name, index) != index for index, name in enumerate(names)):
        return None
    meanings = [None if name.strip().isdigit() else label_of(name) for name in names]
    if meanings[0] == meanings[1]:
        return None
    return 0 if meanings[0] == MACHINE or meanings[1] == HUMAN else 1
