"""Masked language models of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.transformers_loading import loading


class MaskedLM:
    """A masked language model, such as BERT.

    Args:
        model: The model, for example of ``AutoModelForMaskedLM``.
        tokenizer: Its tokenizer of transformers.
        name: Its name.

    Attributes:
        name: Its name.
        max_length: Longest sequence in tokens.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, name: str) -> None:
        self.module, self.tokenizer, self.name = model, tokenizer, name
        config: Any = model.config
        # RoBERTa counts positions from behind the one of padding.
        offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        self.max_length = config.max_position_embeddings - offset

    @classmethod
    def from_pretrained(cls, name: str, device: str = "cpu") -> MaskedLM:
        """Load a model by name or from a folder; only safetensors, so that nothing is unpickled.

        Args:
            name: Name of a Hugging Face model, or a local folder.
            device: Where to put the weights.

        Raises:
            UserError: If there is no such masked language model.
        """
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        with loading(f"The masked language model is {name}", "give a Hugging Face name or a folder with safetensors"):
            model = AutoModelForMaskedLM.from_pretrained(name, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(name)
        if tokenizer.mask_token_id is None:
            raise UserError(f"The tokenizer of {name} has no mask token; give a masked language model, such as BERT.")
        return cls(model.eval().to(device), tokenizer, name.rstrip("/").split("/")[-1])

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return next(self.module.parameters()).device

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; a special token that is written in it is read as its letters."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    @torch.no_grad()
    def log_probs(
        self, rows: Sequence[list[int]], places: Sequence[Sequence[int]], batch_size: int = 32
    ) -> list[Tensor]:
        """Return what the model expects at some places of each row.

        Args:
            rows: Ids of each row, masks and special tokens among them.
            places: The places of each row.
            batch_size: Rows at once, 1 or more; rows are padded to the longest of a batch.

        Returns:
            Log-probabilities of each row, ``(places, vocabulary)`` in float32 on the CPU.
        """
        found: list[Tensor] = []
        pad = self.tokenizer.pad_token_id or 0
        for start in range(0, len(rows), batch_size):
            some = rows[start : start + batch_size]
            width = max(map(len, some))
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in some], device=self.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in some], device=self.device)
            with evaluating(self.module):
                logits = self.module(input_ids=ids, attention_mask=mask).logits
            for i, wanted in enumerate(places[start : start + batch_size]):
                found.append(logits[i, list(wanted)].float().log_softmax(-1).cpu())
        return found
