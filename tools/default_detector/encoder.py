"""A sentence encoder in place of the token statistics, and beside them: MiniLM's mean vector of a text, not trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lit_core.lm.pretrained import minilm_folder
from lit_core.progress import progress

#: Most tokens of a text that are read.
_MAX_TOKENS = 256


def vectors(texts: Sequence[str], path: Path) -> dict[str, Tensor]:
    """Return the mean token vector of each text, from the file or computed and written there."""
    known: dict[str, Tensor] = torch.load(path, weights_only=True) if path.is_file() else {}
    todo = sorted({*texts} - known.keys(), key=len)
    if todo:
        from transformers import AutoModel, AutoTokenizer

        folder = str(minilm_folder())
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
        batches = [todo[first : first + 32] for first in range(0, len(todo), 32)]
        for batch in progress(batches, "MiniLM", "batches", f"MiniLM: {len(todo):,} texts to read"):
            inputs = tokenizer(batch, truncation=True, max_length=_MAX_TOKENS, padding=True, return_tensors="pt")
            with torch.no_grad():
                hidden, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
            known |= zip(batch, (hidden * mask).sum(1) / mask.sum(1), strict=True)
        torch.save(known, path)
    return known
