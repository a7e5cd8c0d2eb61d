"""Encoders without public weights: the hidden features of a classifier, and the inputs themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.lightning.checksums import weights_sha256
from lit_core.lightning.evaluation_mode import evaluating
from lit_valuation.encoders.base import Encoder, Inputs
from lit_valuation.last_layer import find_last_linear, hidden_and_logits
from lit_valuation.samples import as_inputs


class TaskFeatures(Encoder):
    """Encodes inputs by the hidden features before the last linear layer of a classifier, such as the owner's.

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
        with evaluating(self.module), torch.no_grad():
            features = [hidden_and_logits(self.module, part.to(device), self.head)[0] for part in x.split(batch_size)]
        return torch.cat(features).cpu()


class Identity(Encoder):
    """Returns the inputs as features: rows of tables, embeddings, or the pixels of images."""

    name = "Identity"
    sha256 = None

    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Return the inputs as rows; see `Encoder.encode`."""
        return _numbers(x, self.name).flatten(1)


def _numbers(x: Inputs, encoder: str) -> Tensor:
    """Return inputs as float32, images in [0, 1]."""
    if not isinstance(x, Tensor):
        raise UserError(f"{encoder} takes numbers, but was given texts; choose MiniLM or HuggingFaceEncoder for these.")
    return as_inputs(x)
