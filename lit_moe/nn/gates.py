"""Statistics and losses of foreign gates, Hugging Face's or any that are named, read by forward hooks.

Shape suffixes: B batch, K tokens of a row, T tokens of one call, E experts, k chosen experts per token.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.origin import python_number
from lit_moe.nn.penalty_router import PenaltyRouter
from lit_moe.nn.router import RouterStats, check_top_k, recomputing

#: Gate classes of transformers that need not be named; they return logits, weights and chosen experts.
KNOWN_GATES = frozenset({"MixtralTopKRouter", "OlmoeTopKRouter", "Qwen2MoeTopKRouter", "Qwen3MoeTopKRouter"})
_RETURN_LOGITS = RequirementCache("transformers>=5.6")
#: Attributes of a watched gate and of a model with an attention mask that hold the objects which watch them.
_WATCH, _PADDING = "_lit_moe_watch", "_lit_moe_padding"


class GateRouter(PenaltyRouter):
    """Router of a foreign gate, which chooses and weighs the experts itself; it only measures and adds losses.

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        balance_weight: Factor of the balance loss, 0 or more; 0 adds none.
        z_weight: Factor of the z-loss, 0 or more; 0 adds none.
    """

    def __init__(self, n_experts: int, top_k: int, balance_weight: float = 0.0, z_weight: float = 0.0) -> None:
        super().__init__(n_experts, top_k, balance_weight=balance_weight, z_weight=z_weight)

    def read(self, logits_TE: Tensor, indices_Tk: Tensor | None, mask_T: Tensor | None) -> RouterStats:
        """Return the statistics of a routing that a gate has done.

        Args:
            logits_TE: The gate's logits, shape ``(tokens, experts)``.
            indices_Tk: Experts that the gate chose, shape ``(tokens, k)``; None for those with the largest logits.
            mask_T: True for tokens that count; None for all.
        """
        logits_TE = logits_TE if logits_TE.dtype == torch.float64 else logits_TE.float()
        probs_TE = logits_TE.softmax(-1)
        if indices_Tk is None:
            indices_Tk = self.infer(logits_TE, probs_TE.detach(), mask_T)
        return self._stats(logits_TE, probs_TE, indices_Tk, indices_Tk, mask_T)

    def losses(self, raw_balance: Tensor, raw_z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the losses that are switched on, scaled."""
        balance, z = super().losses(raw_balance, raw_z)
        return balance if self.balance_weight else None, z if self.z_weight else None


class Padding:
    """Mask of the real tokens in a model's current call: its attention mask, or the mask given to `tell`."""

    def __init__(self) -> None:
        self.mask_BK: Tensor | None = None
        self._told: Tensor | None = None

    def tell(self, mask_BK: Tensor | None) -> None:
        """Set the mask of the next call, whose arguments contain no mask of shape ``(batch, tokens)``."""
        self._told = mask_BK

    def note(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Read the mask from the arguments of a call: a forward pre-hook."""
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        by_token = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self.mask_BK, self._told = self._told if by_token is None else by_token, None

    def mask(self, tokens: int) -> Tensor | None:
        """Return the mask of the last tokens of each row, shape ``(tokens,)``; a cache may hold the earlier ones."""
        if self.mask_BK is None:
            return None
        return self.mask_BK[:, -(tokens // len(self.mask_BK)) :].reshape(-1)

    def __getstate__(self) -> dict[str, Any]:
        return {"mask_BK": None, "_told": None}


class WatchedGate:
    """Router and statistics of a foreign gate, with the attributes that callbacks read of a `MoEFeedForward`.

    Args:
        name: Name of the gate in its model, for messages.
        router: Numbers of experts, and the losses to add.
        padding: Mask of the real tokens; None if all tokens count.

    Attributes:
        stats: Statistics of the gate in the last forward pass; None before the first.
    """

    def __init__(self, name: str, router: GateRouter, padding: Padding | None) -> None:
        self.name = name
        self.router = router
        self.stats: RouterStats | None = None
        self._padding = padding

    def read(self, gate: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Set `stats` from a call of the gate: a forward hook."""
        parts = output if isinstance(output, tuple) else (output,)
        n_experts, top_k = self.router.n_experts, self.router.top_k
        tensors = [part for part in parts if isinstance(part, Tensor)]
        logits = next((part for part in tensors if part.is_floating_point() and part.shape[-1] == n_experts), None)
        chosen = next((part for part in tensors if not part.is_floating_point()), None)
        if logits is None or (chosen is not None and chosen.shape[-1] != top_k):
            shapes = ", ".join(str(tuple(part.shape)) for part in tensors)
            raise UserError(
                f"The gate {self.name} returns {shapes or 'no tensor'}, but must return logits of {n_experts} experts, "
                f"and if it chooses experts, {top_k} per token; name the right modules in `gates`, or correct `top_k`."
            )
        indices_Tk = None if chosen is None else chosen.detach().reshape(-1, top_k).long()
        logits_TE = logits.reshape(-1, n_experts)
        mask_T = None if self._padding is None else self._padding.mask(len(logits_TE))
        # measured in a recomputation as well: it must save for the backward pass what the forward pass saved
        stats = self.router.read(logits_TE, indices_Tk, mask_T)
        if not recomputing():
            self.stats = stats

    def __getstate__(self) -> dict[str, Any]:
        # The statistics hold an autograd graph, which can be neither copied nor pickled.
        return {**self.__dict__, "stats": None}


def watch_gates(
    model: nn.Module,
    gates: str | None = None,
    top_k: int | None = None,
    balance_weight: float = 0.0,
    z_weight: float = 0.0,
) -> dict[str, WatchedGate]:
    """Watch the gates of foreign mixture layers, so that `moe_layers` returns them, and switch on losses for them.

    Without losses, Mixtral, OLMoE, Qwen2-MoE and Qwen3-MoE of transformers need no call of this function: `moe_layers`
    watches their gates by itself. Each layer's losses are those of `PenaltyRouter`. Transformers' balance loss of one
    layer is top_k times ours. Theirs multiplies counts and probabilities pooled over all layers, and ours sums the
    losses of the layers. Padding is read from the ``attention_mask`` of the transformers model that holds the gate.

    Args:
        model: A module that may hold gates at any depth.
        gates: Regular expression that the end of a gate's name matches, such as ``moe.gate``, for other
            models; the module has a weight of shape ``(experts, width)`` and returns logits, alone or first of a tuple
            that may hold the chosen experts too. None takes the classes named above.
        top_k: Experts per token, needed if the gate has no attribute ``top_k``.
        balance_weight: Factor of the balance loss, 0 or more.
        z_weight: Factor of the z-loss, 0 or more.

    Returns:
        The gates by name, in order; none if there are none.

    Raises:
        UserError: If `gates` matches no module or none that is a gate, or a number is out of its range.
    """
    pattern = None if gates is None else _compiled(gates)
    gates_by_name: dict[str, WatchedGate] = {}
    for name, module in model.named_modules():
        if pattern.search(name) if pattern is not None else _is_known(module):
            router = GateRouter(*_sizes(name, module, top_k), balance_weight, z_weight)
            gates_by_name[name] = _watched(module) or _watch(model, name, module, router)
            gates_by_name[name].router = router
    if pattern is not None and not gates_by_name:
        raise UserError(f"`gates` is {gates}, but no module's name ends so; print the model and name its gates.")
    return gates_by_name


def gate_of(model: nn.Module, name: str, module: nn.Module) -> WatchedGate | None:
    """Return the `WatchedGate` of a module; None if it is not a gate. A known gate of transformers is watched from now.

    Args:
        model: The model that contains the module.
        name: Name of the module in the model.
        module: The module.
    """
    watched = _watched(module)
    if watched is None and _is_known(module):
        return _watch(model, name, module, GateRouter(*_sizes(name, module, None)))
    return watched


def padding_of(model: nn.Module) -> Padding:
    """Return the `Padding` of a model, which is created and hooked in at the first call.

    Args:
        model: A model that takes an ``attention_mask``.
    """
    padding: Padding | None = vars(model).get(_PADDING)
    if padding is None:
        padding = Padding()
        setattr(model, _PADDING, padding)
        model.register_forward_pre_hook(padding.note, with_kwargs=True)
    return padding


def _is_known(module: nn.Module) -> bool:
    kinds = type(module).__mro__  # FSDP2 puts a class of its own before the module's
    known = any(kind.__name__ in KNOWN_GATES and kind.__module__.startswith("transformers.") for kind in kinds)
    if known and not _RETURN_LOGITS:
        raise UserError(
            f"The gate {type(module).__name__} needs `transformers>=5.6`, as earlier versions return probabilities "
            "instead of logits; install a newer version."
        )
    return known


def _watched(module: nn.Module) -> WatchedGate | None:
    return vars(module).get(_WATCH)


def _watch(model: nn.Module, name: str, gate: nn.Module, router: GateRouter) -> WatchedGate:
    watched = WatchedGate(name, router, _padding_around(model, name))
    setattr(gate, _WATCH, watched)
    gate.register_forward_hook(watched.read)
    return watched


def _padding_around(model: nn.Module, name: str) -> Padding | None:
    """Return the `Padding` of the innermost transformers model around a module; None if there is none."""
    while name:
        name = name.rpartition(".")[0]
        around = model.get_submodule(name)
        if hasattr(around, "base_model_prefix"):  # as every model of transformers
            return padding_of(around)
    return None


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
