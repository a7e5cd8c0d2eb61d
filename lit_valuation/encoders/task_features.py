"""Encoders without public weights: the hidden features of a classifier, and the inputs themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_core.errors import UserError, check_at_least
from lit_core.lightning.checksums import weights_sha256
from lit_core.lightning.evaluation_mode import evaluating
from lit_valuation.encoders.base import Encoder, Inputs
from lit_valuation.last_layer import find_last_linear, hidden_and_logits
from lit_valuation.samples import NO_TOKEN, as_inputs


class TaskFeatures(Encoder):
    """Encodes inputs by the hidden features before the last linear layer of a classifier, such as the owner's.

    Features of a text are the mean over its tokens.

    Args:
        module: The classifier, which takes float32, images in [0, 1].
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.head = find_last_linear(module)
        self.name = f"TaskFeatures[{type(module).__name__}]"
        self.sha256 = weights_sha256(module)

    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Return the hidden features of the inputs; see `Encoder.encode`."""
        x = _numbers(x, self.name)
        device = self.head.weight.device
        is_text = x.dtype == torch.int64
        with evaluating(self.module), torch.no_grad():
            parts = x.split(batch_size)
            features = [hidden_and_logits(self.module, part.to(device), self.head, is_text)[0].cpu() for part in parts]
        hidden = torch.cat(features)
        return _mean(hidden, x != NO_TOKEN) if is_text else hidden


class Identity(Encoder):
    """Returns the inputs as features: rows of tables, embeddings, or the pixels of images."""

    name = "Identity"
    sha256 = None

    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Return the inputs as rows; see `Encoder.encode`."""
        rows = _numbers(x, self.name).flatten(1)
        if rows.dtype == torch.int64:
            raise UserError("Identity compares numbers, but the samples are token ids; choose TokenCounts for these.")
        return rows


class TokenCounts(Encoder):
    """Encodes texts that are token ids by how often each token occurs, whatever the order.

    Args:
        width: Numbers of the features, 1 or more; token ids that are equal modulo the width are counted together.
    """

    sha256 = None

    def __init__(self, width: int = 1024) -> None:
        check_at_least(1, width=width)
        self.width, self.name = width, f"TokenCounts[{width}]"

    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Return the counts of the tokens; see `Encoder.encode`."""
        if not isinstance(x, Tensor) or x.dtype != torch.int64:
            raise UserError("TokenCounts counts token ids, but the samples are not; choose another encoder.")
        return token_counts(x, self.width)


def token_counts(x: Tensor, width: int) -> Tensor:
    """Return how often each token occurs in texts, float32 of shape ``(n, width)``.

    Args:
        x: Token ids, ``(n, length)``, -1 where there is none.
        width: Ids that are equal modulo this number are counted together.
    """
    return torch.zeros(len(x), width).scatter_add_(1, x % width, (x != NO_TOKEN).float())


def _mean(hidden: Tensor, is_token: Tensor) -> Tensor:
    """Return the mean of ``(n, length, d)`` over the tokens of each text."""
    return (hidden * is_token[..., None]).sum(1) / is_token.sum(1, keepdim=True).clamp(min=1)


def _numbers(x: Inputs, encoder: str) -> Tensor:
    """Return inputs as float32, images in [0, 1]."""
    if not isinstance(x, Tensor):
        raise UserError(f"{encoder} takes numbers, but was given texts; choose MiniLM or HuggingFaceEncoder for these.")
    return as_inputs(x)
