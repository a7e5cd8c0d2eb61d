"""Whether a LightningModule of the user's own trains with the loss that its gradients are computed of."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError, reason_of
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.screen import say
from lit_core.trust import OWN
from lit_valuation.contract import FAULTS, loss_of, smoothing_of
from lit_valuation.last_layer import fitted, wanted_outputs
from lit_valuation.samples import Samples
from lit_valuation.training.retrain import case_losses, predict_logits

#: Batches that are compared, most samples of each, and samples among which they are chosen.
_BATCHES, _SIZE, _AMONG = 8, 4, 256
#: Largest deviation of a batch's loss, in parts of the spread of all, and in multiples of the rounding of weights.
_OF_SPREAD, _ROUNDING = 1e-3, 100


def fitted_to(task: LightningModule, samples: Samples) -> Samples:
    """Return samples as `fitted` does, after a check that the model trains with the loss that its gradients are of.

    Args:
        task: The model.
        samples: The samples, one or more.

    Raises:
        UserError: If the model does not fit the samples, or its ``training_step`` has another loss than is taken.
    """
    numbered = fitted(samples, task)
    check_step_loss(task, numbered)
    return numbered


def check_step_loss(task: LightningModule, samples: Samples) -> None:
    """Compare the loss that is taken for a model's with what its own ``training_step`` returns, on a few batches.

    A copy of the model runs in evaluation mode, without gradients. A factor and a constant that all batches share, such
    as a penalty on weights, may be between the two, since they change no choice. What cannot be compared is said.

    Args:
        task: The model; that of a class of ours is not checked.
        samples: Samples with the order of classes of the model.

    Raises:
        UserError: If they differ, and the model does not name the loss that is to be taken.
    """
    if getattr(type(task).training_step, "__module__", "").startswith(OWN):
        return
    name, loss = type(task).__name__, loss_of(task)
    unchecked = f"Note: whether {name} trains with the loss {loss}, whose gradients are taken, was not checked"
    if samples.has_positions:
        _note(f"{unchecked}: texts have a target per token. Make sure that it compares them without shifting again.")
        return
    batches = _batches(task, samples)
    if len(batches) <= 2:
        _note(f"{unchecked}: that needs three samples or more.")
        return
    try:
        theirs = _step_losses(task, batches)
    except (*FAULTS, MisconfigurationException) as error:
        _note(f"{unchecked}: its training_step does not run by itself ({reason_of(error)}).")
        return
    ours = torch.stack([_losses(task, batch).double().mean() for batch in batches])
    worst = _unexplained(ours, theirs, torch.finfo(next(task.parameters()).dtype).eps)
    if worst is None:
        return
    differs = (
        f"training_step of {name} returns a loss of {theirs[worst]:.6g} on a batch whose {loss} is {ours[worst]:.6g}, "
        "and on other batches by another factor"
    )
    if isinstance(getattr(task, "loss", None), str):
        _note(f"Note: {differs}; the gradients are those of {loss}, as its attribute `loss` says.")
        return
    raise UserError(
        f"{differs}, so it trains with another loss; set its attribute `loss` to cross_entropy, logistic or squared, "
        "whichever is nearest, to take the gradients of that."
    )


@rank_zero_only
def _note(text: str) -> None:
    say(text, error=True)


def _batches(task: LightningModule, samples: Samples) -> list[Samples]:
    """Return batches of samples with small and with large losses, the same for equal samples."""
    among = samples.take(torch.linspace(0, len(samples) - 1, min(_AMONG, len(samples))).long())
    count = min(_BATCHES, len(among))
    size = min(_SIZE, len(among) // count)
    order = _losses(task, among).argsort(stable=True)
    chosen = order[torch.linspace(0, len(among) - 1, count * size).long()]
    return [among.take(rows) for rows in chosen.split(size)]


def _losses(task: LightningModule, samples: Samples) -> Tensor:
    """Return the loss of each sample that gradients are computed of, ``(n,)``."""
    smoothing = smoothing_of(task) if loss_of(task) == "cross_entropy" else 0.0
    if not smoothing or samples.y.ndim > 1:
        return case_losses(task, samples)
    logits = predict_logits(task, samples)
    wanted = wanted_outputs(task, samples.y)
    return F.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="none")


def _step_losses(task: LightningModule, batches: Sequence[Samples]) -> Tensor:
    """Return the loss of each batch that a copy's own ``training_step`` returns, float64 of shape ``(batches,)``.

    Raises:
        ValueError: If it returns none, or another one each time.
    """
    if not is_overridden("training_step", task):
        raise ValueError("it has none")
    if not task.automatic_optimization:
        raise ValueError("it steps its optimizers itself")
    reasons = []
    for pairs in (False, True):
        try:
            once, again = (_run(copy.deepcopy(task), batches, pairs, seed) for seed in (0, 1))
        except FAULTS as error:
            reasons.append(error)
            continue
        if not torch.equal(once, again):
            raise ValueError("it draws at random")
        return once
    raise reasons[-1]


def _run(task: LightningModule, batches: Sequence[Samples], pairs: bool, seed: int) -> Tensor:
    device = next(task.parameters()).device
    takes_index = len(inspect.signature(task.training_step).parameters) > 1
    found = []
    with isolate_rng(include_cuda=False), warnings.catch_warnings(), evaluating(task), torch.no_grad():
        warnings.simplefilter("ignore")  # of a log without a Trainer
        torch.manual_seed(seed)
        for number, samples in enumerate(batches):
            x, y = samples.inputs().to(device), samples.y.to(device)
            batch: Any = (x, y) if pairs else {"x": x, "y": y}
            result = task.training_step(batch, number) if takes_index else task.training_step(batch)
            loss = result.get("loss") if isinstance(result, Mapping) else result
            if not isinstance(loss, Tensor) or loss.numel() != 1 or not bool(loss.isfinite()):
                raise ValueError(f"it returns {type(loss).__name__}, not one finite loss")
            found.append(loss.double().reshape(()).cpu())
    return torch.stack(found)


def _unexplained(ours: Tensor, theirs: Tensor, eps: float) -> int | None:
    """Return the batch whose loss deviates most from a positive factor and a constant; None if none does."""
    centred = ours - ours.mean()
    spread = theirs - theirs.mean()
    factor = ((centred * spread).sum() / (centred * centred).sum().clamp(min=1e-300)).clamp(min=0)
    deviation = (spread - factor * centred).abs()
    allowed = _OF_SPREAD * spread.abs().max() + _ROUNDING * eps * theirs.abs().max()
    return int(deviation.argmax()) if bool(deviation.max() > allowed) else None
