"""Finds foreign gates, Hugging Face's or any that are named, and hooks in what measures them and adds losses.

`lit_moe.nn.hf_gates` knows transformers' gates, `lit_moe.nn.watched_gate` reads a gate's calls.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Literal

from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.origin import python_number
from lit_core.screen import rank_zero_info, rank_zero_warn
from lit_moe.nn.gate_router import GateRouter
from lit_moe.nn.hf_bias import SelectionBias
from lit_moe.nn.hf_gates import experts_of, gate_sizes, is_model, projection, recorded_gates, selection_biases
from lit_moe.nn.router import WATCH, check_top_k
from lit_moe.nn.watched_gate import Padding, WatchedGate

#: Attributes of a model of transformers: the object that holds its mask, and whether its gates are watched.
_PADDING, _SEARCHED = "_lit_moe_padding", "_lit_moe_searched"


def watch_gates(
    model: nn.Module,
    gates: str | None = None,
    top_k: int | None = None,
    balance_weight: float = 0.0,
    z_weight: float = 0.0,
    sequence_weight: float = 0.0,
    global_weight: float = 0.0,
    selection_bias: Literal["frozen", "loss_free"] = "frozen",
    bias_rate: float = 0.001,
) -> dict[str, WatchedGate]:
    """Watch the gates of foreign mixture layers, so that `moe_layers` returns them, and switch on losses for them.

    Without losses, the mixtures of transformers need no call of this function: `moe_layers` watches the gates whose
    logits their models record. Each layer's losses are those of `PenaltyRouter`. Transformers' balance loss of one
    layer is top_k times ours. Theirs multiplies counts and probabilities pooled over all layers, and ours sums the
    losses of the layers. Padding is read from the ``attention_mask`` of the transformers model that holds the gate.

    What is counted are the experts that the module beside the gate is called with. The first call of a gate proves
    that their weights are made of its logits, by a softmax, a sigmoid or another known score; a gate for which this
    fails, or that never runs, is an error if it has losses or was named, and is else not measured, with a warning.

    Args:
        model: A module that may hold gates at any depth.
        gates: Regular expression that the end of a gate's name matches, such as ``moe.gate``, to take some of the gates
            that transformers records, or those of other models; there the module has a weight of shape
            ``(experts, width)`` and returns logits, alone or first of a tuple that may hold the chosen experts too.
            None takes all gates that transformers records.
        top_k: Experts per token, needed if the gate has no attribute ``top_k``.
        balance_weight: Factor of the balance loss of a micro-batch, 0 or more.
        z_weight: Factor of the z-loss, 0 or more.
        sequence_weight: Factor of the balance loss of each sequence by itself, 0 or more.
        global_weight: Factor of the balance loss of the optimizer step so far on all devices, 0 or more; it needs
            `step_routers` at the end of each step.
        selection_bias: Whether the bias by which a gate chooses stays as it is, frozen; or is moved after each
            optimizer step towards an even load, loss_free, which needs `step_routers` too.
        bias_rate: Amount by which the bias moves per optimizer step, above 0, in the unit of the scores.

    Returns:
        The gates by name, in order; none if there are none.

    Raises:
        UserError: If `gates` matches no module or none that is a gate, a gate has no selection bias to be moved, or a
            number is out of its range.
    """
    if selection_bias not in ("frozen", "loss_free"):
        raise UserError(f'`selection_bias` is "{selection_bias}" but must be frozen or loss_free; set one of them.')
    make = partial(
        GateRouter,
        balance_weight=balance_weight,
        z_weight=z_weight,
        sequence_weight=sequence_weight,
        global_weight=global_weight,
        bias_rate=bias_rate,
    )
    found = {name: watched for name, module in model.named_modules() if (watched := gate_of(module, name)) is not None}
    if gates is not None:
        found = {name: _watched(model, name, found, top_k) for name in _named(model, gates, found)}
    top_k = python_number(top_k)
    for name, watched in found.items():
        bias = None if selection_bias == "frozen" else _bias(model, name, watched)
        watched.router = make(watched.router.n_experts, top_k or watched.router.top_k, bias=bias)
        watched.named |= gates is not None
    return found


def say_frozen_biases(model: nn.Module, watched: Mapping[str, WatchedGate]) -> None:
    """Say how many gates have a selection bias that no step moves, and how it can be moved; nothing if none has.

    Args:
        model: The model.
        watched: Its gates by name.
    """
    biased = sum(gate.biased for gate in watched.values())
    if biased:
        rank_zero_info(
            f"The selection bias of {biased} gates of {type(model).__name__} stays as it is; with "
            "`selection_bias: loss_free` it would go on balancing the experts."
        )


def _watched(model: nn.Module, name: str, found: Mapping[str, WatchedGate], top_k: int | None) -> WatchedGate:
    """Return the watched gate of a name, which is watched from now on if it was not."""
    if name not in found:
        gate = model.get_submodule(name)
        _watch(model, name, GateRouter(*_sizes(name, gate, top_k)), name)
        return vars(gate)[WATCH]
    return found[name]


def gate_of(module: nn.Module, name: str) -> WatchedGate | None:
    """Return the `WatchedGate` of a module; None if it is not a gate.

    The gates inside a model of transformers are watched from the first call with the model.

    Args:
        module: The module.
        name: Its name in the model that contains it, for messages.
    """
    if is_model(module):
        _watch_model(module, name)
    return vars(module).get(WATCH)


def padding_of(model: nn.Module, around: Padding | None = None) -> Padding:
    """Return the `Padding` of a model, which is created and hooked in at the first call.

    Args:
        model: A model that takes an ``attention_mask``.
        around: The `Padding` of the model that it is a part of; None if there is none.
    """
    padding: Padding | None = vars(model).get(_PADDING)
    if padding is None:
        padding = Padding(around)
        setattr(model, _PADDING, padding)
        model.register_forward_pre_hook(padding.note, with_kwargs=True)
        model.register_forward_hook(padding.check)
    return padding


def _watch_model(model: nn.Module, prefix: str) -> None:
    """Watch the gates that a model of transformers records, unless this was done before."""
    if _SEARCHED in vars(model):
        return
    for module in model.modules():
        if is_model(module):
            setattr(module, _SEARCHED, True)
    for name, index in recorded_gates(model).items():
        full = f"{prefix}.{name}" if prefix else name
        sizes = gate_sizes(model, name)
        if sizes is None:
            rank_zero_warn(
                f"The routing of {full}, a {type(model.get_submodule(name)).__name__}, is not measured or balanced: it "
                "does not tell the number of its experts as other gates do."
            )
        elif vars(model.get_submodule(name)).get(WATCH) is None:
            check_top_k(*sizes, normalize_top_k=False)
            _watch(model, name, GateRouter(*sizes), full, index)


def _watch(model: nn.Module, name: str, router: GateRouter, full: str, index: int | None = None) -> None:
    gate, experts, padding = model.get_submodule(name), experts_of(model, name), _padding_around(model, name)
    watched = WatchedGate(full, router, padding, index, experts, _skips(experts, router.n_experts))
    watched.biased = bool(selection_biases(gate, model.get_submodule(name.rpartition(".")[0])))
    setattr(gate, WATCH, watched)
    gate.register_forward_hook(watched.read, with_kwargs=True)
    inner = None if index is None else projection(gate)
    if inner is not None:
        inner.register_forward_hook(watched.read_inner)
    if experts is not None:
        experts.register_forward_pre_hook(watched.read_experts, with_kwargs=True)
    if padding is not None:
        padding.gates.append(watched)


def _skips(experts: nn.Module | None, columns: int) -> bool:
    """Tell whether a gate has one column more than there are experts."""
    sizes = [] if experts is None else [len(parameter) for parameter in experts.parameters() if parameter.dim() == 3]
    return max(sizes, default=columns) == columns - 1


def _padding_around(model: nn.Module, name: str) -> Padding | None:
    """Return the `Padding` of the innermost transformers model around a module; None if there is none."""
    padding, parts = None, name.split(".")
    for length in range(len(parts)):
        around = model.get_submodule(".".join(parts[:length]))
        if is_model(around):
            padding = padding_of(around, padding)
    return padding


def _named(model: nn.Module, gates: str, recorded: Iterable[str]) -> list[str]:
    """Return the names of the gates that a pattern means: recorded ones that it names or is inside of, or its own."""
    pattern = _compiled(gates)
    matches = [name for name, _ in model.named_modules() if pattern.search(name)]
    if not matches:
        raise UserError(f"`gates` is {gates}, but no module's name ends so; print the model and name its gates.")
    names = []
    for match in matches:
        related = [name for name in recorded if f"{match}.".startswith(f"{name}.") or name.startswith(f"{match}.")]
        names += related or [match]
    return list(dict.fromkeys(names))


def _bias(model: nn.Module, name: str, watched: WatchedGate) -> SelectionBias:
    """Return the selection bias of a gate."""
    block = name.rpartition(".")[0]
    gate = model.get_submodule(name)
    found = selection_biases(gate, model.get_submodule(block))
    if len(found) != 1 or getattr(found[0][0], found[0][1]).numel() != watched.router.n_experts or watched.skips:
        has = "no selection bias" if not found else "a selection bias with an entry for what is no expert"
        raise UserError(
            f"`selection_bias` is loss_free, but the gate {watched.name}, a {type(gate).__name__}, has {has}; set it "
            "to frozen, and use `balance_weight`."
        )
    return SelectionBias(*found[0], f"{watched.name.rpartition('.')[0]}.{found[0][1]}")


def _compiled(gates: str) -> re.Pattern[str]:
    # a checkpoint may name any pattern, and one with nested repeats can take for ever
    if re.search(r"\)[*+{]", gates) or len(re.findall(r"[*+{]", gates)) > 3:
        raise UserError(f"`gates` is {gates}, but may repeat at most three times, and no group; write the names out.")
    try:
        return re.compile(f"(?:{gates})$")
    except re.error as error:
        raise UserError(
            f"`gates` is {gates}, which is not a valid regular expression ({error}); correct it."
        ) from error


def _sizes(name: str, gate: nn.Module, top_k: int | None) -> tuple[int, int]:
    """Return a gate's numbers of experts and of experts per token."""
    weight = getattr(gate, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise UserError(
            f"`gates` names {name}, a {type(gate).__name__} without a weight of shape (experts, width); name the "
            "module that has it."
        )
    chosen = python_number(getattr(gate, "top_k", None) if top_k is None else top_k)
    if not isinstance(chosen, int):
        raise UserError(f"`gates` names {name}, which has no attribute top_k; set `top_k` to the experts per token.")
    check_top_k(len(weight), chosen, normalize_top_k=False)
    return len(weight), chosen
