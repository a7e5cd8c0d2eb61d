"""What a model of transformers routes, seen without our gates: by gradients, and by what its experts are called with.

Shape suffixes: N tokens, each alone; T tokens of one call, E experts, k chosen experts per token.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_moe.nn import HFDecoder


def used_by_gradient(decoder: HFDecoder, ids_N: Tensor) -> dict[str, Tensor]:
    """Return which experts each token uses when it is alone, by which experts get a gradient from it.

    Args:
        decoder: The network.
        ids_N: Token ids.

    Returns:
        By gate: shape ``(tokens, experts)``, True where the expert has a gradient. Experts without weights, such as
        those that return their input, have no column.
    """
    weights = {name: _weights(decoder, name) for name in decoder.watched}
    used: dict[str, list[Tensor]] = {name: [] for name in weights}
    for token in ids_N:
        decoder.zero_grad()
        states = decoder.hidden(token.reshape(1, 1))
        (states * torch.arange(states.numel()).reshape(states.shape).cos()).sum().backward()
        for name, stacks in weights.items():
            # the fewest: LongCat has rows in one of its stacks for experts that return their input
            columns = torch.zeros(min((count for _, count in stacks), default=0), dtype=torch.bool)
            for weight, count in stacks:
                if weight.grad is not None:
                    columns |= weight.grad.reshape(count, -1).ne(0).any(1)[: len(columns)]
            used[name].append(columns)
    decoder.zero_grad()
    return {name: torch.stack(rows) for name, rows in used.items()}


def _weights(decoder: HFDecoder, gate: str) -> list[tuple[nn.Parameter, int]]:
    """Return the weights of the experts beside a gate, and how many experts each holds, one after the other."""
    block = decoder.model.get_submodule(gate.rpartition(".")[0])
    columns = decoder.watched[gate].router.n_experts
    found = []
    for name, weight in block.named_parameters():
        if "shared" in name:
            continue
        if weight.dim() == 3:
            found.append((weight, len(weight)))
        elif weight.dim() == 2 and "experts" in name and len(weight) > columns and len(weight) % columns == 0:
            found.append((weight, columns))
    return found


class Routed:
    """The experts and logits of the layers in one call of a model, noted by hooks of this class.

    Attributes:
        logits: Logits of each layer, shape ``(tokens, experts)``, with their graph, by the gate's name.
        indices: Experts that each token is sent to, shape ``(tokens, k)``, by the gate's name.
    """

    def __init__(self) -> None:
        self.logits: dict[str, Tensor] = {}
        self.indices: dict[str, Tensor] = {}


@contextmanager
def routed(model: nn.Module, gates: Mapping[str, int]) -> Iterator[Routed]:
    """Note what the layers of a model route in the calls inside the context; the last one stays.

    The logits are the only numbers that a gate returns for all experts and that are not between 0 and 1, or the output
    of its linear layer; the experts are the whole numbers that a module beside the gate is called with.

    Args:
        model: A causal language model of transformers.
        gates: Number of columns of the logits of its gates by name.
    """
    seen, handles = Routed(), []
    for name, columns in gates.items():
        gate = model.get_submodule(name)
        block = name.rpartition(".")[0]

        def note(module: nn.Module, args: Any, output: Any, name: str = name, columns: int = columns) -> None:
            parts = [part for part in (output if isinstance(output, tuple) else (output,)) if torch.is_tensor(part)]
            seen.logits[name] = _logits(parts, seen.logits.get(name), columns)

        def note_product(module: nn.Module, args: Any, output: Tensor, name: str = name) -> None:
            seen.logits[name] = output

        handles += [m.register_forward_hook(note_product) for m in gate.children() if isinstance(m, nn.Linear)]
        handles.append(gate.register_forward_hook(note))
        for inner_name, inner in model.get_submodule(block).named_modules():
            if inner is not gate and inner_name and not f"{block}.{inner_name}.".startswith(f"{name}."):

                def note_experts(module: nn.Module, args: Any, name: str = name, last: int = columns - 1) -> None:
                    tensors = [arg for arg in args if torch.is_tensor(arg)]
                    for indices in tensors:
                        beside = [part for part in tensors if part is not indices and part.shape == indices.shape]
                        if beside and not indices.is_floating_point():
                            skipped = (beside[0] == 0) & (last == _experts(module))
                            seen.indices[name] = indices.masked_fill(skipped, last)

                handles.append(inner.register_forward_pre_hook(note_experts))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def score_in_source(gate: nn.Module, config: Any) -> str:
    """Return how a gate scores experts, as its source and its config say: softmax, sigmoid or sqrtsoftplus.

    Args:
        gate: The gate.
        config: The config of its model.
    """
    source = inspect.getsource(type(gate))
    for key in ("scoring_func", "expert_selection_fn"):
        if f"config.{key}" in source:
            return str(getattr(config, key))
    return "sigmoid" if "sigmoid" in source else "softmax"


def _logits(parts: list[Tensor], product: Tensor | None, columns: int) -> Tensor:
    """Return the logits in what a gate returned over all experts, which are not bounded by 0 and 1, or its product."""
    rows = [part for part in parts if part.is_floating_point() and part.shape[-1] == columns]
    unbounded = [part for part in rows if bool((part < 0).any())]
    logits = unbounded[0] if unbounded else product
    assert logits is not None, "a gate that returns no logits has a linear product"
    return logits.reshape(-1, columns)


def _experts(module: nn.Module) -> int:
    return max((len(parameter) for parameter in module.parameters() if parameter.dim() == 3), default=0)
