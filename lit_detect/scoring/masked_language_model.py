"""Wrapper of masked language models of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.transformers_loading import load_whole, loading
from lit_core.origin import keeps_origin


class MaskedLM:
    """A masked language model, such as BERT.

    Args:
        model: The model of transformers, as ``AutoModelForMaskedLM`` loads it.
        tokenizer: The tokenizer of transformers.
        name: Name of the model.

    Attributes:
        name: Name of the model.
        max_length: Longest sequence, in tokens.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, name: str) -> None:
        self.module, self.tokenizer, self.name = model, tokenizer, name
        config: Any = model.config
        # RoBERTa's first position comes after that of the padding.
        offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
        self.max_length = config.max_position_embeddings - offset

    @classmethod
    @keeps_origin
    def from_pretrained(cls, name: str, device: str = "cpu") -> MaskedLM:
        """Load a model by name or from a folder; only safetensors are read, so nothing is unpickled.

        Args:
            name: Name of a Hugging Face model, or a local folder.
            device: Device of the weights.

        Raises:
            UserError: If the model cannot be loaded or is not a masked language model.
        """
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        with loading(
            f"The masked language model is {name}", "give a Hugging Face name or a folder with safetensors", name
        ):
            model = load_whole(AutoModelForMaskedLM, name)
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        if tokenizer.mask_token_id is None:
            raise UserError(f"The tokenizer of {name} has no mask token. Give a masked language model, such as BERT.")
        return cls(model.eval().to(device), tokenizer, name.rstrip("/").split("/")[-1])

    @property
    def device(self) -> torch.device:
        """The device of the network's weights."""
        return next(self.module.parameters()).device

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text without special tokens; those written in the text are read as characters."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    @torch.no_grad()
    def log_probs(
        self, rows: Sequence[list[int]], positions: Sequence[Sequence[int]], batch_size: int = 32
    ) -> list[Tensor]:
        """Return the log-probabilities of all tokens at some positions of each row.

        Args:
            rows: Token ids of each row, with masks and special tokens.
            positions: The positions of each row.
            batch_size: Rows per forward pass, 1 or more.

        Returns:
            For each row a float32 tensor of shape ``(positions, vocabulary)`` on the CPU.
        """
        log_probs: list[Tensor] = []
        pad = self.tokenizer.pad_token_id or 0
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            width = max(map(len, batch))
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in batch], device=self.device)
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=self.device)
            with evaluating(self.module):
                logits = self.module(input_ids=ids, attention_mask=mask).logits
            for i, of_row in enumerate(positions[start : start + batch_size]):
                log_probs.append(logits[i, list(of_row)].float().log_softmax(-1).cpu())
        return log_probs
