"""Hashes of samples, by which equal ones are known without their names."""

from __future__ import annotations

import hashlib

import torch

from lit_valuation.samples import Samples


def fingerprints(samples: Samples) -> tuple[str, ...]:
    """Return the SHA-256 of each sample's content and target; names of samples do not count."""
    hashes = []
    for x, target in zip(samples.x, samples.described(), strict=True):
        head = f"{x.dtype} {tuple(x.shape)} {target}\n".encode()
        hashes.append(hashlib.sha256(head + x.contiguous().numpy().tobytes()).hexdigest())
    return tuple(hashes)


def unlabelled_fingerprints(inputs: torch.Tensor) -> tuple[str, ...]:
    """Return the SHA-256 of each input, whatever its target.

    Args:
        inputs: Inputs as a network takes them, ``(n, ...)``.
    """
    keys = tuple(map(str, range(len(inputs))))
    return fingerprints(Samples(inputs, torch.zeros(len(inputs), dtype=torch.int64), ("any",), keys))
