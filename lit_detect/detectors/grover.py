"""GROVER's discriminator, a detector by a fine-tuned causal language model with a classification token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_core.errors import UserError, check_at_least
from lit_core.lm.language_model import LanguageModel
from lit_core.seeds import part_seed
from lit_detect.detectors.base import TrainedDetector
from lit_detect.nn.encoders import freeze_unused


class GroverDetector(TrainedDetector):
    """Classifies a text by a fine-tuned causal language model with a classification token (Zellers et al. 2019).

    The end-of-text token after the text is the classification token. A linear layer maps its last hidden state to the
    logits. All weights are trained, including the embedding of the classification token. The detector learns the
    generators, the decoding and the domain of its training set. GROVER's own discriminators were trained on one
    generator at one nucleus threshold, and their authors warn of this. On small machines, load the model with its first
    layers only.

    Args:
        lm: The language model, such as ``lit_core.lm.smollm2``, with weights in float32. The detector trains all its
            weights, so no other detector may share it.
        max_tokens: Number of tokens to read from the start of a text, with the classification token; 2 or more, at most
            what the model takes. GROVER reads 1,024.
        seed: Seed of the linear layer's weights, 0 or more; None takes that of the run.
    """

    special_tokens = 1

    def __init__(self, lm: LanguageModel, max_tokens: int = 512, seed: int | None = None) -> None:
        super().__init__()
        check_at_least(2, max_tokens=max_tokens)
        seed = part_seed(seed)
        limit = max_tokens if lm.max_length is None else lm.max_length
        if max_tokens > limit:
            raise UserError(
                f"max_tokens is {max_tokens}, but must be at most {limit}, the longest input of the language model. "
                "Set it to such a value."
            )
        dtypes = {parameter.dtype for parameter in lm.module.parameters()} - {torch.float32}
        if dtypes:
            names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
            raise UserError(f"lm has weights in {names}, but is trained in float32. Load it with dtype float32.")
        self._lm, self.backbone = lm, lm.module.train().requires_grad_(True)
        state = lm.hidden(torch.tensor([[lm.tokenizer.end_of_text]], device=lm.device))
        freeze_unused(self.backbone, state)  # the language-model head, unless it shares the embedding's weights
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(state.shape[-1], 2).to(lm.device)
        self.name = f"GroverDetector[{lm.name}]"
        self.max_tokens = max_tokens

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the logits of human and machine, ``(n, 2)``; see `TrainedDetector.forward`."""
        assert self.max_tokens is not None
        device, end = self.head.weight.device, self._lm.tokenizer.end_of_text
        if not len(texts):
            return self.head.weight.new_zeros(0, 2)
        rows = [ids[: self.max_tokens - 1] for ids in self._lm.tokenizer.encode_batch(texts)]
        width = 1 + max(map(len, rows))
        ids_BT = torch.tensor([ids + [end] * (width - len(ids)) for ids in rows], device=device)
        last_B = torch.tensor([len(ids) for ids in rows], device=device)
        mask_BT = torch.arange(width, device=device) <= last_B[:, None]
        states_BTD = self._lm.hidden(ids_BT, mask_BT)
        logits: Tensor = self.head(states_BTD[torch.arange(len(rows), device=device), last_B])
        return logits

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text, without the classification token."""
        return [len(ids) for ids in self._lm.tokenizer.encode_batch(texts)]
