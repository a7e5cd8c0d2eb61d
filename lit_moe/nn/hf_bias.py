"""The selection bias of a pretrained gate, which balances the load of its experts without a loss.

Shape suffixes: E experts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from lit_core.errors import UserError
from lit_moe.functional.routing import shift_bias


@contextmanager
def exact_biases(biases: Iterable[SelectionBias]) -> Iterator[None]:
    """Keep biases in their dtype, with their values, while a module is converted to another one.

    Args:
        biases: The biases; they move to the device that they are moved to.
    """
    before = [(bias, bias.tensor) for bias in biases]
    yield
    for bias, tensor in before:
        converted = getattr(bias.owner, bias.attribute)
        if converted.dtype == tensor.dtype:
            continue
        exact = tensor.to(converted.device)
        kept = nn.Parameter(exact, requires_grad=False) if isinstance(converted, nn.Parameter) else exact
        setattr(bias.owner, bias.attribute, kept)


class SelectionBias:
    """A vector that a gate adds to its experts' scores when it chooses, but not when it weighs them.

    After each optimizer step the bias of an expert moves by a fixed amount, up if it got fewer tokens than the mean
    expert and down if it got more. It goes on from the bias of the pretrained model and keeps its mean. Algorithm 1 of
    Wang et al. 2024 (arXiv 2408.15664); DeepSeek-AI 2024 (arXiv 2412.19437).

    Args:
        owner: Module that holds the bias.
        attribute: Its name there.
        name: Name of the bias in the model, for messages.
    """

    def __init__(self, owner: nn.Module, attribute: str, name: str) -> None:
        self.owner = owner
        self.attribute = attribute
        self.name = name
        self.verified = False

    @property
    def tensor(self) -> Tensor:
        """The bias itself, of any shape with as many elements as the gate's logits have columns."""
        return getattr(self.owner, self.attribute).detach()

    @property
    def whole(self) -> Tensor:
        """The bias as a vector, also where it is divided over devices, all of which have to ask for it."""
        bias = self.tensor
        return (bias.full_tensor() if isinstance(bias, DTensor) else bias).flatten()

    def move(self, counts_E: Tensor, rate: float) -> None:
        """Move the bias by an optimizer step's load, in place.

        Args:
            counts_E: Tokens sent to each expert over all micro-batches and devices, shape ``(experts,)``.
            rate: Amount of a move, in the unit of the scores.

        Raises:
            UserError: If the bias is not in float32, whose rounding would swallow a move.
        """
        bias = self.tensor
        if bias.dtype != torch.float32:
            raise UserError(
                f"`selection_bias` is loss_free, but {self.name} is in {bias.dtype}, which rounds the moves away; "
                "train with `precision: bf16-mixed` or 32-true."
            )
        whole = self.whole
        moved = shift_bias(whole, counts_E.to(whole.device), rate).reshape(bias.shape)
        if isinstance(bias, DTensor):  # as FSDP2 divides parameters
            moved = distribute_tensor(moved, bias.device_mesh, bias.placements)
        bias.copy_(moved)  # in place: others refer to it

    def verify(self, choose: Callable[[], Tensor | None]) -> None:
        """Check, once, that the gate chooses by the bias: an expert whose bias is raised is chosen by every token.

        Args:
            choose: Returns the experts that the gate chooses now, shape ``(tokens, k)``.

        Raises:
            UserError: If the choice does not follow the bias.
        """
        if self.verified:
            return
        for expert in (0, self.tensor.numel() - 1):
            with self._raised(expert):
                chosen = choose()
            if chosen is None or not bool((chosen == expert).any(-1).all()):
                raise UserError(
                    f"`selection_bias` is loss_free, but the choice of experts does not follow {self.name}, so moving "
                    "it would balance nothing; set it to frozen, and `balance_weight` instead."
                )
        self.verified = True

    @contextmanager
    def _raised(self, expert: int) -> Iterator[None]:
        bias = self.tensor
        before = bias.clone()
        try:
            bias.view(-1)[expert] += 1e4
            yield
        finally:
            bias.copy_(before)
