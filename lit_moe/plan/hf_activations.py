"""Memory of a training step of a model of transformers, from a step in which nothing is computed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

from lit_core.errors import reason_of
from lit_moe.nn.hf_flops import fingerprint, largest_list, shapes
from lit_moe.plan.layout import Layout
from lit_moe.plan.live_bytes import LiveBytes, StandIns


class UnknownMemory(Exception):
    """The memory of a model is not known; the message says why."""


class Kept(NamedTuple):
    """Bytes of a layer: kept for the backward pass, needed in it besides, and of weights kept in 16 bits."""

    activations: float
    working: float
    copies: float


class Activations(NamedTuple):
    """Bytes of a micro-batch: of each layer, of all else at the loss, and of what layers share to the end."""

    layers: list[Kept]
    outer: float
    shared: float


def activations(build: Callable[[], Any], exact: set[str], to_logits: bool, layout: Layout) -> Activations:
    """Return what a training step of a model keeps and needs, layer by layer.

    torch runs the model's own code on tensors without memory, forward and backward, and all tensors that are alive are
    counted. Attention by ``scaled_dot_product_attention`` counts as flash attention, the grouped product of experts as
    torch's. Layers that differ only in their weights are run once. All parameters are taken to be trained.

    Args:
        build: Builds the model in float32; it is called where no tensor takes memory.
        exact: Names of the parameters that stay in float32.
        to_logits: Whether the model itself makes the logits; else its output layer is left out.
        layout: Division of a training step over devices.

    Raises:
        UnknownMemory: If the work depends on the tokens themselves.
    """
    try:
        with FakeTensorMode():
            model = build().train()
            for name, parameter in model.named_parameters():
                narrow = layout.stream == 2 and name not in exact
                parameter.requires_grad_(True)
                if narrow:
                    parameter.data = parameter.data.to(_half(layout))
            return _Step(model, layout).run(to_logits)
    except Exception as error:  # whatever tensors without values cannot do, by torch and by the model's own checks
        reason = f"{type(error).__name__}: {reason_of(error, 100)}"
        raise UnknownMemory(f"its work depends on the tokens ({reason})") from error


class _Step:
    """A forward pass whose layers are each followed by their backward pass."""

    def __init__(self, model: Any, layout: Layout) -> None:
        self._model, self._layout = model, layout
        self._live = LiveBytes(list(model.parameters()))
        self._layers: dict[Any, tuple[Kept, Any]] = {}
        self._each: list[Kept] = []
        self._before = self._entry = 0

    def run(self, to_logits: bool) -> Activations:
        """Return what the step keeps and needs."""
        for layer in largest_list(self._model):
            layer.forward = partial(self._of_layer, layer, layer.forward)
        layout, network = self._layout, self._model if to_logits else self._model.base_model
        tokens = torch.zeros(layout.micro_batch_size, layout.sequence_length, dtype=torch.long)
        with self._live, StandIns(), self._autocast():
            output = network(input_ids=tokens, use_cache=False)
            whole = self._live.now - self._live.copies
        del output
        return Activations(self._each, whole - self._before, self._before - self._entry)

    def _autocast(self) -> Any:
        layout = self._layout
        return torch.autocast("cpu", _half(layout)) if layout.stored != layout.operand else nullcontext()

    def _of_layer(self, layer: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        key = fingerprint(layer), shapes(args), shapes(kwargs)
        if key not in self._layers:
            self._layers[key] = self._measure(layer, forward, args, kwargs)
        kept, output = self._layers[key]
        self._each.append(kept)
        return tree_map(lambda one: one() if isinstance(one, _Like) else one, output)

    def _measure(self, layer: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Kept, Any]:
        live = self._live
        if not self._each:
            self._before = live.now - live.copies
            self._entry = next(one.nbytes for one in _trained((args, kwargs)))
        before, copied = live.now, live.copies
        args, kwargs = tree_map(_as_input, (args, kwargs))
        output = forward(*args, **kwargs)
        del args, kwargs
        results = _trained(output)
        kept, copies = live.now - before - sum(one.nbytes for one in results), live.copies - copied
        live.peak = live.now
        torch.autograd.backward(results, [torch.empty_like(one) for one in results])
        gradients = [one.grad for one in layer.parameters() if one.grad is not None]
        working = live.peak - before - sum(one.nbytes for one in (*results, *gradients)) - kept
        layer.zero_grad()
        return Kept(kept - copies, max(working, 0), copies), tree_map(_Like.of, output)


def _half(layout: Layout) -> torch.dtype:
    return torch.float16 if layout.precision.startswith("16") else torch.bfloat16


def _trained(values: Any) -> list[Tensor]:
    return [one for one in tree_leaves(values) if isinstance(one, Tensor) and one.requires_grad]


def _as_input(value: Any) -> Any:
    """Return an argument of a layer as one that gets a gradient, where the argument does."""
    if isinstance(value, Tensor) and value.requires_grad:
        return value.detach().requires_grad_().clone()
    return value


@dataclass(frozen=True)
class _Like:
    """Makes tensors of one kind, so that none has to be kept."""

    shape: torch.Size
    dtype: torch.dtype
    trained: bool

    @classmethod
    def of(cls, value: Any) -> Any:
        return cls(value.shape, value.dtype, value.requires_grad) if isinstance(value, Tensor) else value

    def __call__(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, requires_grad=self.trained)
