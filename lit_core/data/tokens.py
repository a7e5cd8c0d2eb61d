"""`TokenWindows`, fixed-length windows over a sequence of tokens: the samples of a language model."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_core.data.shards import ShardSet
from lit_core.errors import RunFailure, UserError, check_at_least
from lit_core.files.arrays import map_npy, parse_npy
from lit_core.record import note_input

IGNORED = -100


class TokenWindows:
    """Windows of L tokens: sample i has the L tokens from position iL as inputs, those from iL + 1 as labels.

    A sample is a dict of ``input_ids`` and ``labels``, both int64 of shape ``(L,)``, and ``index``, its index i. With
    ``document_mask`` it also has ``document_ids`` of shape ``(L,)``, which increase by one at each end-of-text token,
    so that this token begins the next document, or at each token that begins a document, if the tokenizer has one. Each
    token except the first of the file is a label exactly once, but tokens that begin a document, which nothing
    predicts, have the label -100; a last piece shorter than L is kept only with ``tail``.

    Args:
        path: A shard set of kind ``tokens``, a ``.npy`` file of one-dimensional token ids, or a raw ``.bin`` file.
        length: Tokens per sample, L, from 1.
        tail: Whether to keep the last, incomplete piece, padded with token 0 and label -100; for evaluation.
        document_mask: Whether to return document ids; needs a shard set, which knows its end-of-text token.
        dtype: Type of the tokens in a ``.bin`` file; None for the other kinds, which record it.
        verify: Whether the shards of a shard set are compared with their SHA-256.

    Attributes:
        tokens: Number of tokens in the file.
        text_bytes: UTF-8 bytes of the text that the tokens encode; None if unknown.
        tokenizer: The tokenizer's entry in the index of a shard set; None for the other kinds.
        start: Ids that begin each document, as the index says; empty if there are none.
        name: Name of the source.
        path: The shard set or file.

    Raises:
        UserError: If the file does not match the arguments, or holds less than one sample.
    """

    def __init__(
        self,
        path: str | Path,
        length: int,
        *,
        tail: bool = False,
        document_mask: bool = False,
        dtype: Literal["uint16", "uint32", "int32", "int64"] | None = None,
        verify: bool = True,
    ) -> None:
        path = Path(path)
        check_at_least(1, length=length)
        if dtype is not None and path.suffix != ".bin":
            raise UserError(f"dtype is {dtype}, but {path} records the type of its tokens; leave dtype out.")
        self.length, self.tail = length, tail
        self._row: _ShardTokens | _FileTokens
        if path.suffix in (".npy", ".bin"):
            note_input(path)
            self._row = _FileTokens(path, dtype)
            self.text_bytes: int | None = None
            self.tokenizer: dict[str, Any] | None = None
            self.name: str = path.stem
        else:
            self._row = _ShardTokens(path, verify)
            index = self._row.shards.index
            self.text_bytes, self.tokenizer, self.name = index["text_bytes"], index["tokenizer"], index["source"]
        self.start: tuple[int, ...] = tuple((self.tokenizer or {}).get("start", ()))
        self.path, self.tokens = path, len(self._row)
        self._vocab_size: int | None = None
        self.vocab_size = self.tokenizer["vocab_size"] if self.tokenizer else None
        self._begins: int | None = None
        if document_mask:
            if self.tokenizer is None or "end_of_text" not in self.tokenizer:
                raise UserError(
                    f"document_mask is true, but {path} does not name its end-of-text token; prepare it as a shard set "
                    "or set document_mask to false."
                )
            self._begins = self.start[0] if self.start else self.tokenizer["end_of_text"]
        if len(self) == 0:
            raise UserError(
                f"{path} has {self.tokens} tokens, but a sample needs {2 if tail else length + 1}; "
                "prepare more text or choose a shorter length."
            )

    @property
    def content(self) -> str:
        """Hash by which the tokens are told apart from others, whatever the length of the windows."""
        return self._row.content

    @property
    def vocab_size(self) -> int | None:
        """Number of token ids; tokens from it on are refused. None, of a plain file, does not check; it may be set.

        Raises:
            UserError: If the type of a plain file's tokens can't hold all ids, so that the larger ones were cut off.
        """
        return self._vocab_size

    @vocab_size.setter
    def vocab_size(self, size: int | None) -> None:
        if size is not None and isinstance(self._row, _FileTokens) and size - 1 > np.iinfo(self._row.type).max:
            raise UserError(
                f"{self.path} holds tokens of {self._row.type}, whose largest number is "
                f"{np.iinfo(self._row.type).max}, but the tokenizer has {size} tokens; write the tokens with a larger "
                "type, and name it if the file is a .bin file."
            )
        self._vocab_size = size

    def __len__(self) -> int:
        targets = max(self.tokens - 1, 0)
        return -(-targets // self.length) if self.tail else targets // self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read sample ``index``, from 0.

        Raises:
            RunFailure: If the file is damaged.
        """
        return {key: value[0] for key, value in self.batch([index]).items()} | {"index": index}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Read several samples at once.

        Args:
            indices: Indices of the samples, from 0.

        Returns:
            The samples by key, stacked to shape ``(len(indices), L)``; ``index`` has shape ``(len(indices),)``.

        Raises:
            RunFailure: If the file is damaged.
        """
        rows = np.zeros((len(indices), self.length + 1), dtype=np.int64)
        missing = {}
        for row, index in enumerate(indices):
            if not 0 <= index < len(self):
                raise IndexError(f"Sample {index} of {len(self)}.")
            start = index * self.length
            stop = min(start + self.length + 1, self.tokens)
            self._row.read(start, stop, rows[row])
            if stop - start <= self.length:
                missing[row] = stop - start - 1
        if self.vocab_size is not None:
            self._check_range(int(rows.min()), int(rows.max()), self.vocab_size)
        inputs, labels = torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())
        if self.start:
            labels[torch.isin(labels, torch.tensor(self.start))] = IGNORED
        for row, scored in missing.items():
            inputs[row, scored:] = 0
            labels[row, scored:] = IGNORED
        batch = {"input_ids": inputs, "labels": labels, "index": torch.as_tensor(indices)}
        if self._begins is not None:
            batch["document_ids"] = (inputs == self._begins).cumsum(1)
        return batch

    def _check_range(self, least: int, largest: int, size: int) -> None:
        if least < 0 or largest >= size:
            # a shard set records its tokenizer, so the file is damaged; for a plain file the user names the tokenizer
            raise (UserError if self.tokenizer is None else RunFailure)(
                f"{self.path} holds the token {least if least < 0 else largest}, but its tokenizer has {size}: the "
                "file is damaged, or was written with another tokenizer or type; restore it or prepare it again."
            )

    def verify(self) -> None:
        """Read all tokens of a plain file, which has no SHA-256 with which it could be compared.

        Raises:
            UserError: If it has tokens that the vocabulary lacks, or looks like one of wider numbers.
        """
        if isinstance(self._row, _ShardTokens):
            return
        if self.vocab_size is not None:
            self._check_range(*self._row.extremes(), self.vocab_size)
        self._row.check_width()


class _FileTokens:
    """The tokens of one plain file."""

    def __init__(self, path: Path, dtype: str | None) -> None:
        self.path, self.dtype = path, dtype
        if not path.is_file():
            raise UserError(f"{path} does not exist; correct the path.")
        if path.suffix == ".bin" and dtype is None:
            raise UserError(f"{path} does not record the type of its tokens; give dtype, often uint16.")
        self._array = self._open()

    def _open(self) -> np.ndarray:
        if self.path.suffix == ".bin":
            size, width = self.path.stat().st_size, np.dtype(self.dtype).itemsize
            if size % width or not size:
                raise UserError(
                    f"{self.path} has {size} bytes, but {self.dtype} tokens need a positive multiple of {width}; "
                    "correct dtype."
                )
            return np.asarray(np.memmap(self.path, dtype=np.dtype(self.dtype), mode="r"))
        array = map_npy(self.path)
        if array.ndim != 1 or array.dtype.kind not in "ui":
            raise UserError(
                f"{self.path} holds {array.dtype} of shape {array.shape}, but tokens are integers in one row; "
                "flatten and convert them."
            )
        return np.asarray(array)

    @property
    def type(self) -> np.dtype:
        """Type of the tokens."""
        return self._array.dtype

    @property
    def content(self) -> str:
        """SHA-256 of the number and type of the tokens, and of the first and last ones."""
        ends = self._array[: 1 << 16].tobytes() + self._array[-1 << 16 :].tobytes()
        return hashlib.sha256(f"{len(self)} {self.type} ".encode() + ends).hexdigest()

    def extremes(self) -> tuple[int, int]:
        """Return the least and the largest token."""
        return int(self._array.min()), int(self._array.max())

    def check_width(self) -> None:
        """Refuse raw numbers whose every second one is 0, as if numbers of twice the width were read."""
        if self.dtype is not None and len(self._array) > 1 and not self._array[1::2].any():
            raise UserError(
                f"{self.path} has a 0 at every second place if it is read as {self.dtype}, so its tokens are probably "
                "twice as wide; correct dtype."
            )

    def __len__(self) -> int:
        return len(self._array)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "dtype": self.dtype}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._array = self._open()

    def read(self, start: int, stop: int, row: np.ndarray) -> None:
        row[: stop - start] = self._array[start:stop]


class _ShardTokens:
    """The tokens of a shard set, one chunk per member, as one sequence."""

    def __init__(self, folder: Path, verify: bool) -> None:
        self.shards = ShardSet(folder, verify)
        index = self.shards.index
        if index["kind"] != "tokens" or index["dtype"] is None:
            raise UserError(f"{folder} holds shards of kind {index['kind']!r}, but tokens are needed; tokenise them.")
        self._dtype = np.dtype(index["dtype"])
        self._bounds = list(accumulate((member[4] for member in self.shards.members), initial=0))
        if self._bounds[-1] != index["tokens"]:
            raise UserError(f"{folder} counts {index['tokens']} tokens but has {self._bounds[-1]}; prepare it again.")
        self._checked: set[int] = set()

    def __len__(self) -> int:
        return self._bounds[-1]

    @property
    def content(self) -> str:
        """SHA-256 of the shards."""
        return self.shards.content

    def read(self, start: int, stop: int, row: np.ndarray) -> None:
        """Copy the tokens at positions ``start`` to ``stop`` - 1 to the beginning of a row."""
        member = bisect_right(self._bounds, start) - 1
        done = 0
        while start < stop:
            first, last = self._bounds[member], min(self._bounds[member + 1], stop)
            row[done : done + last - start] = self._chunk(member)[start - first : last - first]
            done, start, member = done + last - start, last, member + 1

    def _chunk(self, member: int) -> np.ndarray:
        shard, name, offset, size, tokens = self.shards.members[member]
        content = self.shards.buffer(shard)[offset : offset + size]
        data = tokens * self._dtype.itemsize
        if member not in self._checked:
            try:
                array = parse_npy(content)
                stored = f"{array.dtype} of shape {array.shape}"
            except ValueError as error:
                stored = str(error)
            if stored != f"{self._dtype} of shape {(tokens,)}":
                raise RunFailure(
                    f"{self.shards.files[shard]} is damaged: its member {name} should be {tokens} tokens of "
                    f"{self._dtype}, but its header differs ({stored}); prepare the source again."
                )
            self._checked.add(member)
        return content[size - data :].view(self._dtype)
