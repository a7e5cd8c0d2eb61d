"""`Probe`: fixed tokens for which routers are asked, made from texts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_core.corpora import Austen
from lit_core.data.stream import IGNORED
from lit_core.errors import UserError
from lit_core.files.text_files import read_text
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.nn import moe_layers

#: Tokens of a domain and of a sequence, and sequences of a forward pass, where none are given.
_TOKENS, _LENGTH, _BATCH = 2048, 256, 8


@dataclass(frozen=True)
class Probe:
    """Tokens for which routers are asked.

    Args:
        rows: Token ids of each sequence and the one after it, -1 where there is none, int64 of shape
            ``(sequences, length + 1)``.
        domain: Index of each sequence's domain, shape ``(sequences,)``, int64.
        domains: Names of the domains.
        tokenizer: SHA-256 of the tokenizer.
        batch_size: Sequences of a forward pass.
    """

    rows: Tensor
    domain: Tensor
    domains: tuple[str, ...]
    tokenizer: str
    batch_size: int

    @property
    def counted(self) -> Tensor:
        """True for the tokens that count, shape ``(sequences, length)``."""
        return self.rows[:, 1:] >= 0

    @property
    def ids(self) -> Tensor:
        """Token ids, 0 where there is none, shape ``(sequences, length)``."""
        return self.rows[:, :-1].clamp(min=0)

    @property
    def sha256(self) -> str:
        """Hash of tokens and domains."""
        parts = (self.rows.numpy().tobytes(), self.domain.numpy().tobytes(), json.dumps(self.domains).encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def route(
        self, module: LightningModule, sequences: Tensor, context: AbstractContextManager[Any] | None = None
    ) -> list[Tensor]:
        """Return the experts that the routers of a model choose.

        Args:
            module: The model, in evaluation mode, with a method ``routing_step(batch)`` as `RouterDrift` asks for it.
            sequences: Numbers of the sequences; -1 for one without tokens.
            context: Context of the forward passes, such as that of a precision.

        Returns:
            Of each mixture layer the experts, shape ``(sequences, length, k)``, on the model's device.
        """
        layers = list(moe_layers(module).values())
        chosen: list[list[Tensor]] = [[] for _ in layers]
        step: Any = module.routing_step
        with torch.no_grad(), context or nullcontext():
            for numbers in sequences.split(self.batch_size):
                there = (numbers >= 0)[:, None]
                labels = self.rows[numbers, 1:].where(self.counted[numbers] & there, IGNORED)
                step({"input_ids": self.ids[numbers].to(module.device), "labels": labels.to(module.device)})
                for kept, layer in zip(chosen, layers, strict=True):
                    if layer.stats is not None:
                        kept.append(layer.stats.indices.view(len(numbers), labels.shape[1], -1))
        return [torch.cat(kept) for kept in chosen]


def text_probe(
    module: LightningModule,
    tokenizer: Tokenizer,
    texts: Mapping[str, str] | None,
    tokens: int | None,
    sequence_length: int | None,
    batch_size: int | None,
) -> Probe:
    """Return the probe of some texts; None of an argument takes what is usual.

    Args:
        module: The model, which may limit the length.
        tokenizer: Its tokenizer.
        texts: Text file of each domain by its name; None takes the beginnings of six novels that are embedded.
        tokens: Most tokens of a domain.
        sequence_length: Tokens of a sequence.
        batch_size: Sequences of a forward pass.

    Raises:
        UserError: If a file cannot be read or is empty, or the model takes no such sequences.
    """
    config: Any = getattr(module, "config", None)
    longest = getattr(config, "max_seq_len", None) or getattr(config, "max_position_embeddings", None)
    if sequence_length is not None and longest is not None and sequence_length > longest:
        raise UserError(
            f"sequence_length is {sequence_length}, but the model takes at most {longest}; give that or less."
        )
    length, most = sequence_length or min(_LENGTH, longest or _LENGTH), tokens or _TOKENS
    return probe_of(_documents(texts, tokenizer, most), length, most, tokenizer.sha256, batch_size or _BATCH)


def probe_of(
    documents: Mapping[str, Sequence[Sequence[int]]], length: int, tokens: int, tokenizer: str, batch_size: int
) -> Probe:
    """Cut the beginnings of documents into sequences.

    Args:
        documents: Token ids of each document by the name of its domain, each with the ids that begin and end it.
        length: Tokens of a sequence.
        tokens: Most tokens of a domain.
        tokenizer: SHA-256 of the tokenizer.
        batch_size: Sequences of a forward pass.

    Raises:
        UserError: If a domain has fewer than two tokens.
    """
    rows: list[list[int]] = []
    domain: list[int] = []
    for number, (name, texts) in enumerate(documents.items()):
        ids = [token for text in texts for token in text][: tokens + 1]
        if len(ids) < 2:
            raise UserError(
                f"The text of {name} has {len(ids)} tokens, but routing is compared on 1 or more and the "
                "one after it; give a longer text."
            )
        cut = [ids[start : start + length + 1] for start in range(0, len(ids) - 1, length)]
        rows += [row + [-1] * (length + 1 - len(row)) for row in cut]
        domain += [number] * len(cut)
    return Probe(torch.tensor(rows), torch.tensor(domain), tuple(documents), tokenizer, batch_size)


def check_texts(texts: Mapping[str, str] | None) -> None:
    """Refuse texts that are not there.

    Raises:
        UserError: If a file is missing, or none is named.
    """
    if texts is not None and not texts:
        raise UserError("texts is empty, but routing is compared on a text; name one, or leave it out.")
    for name, path in (texts or {}).items():
        if not os.path.isfile(path):
            raise UserError(f"texts has {path} for {name}, but there is no such file; correct the path.")


def _documents(texts: Mapping[str, str] | None, tokenizer: Tokenizer, tokens: int) -> dict[str, Sequence[list[int]]]:
    """Return token ids of documents by domain, each as a run trains on it: with what begins and ends it."""
    if texts is not None:
        read = {name: [read_text(Path(path))] for name, path in texts.items()}
    else:
        read = {}
        for chapter in Austen().documents():
            known = read.setdefault(chapter.group, [])
            if sum(map(len, known)) <= 16 * tokens:  # more characters than tokens
                known.append(chapter.text)
    return {
        name: [[*tokenizer.start, *tokenizer.encode(text), tokenizer.end_of_text] for text in each]
        for name, each in read.items()
    }
