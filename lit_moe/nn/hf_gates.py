"""Gates of transformers' mixtures: which modules they are, as transformers records them, and how large they are.

Shape suffixes: E columns of the logits, k chosen experts per token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.origin import python_number

_RETURN_LOGITS = RequirementCache("transformers>=5.6")
#: Keys of a config that hold the experts per token, for gates that do not say it themselves.
_CHOSEN = ("num_experts_per_tok", "moe_topk", "moe_top_k", "top_k_experts", "num_experts_per_token")


def is_model(module: nn.Module) -> bool:
    """Tell whether a module is a model of transformers, which records the logits of the gates inside it."""
    return hasattr(module, "base_model_prefix") and hasattr(module, "_can_record_outputs")


def recorded_gates(model: nn.Module) -> dict[str, int]:
    """Return the gates whose logits transformers records when it is asked for ``router_logits``.

    Each model of transformers names the class of its gates, and the position of the logits in what they return; inside
    a model that is part of another one, its own names hold. Of two recorded modules, one in the other, it is the inner
    one that is the gate.

    Args:
        model: A model of transformers.

    Returns:
        Position of the logits in the gate's output, by the gate's name, in the order of the modules.

    Raises:
        UserError: If there are gates, but the version of transformers is one whose gates return no logits.
    """
    found = dict(_recorded(model, "", []))
    gates = {name: index for name, index in found.items() if not any(other.startswith(f"{name}.") for other in found)}
    if gates and not _RETURN_LOGITS:
        raise UserError(
            f"The gate {type(model.get_submodule(next(iter(gates)))).__name__} needs `transformers>=5.6`, as earlier "
            "versions return probabilities instead of logits; install a newer version."
        )
    return gates


def _recorded(module: nn.Module, name: str, specs: list[Any]) -> Iterator[tuple[str, int]]:
    if is_model(module):
        records: Any = module._can_record_outputs
        named = (records or {}).get("router_logits", [])
        specs = named if isinstance(named, list) else [named]
    for spec in specs:
        index = _position(spec, module, name)
        if index is not None:
            yield name, index
            break
    for child, inner in module.named_children():
        yield from _recorded(inner, f"{name}.{child}" if name else child, specs)


def _position(spec: Any, module: nn.Module, name: str) -> int | None:
    """Return where a module's output has the logits if a spec of transformers means the module; None if it does not."""
    # a class alone stands for the second part of what it returns, as transformers has it
    kind = spec if isinstance(spec, type) else getattr(spec, "target_class", None)
    suffix = spec if isinstance(spec, str) else getattr(spec, "class_name", None)
    layer = getattr(spec, "layer_name", None)
    means = (kind is not None and isinstance(module, kind)) or (suffix is not None and name.endswith(suffix))
    if not means or (layer is not None and f".{layer.strip('.')}." not in f".{name}."):
        return None
    return int(getattr(spec, "index", 1))


def gate_sizes(model: nn.Module, name: str) -> tuple[int, int] | None:
    """Return the number of columns of a recorded gate's logits and its experts per token; None if they are not told.

    The columns are those of its selection bias, where it has one, and else of its projection: some gates have columns
    for what is no routed expert, such as shared experts or none at all.

    Args:
        model: The model.
        name: Name of the gate in the model.
    """
    gate, block = model.get_submodule(name), model.get_submodule(name.rpartition(".")[0])
    configs = [getattr(part, "config", None) for part in (gate, block, model)]
    told = [getattr(part, key, None) for part in (gate, block) for key in ("top_k", *_CHOSEN)]
    told += [getattr(config, key, None) for config in configs for key in _CHOSEN]
    top_k = next((number for number in map(python_number, told) if isinstance(number, int)), None)
    columns = _columns(gate, block)
    return None if columns is None or top_k is None else (columns, top_k)


def _columns(gate: nn.Module, block: nn.Module) -> int | None:
    bias = next(iter(selection_biases(gate, block)), None)
    if bias is not None:
        return int(getattr(*bias).numel())
    weight = getattr(gate, "weight", None)
    if isinstance(weight, Tensor) and weight.dim() == 2:
        return len(weight)
    inner = projection(gate)
    return None if inner is None else len(inner.weight)


def projection(gate: nn.Module) -> nn.Linear | None:
    """Return the one linear layer inside a gate; None if it has none, or several."""
    linear = [module for module in gate.modules() if isinstance(module, nn.Linear) and module is not gate]
    return linear[0] if len(linear) == 1 else None


def selection_biases(gate: nn.Module, block: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return the tensors that may be added to a gate's scores when it chooses: module and attribute.

    They are vectors of the gate or of the module around it that no gradient trains and whose names end in bias or
    biases.

    Args:
        gate: The gate.
        block: The module around it.
    """
    found = []
    for owner in (*gate.modules(), block):
        for attribute, tensor in (*owner.named_buffers(recurse=False), *owner.named_parameters(recurse=False)):
            vector = tensor.numel() == max(tensor.shape, default=0) > 1
            if vector and not tensor.requires_grad and attribute.endswith(("bias", "biases")):
                found.append((owner, attribute))
    return found


def experts_of(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module with the experts that a gate chooses among; None if none is named so beside it.

    Args:
        model: The model.
        name: Name of the gate in the model.
    """
    around = name
    for _ in range(2):
        around = around.rpartition(".")[0]
        for child, module in model.get_submodule(around).named_children():
            inside = f"{around}.{child}" if around else child
            called = "experts" in child and "shared" not in child and not isinstance(module, nn.ModuleList)
            if called and not f"{name}.".startswith(f"{inside}."):
                return module
        if not around:
            break
    return None
