"""Whether generation with a cache, of prompts of several lengths at once, equals a full run for each token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from lit_core.errors import UserError
from lit_core.files.json_files import parse_json
from lit_core.lm.influence import sees_later_tokens
from lit_core.lm.tokenizer import END_OF_TEXT, Tokenizer
from lit_moe.doctor.check import Finding
from lit_moe.lm import language_model

if TYPE_CHECKING:
    from lit_moe.doctor.specimen import Specimen

#: Largest relative difference that float32 rounding explains.
_RTOL = 1e-4
_LENGTHS, _NEW = (13, 5, 9), 8


def check(specimen: Specimen) -> Finding:
    """Compare logits and tokens of cached generation with transformers' own model, run without cache for each token."""
    ours, theirs = specimen.decoder().eval(), specimen.decoder().model.eval()
    if sees_later_tokens(theirs):
        return Finding("n/a", "A token sees later ones, of which a warning tells, so it has no logits before them.")
    ids_BS = specimen.tokens(len(_LENGTHS), 24)
    model = language_model(ours, _tokenizer(specimen.vocab_size))
    try:
        with torch.no_grad():
            rows = list(range(len(ids_BS)))
            logits_BSV, cache = model.logits(ids_BS[:, :12], model.new_cache())
            for end in range(12, 24):
                expected = theirs(ids_BS[rows, :end], use_cache=False).logits[:, -1]
                difference = float((logits_BSV[:, -1] - expected).norm() / expected.norm())
                if difference > _RTOL:
                    return Finding("fail", f"After {end} tokens the logits with cache differ by {difference:.1g}.")
                if end == 18:  # a text has ended
                    rows, cache = [0, 2], model.keep_rows(cache, [0, 2])
                logits_BSV, cache = model.logits(ids_BS[rows, end : end + 1], cache)
        prompts = [row[:length].tolist() for row, length in zip(ids_BS, _LENGTHS, strict=True)]
        found = model.generate_ids(prompts, max_new_tokens=_NEW, temperature=0, stop_at_end=False)
    except UserError as error:
        return Finding("refused", str(error))
    for prompt, new in zip(prompts, found, strict=True):
        if new != _greedy(theirs, prompt):
            return Finding("fail", f"A prompt of {len(prompt)} tokens is continued otherwise than without cache.")
    return Finding("pass")


@torch.no_grad()
def _greedy(model: Any, prompt: list[int]) -> list[int]:
    ids = list(prompt)
    for _ in range(_NEW):
        ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def _tokenizer(size: int) -> Tokenizer:
    """Return a tokenizer of as many ids as the model has; nothing is read or written by it."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    words = {END_OF_TEXT: 0} | {f"w{number}": number for number in range(1, size)}
    backend = Backend(models.WordLevel(words, unk_token="w1"))
    backend.add_special_tokens([END_OF_TEXT])
    return Tokenizer(parse_json(backend.to_str(), "A tokenizer of words"))
