"""Pseudorandom permutations of sample indices, computed when needed instead of stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

BLOCK = 1024  # samples whose order is computed at once
#: Version of the order of new runs; a run keeps the one that it began with. Version 1 is `permuted` for all sizes, but
#: that does not reach all orders of few samples equally often. Version 2 is `shuffled` up to `BLOCK` samples.
ORDER = 2


def ordered(
    indices: Sequence[int] | np.ndarray, size: int, seed: int, name: str, epoch: int, version: int = ORDER
) -> np.ndarray:
    """Apply the pseudorandom permutation of a source's epoch to indices.

    Args:
        indices: Indices from 0 to ``size`` - 1, shape ``(n,)``.
        size: Number of elements, 1 or more.
        seed: Seed of the permutation.
        name: Name of the source; each name has its own permutations.
        epoch: Index of the epoch; each has its own permutation.
        version: Version of the order; see `ORDER`.

    Returns:
        Indices from 0 to ``size`` - 1, int64 of shape ``(n,)``; different indices give different ones.
    """
    if version >= 2 and size <= BLOCK:
        return shuffled(size, seed, name, epoch)[np.asarray(indices, dtype=np.int64)]
    return permuted(indices, size, seed, name, epoch)


def shuffled(size: int, seed: int, name: str, epoch: int) -> np.ndarray:
    """Return a pseudorandom permutation of few elements, all permutations with the same probability.

    The elements are sorted by numbers of 64 bits, which a hash of seed, epoch and name gives them. `permuted` can't do
    this for few elements, of which its rounds reach some orders more often than others, or not at all.

    Args:
        size: Number of elements, 1 or more.
        seed: Seed of the permutation.
        name: Name of the source; each name has its own permutations.
        epoch: Index of the epoch; each has its own permutation.

    Returns:
        The indices 0 to ``size`` - 1 in their new order, int64 of shape ``(size,)``.
    """
    first, second, *_ = _keys(seed, name, epoch)
    numbers = _mixed(_mixed(np.arange(size, dtype=np.uint64), first), second)
    return numbers.argsort(kind="stable")


def permuted(indices: Sequence[int] | np.ndarray, size: int, seed: int, name: str, epoch: int) -> np.ndarray:
    """Apply a pseudorandom permutation to indices.

    1. An index becomes a pair (index // b, index % b), with b about the square root of the size.
    2. Four rounds of a Feistel network scramble the pair, with keys from a hash of seed, epoch and name.
    3. Where the result is not below ``size``, the rounds are applied to it again until it is (cycle walking).

    No table is stored, however large the source, and no library's random number generator is used.

    Args:
        indices: Indices from 0 to ``size`` - 1, shape ``(n,)``.
        size: Number of elements, 1 or more.
        seed: Seed of the permutation.
        name: Name of the source; each name has its own permutations.
        epoch: Index of the epoch; each has its own permutation.

    Returns:
        Indices from 0 to ``size`` - 1, int64 of shape ``(n,)``; different indices give different ones.
    """
    keys = _keys(seed, name, epoch)
    columns = np.uint64(max(int(size**0.5), 1))
    rows = np.uint64(-(-size // int(columns)))
    result = np.array(indices, dtype=np.uint64)
    walking = np.arange(len(result))
    while len(walking):
        row, column = np.divmod(result[walking], columns)
        for key_of_row, key_of_column in keys.reshape(4, 2):
            row = (row + _mixed(column, key_of_row)) % rows
            column = (column + _mixed(row, key_of_column)) % columns
        result[walking] = row * columns + column
        walking = walking[result[walking] >= size]
    return result.astype(np.int64)


def _keys(seed: int, name: str, epoch: int) -> np.ndarray:
    """Return 8 numbers of 64 bits that depend on all arguments."""
    digest = hashlib.blake2b(f"{seed}\0{epoch}\0{name}".encode(), digest_size=64).digest()
    return np.frombuffer(digest, dtype="<u8")


def _mixed(word: np.ndarray, key: np.uint64) -> np.ndarray:
    """Scramble words with a key, as SplitMix64 does; sums and products are taken modulo 2^64."""
    word = word * np.uint64(0x9E3779B97F4A7C15) + key
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@lru_cache(maxsize=256)
def sample_block(block: int, size: int, seed: int, name: str, version: int = ORDER) -> list[int]:
    """Return the sample indices for one block of running numbers of a source; see `Stream`.

    Args:
        block: Index of the block, which contains the running numbers ``block * BLOCK`` to ``(block + 1) * BLOCK - 1``.
        size: Number of samples of the source, 1 or more; each epoch of this length has its own order.
        seed: Seed of the order.
        name: Name of the source.
        version: Version of the order; see `ORDER`.

    Returns:
        Indices of BLOCK samples in the source.
    """
    numbers = np.arange(block * BLOCK, (block + 1) * BLOCK)
    epochs = numbers // size
    return np.concatenate(
        [ordered(numbers[epochs == e] % size, size, seed, name, int(e), version) for e in np.unique(epochs)]
    ).tolist()
