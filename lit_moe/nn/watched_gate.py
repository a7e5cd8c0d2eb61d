"""A foreign gate that is watched: its logits, the experts that its tokens were sent to, and the proof that they agree.

Shape suffixes: B batch, K tokens of a row, T tokens of one call, E experts, k chosen experts per token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.screen import rank_zero_warn
from lit_moe.nn.gate_router import GateRouter
from lit_moe.nn.gate_scores import STATED_SCORES, are_probabilities, fitting_scores
from lit_moe.nn.router import RouterStats, recomputing

#: Spread of the logits in a trial, in which different scores give clearly different weights.
_SPREAD = 3.0


class Padding:
    """Rows and mask of the real tokens in a model's current call: its attention mask, or the mask given to `tell`.

    A model that is part of another one, such as the text model of one that sees, may get a mask of another form; then
    the mask of the model around it holds.

    Args:
        around: That of the model around; None if there is none.

    Attributes:
        mask_BK: True for real tokens; None if all are.
        rows: Number of sequences of the call; None before the first.
        gates: Gates inside the model, which the first call has to run.
    """

    def __init__(self, around: Padding | None = None) -> None:
        self.mask_BK: Tensor | None = None
        self.rows: int | None = None
        self.gates: list[WatchedGate] = []
        self._told: Tensor | None = None
        self._around = around
        self._running = False

    def tell(self, mask_BK: Tensor | None) -> None:
        """Set the mask of the next call, whose arguments contain no mask of shape ``(batch, tokens)``."""
        self._told = mask_BK

    def note(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Read the mask from the arguments of a call: a forward pre-hook."""
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        by_token = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
        self.mask_BK, self._told = self._told if by_token is None else by_token, None
        tokens = [kwargs.get("input_ids", args[0] if args else None), kwargs.get("inputs_embeds")]
        self.rows = next((len(given) for given in tokens if isinstance(given, Tensor)), None)
        self._running = True
        if self.mask_BK is None and self._around is not None and self._around._running:
            self.mask_BK = self._around.mask_BK

    def check(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Check after a call that each gate inside the model has run at least once: a forward hook."""
        self._running = False
        for gate in self.gates:
            gate.check_ran()

    def mask(self, tokens: int) -> Tensor | None:
        """Return the mask of the last tokens of each row, shape ``(tokens,)``; a cache may hold the earlier ones."""
        if self.mask_BK is None:
            return None
        return self.mask_BK[:, -(tokens // len(self.mask_BK)) :].reshape(-1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "mask_BK": None, "_told": None, "_running": False}


@dataclass
class GateCall:
    """A call of a gate: the module, its arguments, and what it returned as a tuple."""

    gate: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: tuple[Any, ...]


class WatchedGate:
    """Router and statistics of a foreign gate, with the attributes that callbacks read of a `MoEFeedForward`.

    Args:
        name: Name of the gate in its model, for messages.
        router: Numbers of experts, and the losses to add.
        padding: Rows and mask of the real tokens; None if all tokens count.
        index: Position of the logits in what the gate returns, as transformers records it; None for the first of as
            many columns as experts.
        experts: Module that is called with the chosen experts and their weights; None if there is none.
        skips: Whether the gate's last column is no expert, so that a token that chooses it skips the experts.

    Attributes:
        stats: Statistics of the gate in the last forward pass; None before the first.
        score: How the gate scores experts, a key of `lit_moe.nn.gate_scores.LOG_SCORES`; None while not known.
        unread: Why the gate's routing is not measured; None if it is.
        named: Whether the user named the gate, so that it is an error if it cannot be read.
        biased: Whether the gate has a selection bias; a trained bias that was frozen later is none.
    """

    def __init__(
        self,
        name: str,
        router: GateRouter,
        padding: Padding | None,
        index: int | None = None,
        experts: nn.Module | None = None,
        skips: bool = False,
    ) -> None:
        self.name = name
        self.router = router
        self.stats: RouterStats | None = None
        self.score: str | None = None
        self.unread: str | None = None
        self.named = False
        self.biased = False
        self._padding = padding
        self._index = index
        self._waits = experts is not None
        self.skips = skips
        self._call: GateCall | None = None
        self._inner: Tensor | None = None
        self._from_inner = False
        self._proven = False
        self._trying = False
        self._version = 0

    def read(self, gate: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Note a call of the gate, and set `stats` unless the experts are called next: a forward hook."""
        if self._trying:
            return
        self.router.train(gate.training)
        self._call = GateCall(gate, args, kwargs, output if isinstance(output, tuple) else (output,))
        if not self._waits:
            self._finish(None, None)

    def read_experts(self, experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Set `stats` from the experts that the tokens are sent to: a forward pre-hook of the experts."""
        given = [part for part in (*args, *kwargs.values()) if isinstance(part, Tensor)]
        indices = next((part for part in given if not part.is_floating_point() and part.dtype != torch.bool), None)
        weights = None
        if indices is not None:
            weights = next((p for p in given[1:] if p.is_floating_point() and p.shape == indices.shape), None)
        if self._call is not None:
            self._finish(indices, weights)

    def read_inner(self, linear: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        """Note the output of the projection inside the gate, for gates that return probabilities: a forward hook."""
        self._inner = output

    def check_ran(self) -> None:
        """Refuse the gate if it has not run yet."""
        if self.stats is None and self.unread is None:
            self._refuse("it never ran, or its experts did not, in a forward pass of the model")

    def never_ran(self) -> UserError:
        """Return the error of a gate that has losses but no statistics."""
        return self._error(self.unread or "it has not run in a forward pass yet")

    def _finish(self, indices: Tensor | None, weights: Tensor | None) -> None:
        call, self._call = self._call, None
        inner, self._inner = self._inner, None
        assert call is not None
        if self.unread is not None:
            return
        reading = self._reading(call, indices, weights, inner)
        if reading is None:
            return
        logits_TE, indices_Tk, weights_Tk = reading
        if not self._proven and not recomputing():
            self._prove(call, logits_TE, indices_Tk, weights_Tk)
            if self.unread is not None:
                return
        if self.router.counts_steps and self.router.training and not torch.compiler.is_compiling():
            self._check_steps(call.gate)
        mask_T = None if self._padding is None else self._padding.mask(len(logits_TE))
        rows = None if self._padding is None else self._padding.rows
        if rows is None and call.args and isinstance(call.args[0], Tensor) and call.args[0].dim() == 3:
            rows = len(call.args[0])
        # measured in a recomputation as well: it must save for the backward pass what the forward pass saved
        stats = self.router.read(logits_TE, indices_Tk, mask_T, rows, self.score)
        if not recomputing():
            self.stats = stats

    def _reading(
        self, call: GateCall, indices: Tensor | None, weights: Tensor | None, inner: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Return the logits, the experts that were used, and their weights if they are known; None if it is refused."""
        n_experts, top_k = self.router.n_experts, self.router.top_k
        logits = self._logits(call.output)
        if indices is None:
            indices = chosen_in(call.output)
        if logits is None or (indices is not None and indices.shape[-1] != top_k):
            shapes = ", ".join(str(tuple(part.shape)) for part in call.output if isinstance(part, Tensor))
            self._refuse(
                f"it returns {shapes or 'no tensor'}, but must return logits of {n_experts} experts, and if it chooses "
                f"experts, {top_k} per token (see `top_k`)"
            )
            return None
        logits_TE = logits.reshape(-1, n_experts)
        if self._index is not None and not self._proven and not recomputing() and are_probabilities(logits_TE):
            if inner is None or inner.shape != logits.shape or not _makes(inner, logits):
                self._refuse("it returns probabilities, and the logits that they were made of are not found")
                return None
            self._from_inner = True
        if self._from_inner:
            assert inner is not None
            logits_TE = inner.reshape(-1, n_experts)
        indices_Tk = logits_TE.detach().topk(top_k).indices if indices is None else indices.detach().reshape(-1, top_k)
        weights_Tk = None if weights is None else weights.detach().reshape(-1, top_k)
        if self.skips and weights_Tk is not None:
            # the last column is no expert: a token that chooses it is given to any expert with the weight 0
            indices_Tk = indices_Tk.where(weights_Tk != 0, n_experts - 1)
        if len(indices_Tk) != len(logits_TE):
            self._refuse(f"it returns logits of {len(logits_TE)} tokens, but {len(indices_Tk)} are sent to experts")
            return None
        return logits_TE, indices_Tk.long(), weights_Tk

    def _logits(self, output: tuple[Any, ...]) -> Tensor | None:
        """Return the logits in what the gate returned; None if there are none of the right size."""
        parts = output if self._index is None else output[self._index : self._index + 1]
        fitting = (
            part
            for part in parts
            if isinstance(part, Tensor) and part.is_floating_point() and part.shape[-1] == self.router.n_experts
        )
        return next(fitting, None)

    def _prove(self, call: GateCall, logits_TE: Tensor, indices_Tk: Tensor, weights_Tk: Tensor | None) -> None:
        """Check in the first call that the experts used, their weights and the logits belong together."""
        if torch.compiler.is_compiling():
            return
        if self._index is None and weights_Tk is None:
            self.score = "softmax"  # a gate of somebody's own that was named: nothing contradicts it
        else:
            if weights_Tk is None:
                weights_Tk = weights_in(call.output, indices_Tk, self.router.n_experts)
            if weights_Tk is None:
                self._refuse("which experts are used, and with which weights, does not show")
                return
            self.score = self._score(call, logits_TE, indices_Tk, weights_Tk)
            if self.score is None:
                if not self.router.training:
                    return  # a few tokens may tell nothing; the next ones may
                self._refuse("how it scores experts does not show in their weights", only_losses=True)
        if self.router.bias is not None:
            self.router.bias.verify(lambda: chosen_in(_again(call)))
        self._proven = True

    def _score(self, call: GateCall, logits_TE: Tensor, indices_Tk: Tensor, weights_Tk: Tensor) -> str | None:
        """Return how the gate scores experts, as these weights tell, or those of a trial; None if they do not."""
        factors_E = getattr(call.gate, "per_expert_scale", None)
        fit = fitting_scores(logits_TE, indices_Tk, weights_Tk, factors_E)
        if len(fit) > 1:  # logits that hardly differ, as those of a gate whose weights are still 0
            output, inner = self._trial(call)
            trial, chosen = inner if self._from_inner else self._logits(output), chosen_in(output)
            if trial is not None:
                logits_TE = trial.reshape(-1, self.router.n_experts)
                indices_Tk = logits_TE.topk(self.router.top_k).indices if chosen is None else chosen.flatten(0, -2)
                weights = weights_in(output, indices_Tk, self.router.n_experts)
                fit = fit if weights is None else fitting_scores(logits_TE, indices_Tk, weights, factors_E)
        stated = (STATED_SCORES.get(kind.__name__) for kind in type(call.gate).__mro__)
        return fit[0] if len(fit) == 1 else next((score for score in stated if score is not None), None)

    def _trial(self, call: GateCall) -> tuple[tuple[Any, ...], Tensor | None]:
        """Return what the gate would return for random inputs and with random matrices, and its projection's output."""
        device = call.args[0].device
        self._trying = True
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(0)
                matrices = {
                    name: torch.randn_like(parameter) * (_SPREAD / parameter.shape[1] ** 0.5)
                    for name, parameter in call.gate.named_parameters()
                    if parameter.dim() == 2
                }
                given = (torch.randn_like(call.args[0]), *call.args[1:])
                output = torch.func.functional_call(call.gate, matrices, given, call.kwargs)
        finally:
            self._trying = False
        inner, self._inner = self._inner, None
        return output if isinstance(output, tuple) else (output,), inner

    def _check_steps(self, gate: nn.Module) -> None:
        """Raise an error if the weights have changed since the last forward pass without `step_routers`."""
        version = next((parameter._version for parameter in gate.parameters()), 0)  # counts changes in place
        if self.router.step_counts is not None and version != self._version:
            raise UserError(
                f"The gate {self.name} cannot balance, since an optimizer step ended without a call of step_routers; "
                "call lit_moe.nn.step_routers(self) in on_before_optimizer_step of the LightningModule."
            )
        self._version = version

    def _refuse(self, reason: str, only_losses: bool = False) -> None:
        """Raise an error if the gate has losses or was named, and else go on without measuring it."""
        if self.router.has_losses or (not only_losses and (self.named or self.router.bias is not None)):
            raise self._error(reason)
        if not only_losses:
            self.unread = reason
        what = "Its balance loss is not logged" if only_losses else "Its routing is not measured"
        rank_zero_warn(f"{what}: the gate {self.name} cannot be read, since {reason}.")

    def _error(self, reason: str) -> UserError:
        return UserError(
            f"The gate {self.name} cannot be balanced or measured, since {reason}; name the right modules in `gates`, "
            "or set the factors of its losses to 0 and `selection_bias` to frozen."
        )

    def __getstate__(self) -> dict[str, Any]:
        # The statistics hold an autograd graph, which can be neither copied nor pickled.
        return {**self.__dict__, "stats": None, "_call": None, "_inner": None}


def _makes(logits: Tensor, probabilities: Tensor) -> bool:
    """Tell whether the softmax of logits is what a gate returned, but for the rounding of its number format."""
    return torch.allclose(logits.detach().float().softmax(-1), probabilities.detach().float(), atol=0.01)


def chosen_in(output: tuple[Any, ...]) -> Tensor | None:
    """Return the chosen experts ``(..., k)`` in what a gate returned; None if it returned none."""
    for part in output:
        if isinstance(part, Tensor) and part.dim() > 1 and not part.is_floating_point() and part.dtype != torch.bool:
            return part
    return None


def weights_in(output: tuple[Any, ...], indices_Tk: Tensor, n_experts: int) -> Tensor | None:
    """Return the weights of the chosen experts ``(tokens, k)``, as a gate's output has them in one of three forms.

    They are beside the chosen experts in the same shape; or a row for each token, which is 0 for all other experts; or
    in the order of the experts, with a list of how many tokens each expert gets.

    Args:
        output: What the gate returned.
        indices_Tk: The experts in question.
        n_experts: Number of experts.

    Returns:
        The weights; None if the output has none, or those of other experts.
    """
    tensors = [part.detach() for part in output if isinstance(part, Tensor)]
    floats = [part for part in tensors if part.is_floating_point()]
    beside = next((part for part in floats if part.numel() == indices_Tk.numel() and part.dim() > 1), None)
    if chosen_in(output) is not None:
        return None if beside is None else beside.reshape(indices_Tk.shape)
    for part in floats:
        if part.shape == (len(indices_Tk), n_experts):
            picked = part.gather(-1, indices_Tk)
            if int((part != 0).sum()) == int((picked != 0).sum()):
                return picked
    loads = next((part for part in output if isinstance(part, list) and len(part) == n_experts), None)
    order = next((part for part in tensors if not part.is_floating_point()), None)
    flat = next((part for part in floats if part.dim() == 1), None)
    if loads is None or order is None or flat is None or not len(order) == len(flat) == indices_Tk.numel():
        return None
    if torch.bincount(indices_Tk.reshape(-1), minlength=n_experts).tolist() != loads:
        return None
    return torch.empty_like(flat).scatter_(0, order, flat).reshape(indices_Tk.shape)


def _again(call: GateCall) -> tuple[Any, ...]:
    """Return what a gate returns for its last inputs, without a trace of it."""
    device = call.args[0].device
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        output = call.gate.forward(*call.args, **call.kwargs)
    return output if isinstance(output, tuple) else (output,)
