"""What SmolLM2 says of each token of the texts, measured once and kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lit_core.lm.pretrained import smollm2
from lit_core.progress import progress
from lit_detect.detectors.token_statistics import QUANTITIES
from lit_detect.scoring.causal import TokenScores, score_tokens

#: Most tokens of a text that are read, which is a window of the default detector.
MAX_TOKENS = 512
#: Names of the quantities in the files.
_NAMES = ("lp", "rk", "ex", "va")


def measure(texts: Sequence[str], folder: Path) -> dict[str, TokenScores]:
    """Return the quantities of the tokens of each text, from the folder or computed and written there."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [text for text in dict.fromkeys(texts) if not _file(folder, text).is_file()]
    model = smollm2() if todo else None
    batches = [todo[first : first + 32] for first in range(0, len(todo), 32)]
    for batch in progress(batches, "SmolLM2", "batches", f"SmolLM2: {len(todo):,} texts to read"):
        assert model is not None
        for text, scores in zip(batch, score_tokens(model, batch, MAX_TOKENS, QUANTITIES), strict=True):
            arrays = [scores[name].numpy() for name in QUANTITIES]
            arrays[1] = arrays[1].astype(np.int32)
            np.savez(_file(folder, text), **dict(zip(_NAMES, arrays, strict=True)))
    return {text: _read(_file(folder, text)) for text in dict.fromkeys(texts)}


def _file(folder: Path, text: str) -> Path:
    return folder / f"{hashlib.sha256(text.encode()).hexdigest()}.npz"


def _read(path: Path) -> TokenScores:
    with np.load(path) as arrays:
        values = [torch.from_numpy(arrays[name]) for name in _NAMES]
    return TokenScores(**dict(zip(QUANTITIES, values, strict=True)))
