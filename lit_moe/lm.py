"""A decoder with its tokenizer as a `LanguageModel`, and the models of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lm.language_model import HuggingFaceLM, LanguageModel
from lit_core.lm.tokenizer import Tokenizer
from lit_core.origin import keeps_origin
from lit_moe.module import MoELanguageModel
from lit_moe.nn import Decoder, HFDecoder, KVCache


class DecoderLM(LanguageModel):
    """A decoder with its tokenizer.

    Args:
        decoder: The network.
        tokenizer: Its tokenizer, with no more token ids than the network has.
    """

    name = "DecoderLM"

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer) -> None:
        self.module: Decoder = decoder
        self.tokenizer = tokenizer
        self.max_length = decoder.config.max_seq_len

    @classmethod
    @keeps_origin
    def from_checkpoint(cls, path: str | Path, device: str = "cpu") -> LanguageModel:
        """Return the model of a ``lit-moe fit`` checkpoint, in evaluation mode; a `HuggingFaceLM` for an `HFDecoder`.

        Args:
            path: The checkpoint file.
            device: Device of the weights.

        Raises:
            UserError: If the file is not a checkpoint of a ``lit-moe`` language model with a tokenizer.
        """
        return load_language_model(path, device, "path of the language model")

    def new_cache(self) -> KVCache:
        """Return an empty cache."""
        return KVCache()

    def keep_rows(self, cache: KVCache, rows: Sequence[int]) -> KVCache:
        """Remove all other rows from the cache, in place, and return it; see the base class."""
        cache.keep_rows(rows)
        return cache

    def logits(
        self, ids_BS: Tensor, cache: Any = None, *, mask: Tensor | None = None, last_only: bool = False
    ) -> tuple[Tensor, Any]:
        """Return the logits of the next token after each token; see the base class."""
        hidden_BSD = self.module.hidden(ids_BS, mask=mask, cache=cache)
        return self.module.head(hidden_BSD[:, -1:] if last_only else hidden_BSD), cache

    def hidden(self, ids_BS: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the normalised hidden states; see the base class."""
        return self.module.hidden(ids_BS, mask=mask)

    def head(self, hidden: Tensor) -> Tensor:
        """Return the logits of hidden states; see the base class."""
        return self.module.head(hidden)


def language_model(decoder: Decoder | HFDecoder, tokenizer: Tokenizer) -> LanguageModel:
    """Return a decoder with its tokenizer as a language model.

    Args:
        decoder: The network.
        tokenizer: Its tokenizer.
    """
    if isinstance(decoder, HFDecoder):
        return HuggingFaceLM(decoder.model, tokenizer, call=decoder.call)
    return DecoderLM(decoder, tokenizer)


def load_language_model(path: str | Path, device: str = "cpu", argument: str = "--ckpt_path") -> LanguageModel:
    """Return the model of a ``lit-moe fit`` checkpoint as `DecoderLM.from_checkpoint` does.

    Args:
        path: The checkpoint file.
        device: Device of the weights.
        argument: Name of the argument that gave the path, for messages.

    Raises:
        UserError: If the file is not a checkpoint of a ``lit-moe`` language model with a tokenizer.
    """
    model, checkpoint = load_module(path, device, argument)
    if "tokenizer" not in checkpoint:
        raise UserError(f"{argument} is {path}, which holds no tokenizer; give a checkpoint of lit-moe fit.")
    stored = checkpoint["tokenizer"]  # without start where documents began without
    return language_model(model.decoder.eval(), Tokenizer.from_json(stored["json"], stored.get("start", ())))


def load_module(
    path: str | Path, device: str = "cpu", argument: str = "--ckpt_path"
) -> tuple[MoELanguageModel, dict[str, Any]]:
    """Return the LightningModule of a checkpoint, with its weights.

    Args:
        path: The checkpoint file.
        device: Device of the weights; meta builds the module without reading them.
        argument: Name of the argument that gave the path, for messages.

    Returns:
        The module, and the checkpoint's content, whose tensors are memory-mapped from the file.

    Raises:
        UserError: If the file is not a checkpoint of a ``lit-moe`` language model.
    """
    checkpoint = load_checkpoint_file(path, argument)
    if "hyper_parameters" not in checkpoint:
        raise UserError(
            f"{argument} is {path}, which holds no description of the model; give a checkpoint of lit-moe fit."
        )
    try:
        with torch.device("meta" if device == "meta" else "cpu"):
            model = MoELanguageModel.load_from_checkpoint(path, map_location=device, weights_only=True)
    except (KeyError, RuntimeError, TypeError) as error:  # Lightning and torch say it of each argument and weight
        raise UserError(
            f"{argument} is {path}, whose weights do not fit its own description of the model; give a checkpoint "
            "of lit-moe fit."
        ) from error
    return model, checkpoint
