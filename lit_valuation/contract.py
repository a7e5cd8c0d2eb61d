"""What our commands ask of a LightningModule: logits of its last linear layer, its loss, and names of its classes."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from lit_core.data.stream import IGNORED
from lit_core.errors import UserError, reason_of
from lit_core.screen import rank_zero_info
from lit_valuation.functional.gradients import Loss
from lit_valuation.functional.token_gradients import Positions

#: Losses of torch whose gradients are known, up to a factor that all samples share.
_LOSSES: dict[type[nn.Module], Loss] = {
    nn.CrossEntropyLoss: "cross_entropy",
    nn.BCEWithLogitsLoss: "logistic",
    nn.MSELoss: "squared",
}
#: What code of others raises that is not made for what it is given.
FAULTS = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError, ArgumentError, ImportError)


def loss_of(module: nn.Module) -> Loss:
    """Return the loss that a module is trained with.

    Args:
        module: Its attribute ``loss`` is the name of a loss or a loss of torch; without one it is the cross-entropy.

    Raises:
        UserError: If it is another loss, whose gradients are not known.
    """
    name, loss = type(module).__name__, getattr(module, "loss", None)
    if isinstance(loss, nn.Module):
        known = _LOSSES.get(type(loss))
        if known is None or any(getattr(loss, key, None) is not None for key in ("weight", "pos_weight")):
            weighted = "" if known is None else " with weights"
            raise UserError(
                f"`loss` of {name} is a {type(loss).__name__}{weighted}, but gradients are known of cross_entropy, "
                "logistic and squared; set `loss` to the name of the nearest one, and hold yours by another name."
            )
        return known
    if not isinstance(loss, str):
        return "cross_entropy"
    if loss not in _LOSSES.values():
        raise UserError(f"`loss` of {name} is {loss!r}, but must be cross_entropy, logistic or squared.")
    named: Loss = loss  # type: ignore[assignment]  # it is one of them
    return named


def smoothing_of(module: nn.Module) -> float:
    """Return the label smoothing of a module's loss, or else its attribute ``label_smoothing``, or 0."""
    loss = getattr(module, "loss", None)
    return float(getattr(loss if isinstance(loss, nn.Module) else module, "label_smoothing", 0.0))


def positions_of(module: nn.Module) -> Positions:
    """Return how a module's loss of a text comes from its positions: its attribute ``positions``, or mean.

    Raises:
        UserError: If it is neither ``mean`` nor ``sum``.
    """
    positions: Positions = getattr(module, "positions", "mean")
    if positions not in get_args(Positions):
        raise UserError(f"`positions` of {type(module).__name__} is {positions!r}, but must be mean or sum.")
    return positions


def ignored_of(module: nn.Module) -> int:
    """Return the index whose positions do not count in a module's loss, besides -100, as its loss of torch says."""
    return int(getattr(getattr(module, "loss", None), "ignore_index", IGNORED))


def class_names(module: nn.Module, of_data: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a module's classes: its own ``classes``, or those of the data it is used on, which is said.

    Args:
        module: The module.
        of_data: Names of the classes of these data, in their order.

    Raises:
        UserError: If ``classes`` are not different names.
    """
    names = getattr(module, "classes", None)
    if names is None:
        rank_zero_info(
            f"{type(module).__name__} does not name its classes; its outputs are taken for {', '.join(of_data)}, in "
            "this order."
        )
        return tuple(of_data)
    named = isinstance(names, Sequence) and not isinstance(names, str)
    if not named or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise UserError(
            f"`classes` of {type(module).__name__} is {names!r}, but must be a list of different names, in the order "
            "of the outputs."
        )
    return tuple(names)


def logits_of(module: nn.Module, x: Any) -> Tensor:
    """Run a module on a batch of inputs and return its logits.

    Args:
        module: Maps inputs to logits.
        x: Inputs as the module takes them.

    Raises:
        UserError: If the module has no forward, does not take these inputs, or returns something else.
    """
    name = type(module).__name__
    try:
        logits = module(x)
    except NotImplementedError as error:  # torch says it of a module without forward
        raise UserError(
            f"{name} cannot be called with a batch of inputs, but its logits are needed; define its forward."
        ) from error
    except FAULTS as error:
        if isinstance(error, UserError | torch.OutOfMemoryError):
            raise
        shape = f" of the shape {tuple(x.shape)}" if isinstance(x, Tensor) else ""
        raise UserError(
            f"{name} fails on a batch of inputs{shape} ({type(error).__name__}: {reason_of(error)}); give data as it "
            "was trained on, or correct its forward."
        ) from error
    if not isinstance(logits, Tensor):
        raise UserError(f"{name} returns a {type(logits).__name__}, but its logits are needed; return a tensor.")
    return logits
