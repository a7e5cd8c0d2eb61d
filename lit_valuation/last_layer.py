"""The last linear layer of a model: its inputs, its outputs, and the gradient of the loss there per sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lit_core.data.stream import IGNORED
from lit_core.errors import UserError
from lit_core.lightning.evaluation_mode import evaluating
from lit_valuation.batches import as_batch
from lit_valuation.contract import class_names, ignored_of, logits_of, loss_of, positions_of, smoothing_of
from lit_valuation.functional.gradients import Loss, SampleGradients, last_layer_gradients
from lit_valuation.functional.losses import sample_losses, token_losses
from lit_valuation.functional.token_gradients import OutputLayer, concatenated, token_gradients
from lit_valuation.samples import NAMED, Samples

#: Most outputs of a forward pass over texts.
_OUTPUTS = 2**25


@dataclass(frozen=True)
class PoolGradients:
    """Gradients of the last layer at labelled samples.

    Args:
        gradients: Gradients of n samples.
        y: Class indices, int64 of shape ``(n,)``; zeros where the targets are not classes.
        index: Index of each sample in its set, int64 of shape ``(n,)``; the order of reading if batches have none.
        wrong: Whether the module misclassifies each sample, bool of shape ``(n,)``; None where targets are not classes.
        losses: Loss of each sample, ``(n,)``.
    """

    gradients: SampleGradients
    y: Tensor
    index: Tensor
    wrong: Tensor | None
    losses: Tensor

    def take(self, rows: Tensor) -> PoolGradients:
        """Return the gradients of the samples where ``rows``, bool of shape ``(n,)``, is true."""
        chosen = rows.nonzero()[:, 0]
        wrong = None if self.wrong is None else self.wrong[chosen]
        return PoolGradients(
            self.gradients.take(chosen), self.y[chosen], self.index[chosen], wrong, self.losses[chosen]
        )


def find_last_linear(module: nn.Module, name: str | None = None) -> nn.Linear:
    """Return the last linear layer of a module.

    Args:
        module: The network or the LightningModule around it.
        name: Name of the layer in the module, such as ``network.head``; None takes the one that the module's attribute
            ``head`` names or is, or else the layer that was registered last.

    Raises:
        UserError: If there is no such layer.
    """
    linear = {key: layer for key, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    own = getattr(module, "head", None) if name is None else name
    if isinstance(own, nn.Linear):
        return own
    name = own if isinstance(own, str) else None
    if name is not None:
        if name not in linear:
            raise UserError(
                f"head is {name!r}, but {type(module).__name__} has no nn.Linear of that name; it has "
                f"{', '.join(linear) or 'none'}."
            )
        return linear[name]
    if not linear:
        raise UserError(
            f"{type(module).__name__} has no nn.Linear, but gradients are matched at a last linear layer; end the "
            "network in one."
        )
    return list(linear.values())[-1]


def hidden_and_logits(
    module: nn.Module, x: Any, head: nn.Linear | None = None, has_positions: bool = False
) -> tuple[Tensor, Tensor]:
    """Run a classifier and return the inputs and the outputs of its last linear layer.

    Args:
        module: Maps inputs to logits; its output must be that of the last linear layer.
        x: Inputs as the module takes them.
        head: The last linear layer; None finds it with `find_last_linear`.
        has_positions: Whether the layer sees each position of a text.

    Returns:
        Hidden features ``(batch, d)`` and logits ``(batch, C)``; with positions ``(batch, positions, d)`` and so on.

    Raises:
        UserError: If the module fails on these inputs, or does not return the output of that layer.
    """
    head = find_last_linear(module) if head is None else head
    calls: list[tuple[Tensor, Tensor]] = []
    hook = head.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    try:
        logits = logits_of(module, x)
    finally:
        hook.remove()
    comparable = calls and logits.ndim == 2 + has_positions and logits.shape == calls[-1][1].shape
    if not comparable or not torch.equal(logits.nan_to_num(), calls[-1][1].to(logits.dtype).nan_to_num()):
        raise UserError(
            f"The output of {type(module).__name__} is not that of its last nn.Linear, but gradients are matched at a "
            f"linear head; return the logits (batch, {'positions, ' if has_positions else ''}classes), or name the "
            "layer that makes them."
        )
    return calls[-1]


def wanted_outputs(module: nn.Module, y: Tensor) -> Tensor:
    """Return what a module's loss compares its outputs with: ``module.wanted_outputs(y)`` if it has that, else ``y``.

    Args:
        module: The model; one that scales its targets, as `RegressionTask` does, has the method.
        y: Targets of samples.
    """
    convert = getattr(module, "wanted_outputs", None)
    wanted: Tensor = y if convert is None else convert(y)
    return wanted


def check_module(module: nn.Module, samples: Samples) -> None:
    """Check that a module returns the output of its last linear layer, of a known loss, with one logit per class.

    Args:
        module: The module.
        samples: Samples as it is used on, one or more, with its own order of classes.

    Raises:
        UserError: If it does not.
    """
    name, classes, head, loss = type(module).__name__, samples.classes, find_last_linear(module), loss_of(module)
    largest = int(samples.x.max()) if samples.target == "text" else 0
    if largest >= head.out_features:
        raise UserError(
            f"{name} has {head.out_features} outputs, but the texts have the token {largest}; prepare them with the "
            "tokenizer of the model."
        )
    with evaluating(module), torch.no_grad():
        inputs = samples.take([0]).inputs().to(head.weight.device)
        _, logits = hidden_and_logits(module, inputs, head, samples.has_positions)
    if samples.target != "text" and logits.shape[-1] != len(classes):
        raise UserError(
            f"{name} has {logits.shape[-1]} outputs, but there are {len(classes)} {NAMED[samples.target]} "
            f"({', '.join(classes)}); use data as it was trained on, or name these in its attribute `classes`."
        )
    if samples.has_positions:
        positions_of(module)
        if loss != "cross_entropy":
            raise UserError(
                f"{name} has the loss {loss}, but the data have {NAMED[samples.target]}, which need cross_entropy; use "
                "a model that was trained with it."
            )
    elif samples.target != "class" and loss == "cross_entropy":
        raise UserError(
            f"{name} has the loss cross_entropy, but the data have {NAMED[samples.target]}; set its attribute `loss` "
            f"to {'logistic' if samples.target == 'labels' else 'squared'}, if it was trained on these."
        )


def fitted(samples: Samples, module: nn.Module) -> Samples:
    """Return samples with the class indices or target columns of a module, which is checked on one of them.

    Args:
        samples: The samples, one or more.
        module: The module.

    Raises:
        UserError: If the module learns another kind of targets, has not their classes or columns, or fails on them.
    """
    target = getattr(module, "target", samples.target)
    if target != samples.target:
        raise UserError(
            f"The samples have the target {samples.target}, but {type(module).__name__} learns {target}; use a model "
            "of such data."
        )
    numbered = samples if target == "text" else samples.renumbered(class_names(module, samples.classes))
    check_module(module, numbered)
    return numbered


def gather_gradients(
    module: nn.Module,
    batches: Iterable[Any],
    *,
    keys: Sequence[str | int] = ("x", "y"),
    head: str | None = None,
    loss: Loss | None = None,
    label_smoothing: float | None = None,
) -> PoolGradients:
    """Compute the gradient of the loss at the last layer for each sample, without a backward pass.

    The module runs in evaluation mode, without dropout and without batch statistics. The batches should be
    deterministic, without random augmentation. Rows with an ``index`` of -1 are left out.

    Args:
        module: The model; its mode and its device do not change.
        batches: Batches ``(x, y)`` or mappings with the keys.
        keys: Names of inputs and labels in a mapping.
        head: Name of the last linear layer; None takes the layer that was registered last.
        loss: The loss that the module was trained with; None takes that of `loss_of`.
        label_smoothing: Label smoothing of that loss, from 0 to below 1; None takes that of `smoothing_of`.

    Returns:
        The gradients on the CPU, in the order of reading; zero rows if there are no samples.

    Raises:
        UserError: If the module does not end in a linear layer, or a gradient is not finite.
    """
    layer = find_last_linear(module, head)
    device = layer.weight.device
    loss = loss_of(module) if loss is None else loss
    if label_smoothing is None:
        label_smoothing = smoothing_of(module) if loss == "cross_entropy" else 0.0
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    of_texts: list[PoolGradients] = []
    output: OutputLayer | None = None
    n_read = 0
    with evaluating(module), torch.no_grad():
        for item in batches:
            batch = as_batch(item, keys)
            inputs = apply_to_collection(batch.x, Tensor, lambda tensor: tensor.to(device))
            hidden, logits = hidden_and_logits(module, inputs, layer, batch.has_positions)
            if hidden.shape[0] != len(batch.y):
                raise UserError(
                    f"The last linear layer sees {hidden.shape[0]} rows of a batch of {len(batch.y)}, but gradients "
                    "are matched sample by sample; give it one row per sample."
                )
            index = torch.arange(n_read, n_read + len(batch.y)) if batch.index is None else batch.index
            n_read += len(batch.y)
            real = batch.scored().cpu()
            wanted = wanted_outputs(module, batch.y.to(device))
            columns = tuple(column.cpu()[real] for column in (logits, hidden, wanted, index))
            if batch.has_positions:
                if loss != "cross_entropy":
                    raise UserError(
                        f"The loss is {loss}, but the samples have a target per token, whose loss is cross_entropy; "
                        "set it to that."
                    )
                output = output or _output_layer(layer, label_smoothing)
                of_texts.append(_of_texts(module, output, *columns))
            else:
                parts.append(columns)  # type: ignore[arg-type]
    if of_texts:
        names = ("y", "index", "losses")
        joined = {name: torch.cat([getattr(part, name) for part in of_texts]) for name in names}
        return PoolGradients(concatenated([part.gradients for part in of_texts]), wrong=None, **joined)
    if not parts:
        empty, width = torch.empty(0, dtype=torch.int64), layer.out_features
        none = empty if loss == "cross_entropy" else torch.empty(0, width)
        parts = [(torch.empty(0, width), torch.empty(0, layer.in_features), none, empty)]
    logits, hidden, wanted, index = (torch.cat(column) for column in zip(*parts, strict=True))
    finite = logits.isfinite().all(1) & hidden.isfinite().all(1)
    _check_finite(finite, index)
    gradients = last_layer_gradients(logits, hidden, wanted, loss, label_smoothing, bias=layer.bias is not None)
    losses = sample_losses(logits.float(), wanted, loss)
    if wanted.is_floating_point():
        return PoolGradients(gradients, torch.zeros(len(wanted), dtype=torch.int64), index, None, losses)
    predicted = logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()
    return PoolGradients(gradients, wanted, index, predicted != wanted, losses)


def _output_layer(layer: nn.Linear, label_smoothing: float) -> OutputLayer:
    """Return a copy of a layer, which does not change when the training goes on."""
    bias = None if layer.bias is None else layer.bias.detach().float().cpu().clone()
    return OutputLayer(layer.weight.detach().float().cpu().clone(), bias, label_smoothing)


def _of_texts(
    module: nn.Module, layer: OutputLayer, logits: Tensor, hidden: Tensor, y: Tensor, index: Tensor
) -> PoolGradients:
    """Return the gradients of a batch of texts, over the positions that the module's loss counts."""
    y, positions = counted_targets(module, y), positions_of(module)
    counted = y != IGNORED
    if counted.shape != logits.shape[:2]:
        raise UserError(
            f"The last linear layer sees {logits.shape[1]} positions of texts with {y.shape[1]}, but gradients need a "
            "target at each; let the module return logits at all positions of its input."
        )
    is_finite = (logits.isfinite().all(2) & hidden.isfinite().all(2)) | ~counted
    _check_finite(is_finite.all(1), index)
    losses = token_losses(logits.float(), y, positions)
    none = torch.zeros(len(y), dtype=torch.int64)
    return PoolGradients(token_gradients(layer, hidden, y, counted, positions), none, index, None, losses)


def counted_targets(module: nn.Module, y: Tensor) -> Tensor:
    """Return targets of positions, with -100 also where they have the index that the module's loss ignores."""
    return y.where(y != ignored_of(module), IGNORED)


def rows_at_once(module: nn.Module, samples: Samples, batch_size: int = 256) -> int:
    """Return how many samples go through a module at once: of texts as many as do not need too much memory."""
    if not samples.has_positions:
        return batch_size
    return max(1, min(batch_size, _OUTPUTS // (samples.x.shape[1] * find_last_linear(module).out_features)))


def _check_finite(is_finite: Tensor, index: Tensor) -> None:
    if not bool(is_finite.all()):
        raise UserError(
            f"The gradient at sample {int(index[~is_finite][0])} is not finite, so nothing can be matched with it; "
            "check the sample's values, or use an earlier checkpoint."
        )
