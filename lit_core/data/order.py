"""The order of samples: pseudorandom permutations that are computed, not stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

BLOCK = 1024  # samples whose order is computed at once


def permuted(indices: Sequence[int] | np.ndarray, size: int, seed: int, name: str, epoch: int) -> np.ndarray:
    """Return where a pseudorandom permutation sends some indices.

    A Feistel network on pairs (index // b, index % b) with b about the root of the size, walked until it lands inside.
    So no table is kept, however large the source, and the order depends on no library's random number generator.

    Args:
        indices: From 0 to ``size`` - 1, shape ``(n,)``.
        size: Number of elements, from 1.
        seed: Seed of the permutation.
        name: What is permuted; each name has permutations of its own.
        epoch: Each epoch has a permutation of its own.

    Returns:
        Indices from 0 to ``size`` - 1, int64 of shape ``(n,)``; different indices give different ones.
    """
    digest = hashlib.blake2b(f"{seed}\0{epoch}\0{name}".encode(), digest_size=64).digest()
    keys = np.frombuffer(digest, dtype="<u8")
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


def _mixed(word: np.ndarray, key: np.uint64) -> np.ndarray:
    """Scramble words with a key, as SplitMix64 does; sums and products are taken modulo 2^64."""
    word = word * np.uint64(0x9E3779B97F4A7C15) + key
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@lru_cache(maxsize=256)
def sample_block(block: int, size: int, seed: int, name: str) -> list[int]:
    """Return which samples of a source the running numbers of one block are.

    Args:
        block: The running numbers are those from ``block * BLOCK`` to before ``(block + 1) * BLOCK``.
        size: Samples of the source, from 1; after as many, a new order begins.
        seed: Seed of the order.
        name: Name of the source.

    Returns:
        BLOCK numbers of samples.
    """
    numbers = np.arange(block * BLOCK, (block + 1) * BLOCK)
    epochs = numbers // size
    return np.concatenate(
        [permuted(numbers[epochs == epoch] % size, size, seed, name, int(epoch)) for epoch in np.unique(epochs)]
    ).tolist()
