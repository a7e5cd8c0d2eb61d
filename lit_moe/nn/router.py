"""Base class of routers: which experts a token visits, with which weights, and statistics of the balance.

A router may learn from the load of a whole optimizer step, summed over its micro-batches and devices. It counts tokens
in training, and `step_routers` ends the step.

Shape suffixes: T tokens of one call, E routed experts, k selected experts per token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lit_core.errors import UserError, check_at_least
from lit_moe.functional import routing as F

#: Attribute of a foreign gate that holds the `lit_moe.nn.gates.WatchedGate` which reads it.
WATCH = "_lit_moe_watch"


@dataclass
class RoutedTokens:
    """The tokens of one call of a router, and where they go.

    Attributes:
        logits_TE: Logits in float32, with their graph.
        probs_TE: Routing probabilities, whose mean the balance losses take, with their graph.
        indices_Tk: Chosen experts, shape ``(tokens, k)``, int64.
        counts_E: Tokens that count and are sent to each expert, shape ``(experts,)``, int64.
        mask_T: True for tokens that count; None for all.
        sequences: Number of sequences of equal length that the tokens make up; None if it is not known.
    """

    logits_TE: Tensor
    probs_TE: Tensor
    indices_Tk: Tensor
    counts_E: Tensor
    mask_T: Tensor | None
    sequences: int | None


@dataclass
class RouterStats:
    """Statistics of one call of a router, as plain tensors. Masked tokens are only in `indices`.

    Attributes:
        indices: Chosen experts of every token in order, masked tokens included, shape ``(tokens, k)``, int64.
        counts: Tokens sent to each expert, shape ``(experts,)``, int64.
        raw_counts: Tokens that inference would send to each expert; the same as `counts` unless the router differs in
            training, shape ``(experts,)``, int64.
        tokens: Number of tokens, int64 scalar (a tensor, so that no GPU has to be waited for).
        probs_mean: Mean softmax probability of each expert, shape ``(experts,)``, detached.
        balance_loss: Sum of the scaled balance losses with its graph; None if the router has none.
        z_loss: Scaled z-loss with its graph; None if the router has none.
        raw_balance_loss: Unscaled, detached; 1 at perfect balance. Measured for every router.
        raw_z_loss: Unscaled, detached. Measured for every router.
    """

    indices: Tensor
    counts: Tensor
    raw_counts: Tensor
    tokens: Tensor
    probs_mean: Tensor
    balance_loss: Tensor | None
    z_loss: Tensor | None
    raw_balance_loss: Tensor
    raw_z_loss: Tensor


class RouterOutput(NamedTuple):
    """Chosen experts ``(tokens, k)`` int64, their weights ``(tokens, k)`` float32 with gradient, and the statistics."""

    indices_Tk: Tensor
    weights_Tk: Tensor
    stats: RouterStats


class Router(nn.Module, ABC):
    """Chooses top-k experts for each token from its logits. A subclass defines `scores` and what else it changes.

    Other code asks a router only for the attributes and methods below, never for its class, so a subclass takes part in
    logging, initialisation, planning and export as soon as it defines them:

    - `scores` and `infer`: the routing of inference; they do not read `training`. `log_scores` where the scores of all
      of a token's experts may vanish.
    - `select_in_training`: another choice of experts in training; the inference routing is then logged beside it.
    - `losses`, `balance_counts` and `more_balance`: the auxiliary losses.
    - `end_step`: what it learns from the load of an optimizer step; `step_routers` then has to be called.
    - `reset_parameters`: initial values of its own parameters and buffers; required if it has any.
    - `is_softmax_top_k`: whether Hugging Face's mixtures route in the same way, which an export needs.

    The weights of the experts are those of inference, also in training. A router may draw at random only in
    `select_in_training` or `perturb`, and only from torch's global generator of the tensors' device, so that a
    resumed run draws the same numbers.

    All routing is in float32, also under autocast and in bfloat16 models, where rounding makes ties that change the
    chosen experts.

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        normalize_top_k: Whether the weights of a token's experts are divided by their sum; needs top_k of 2 or more.

    Attributes:
        differs_in_training: Whether training chooses other experts than inference; true of a class that defines
            `select_in_training`.
        counts_steps: Whether the router counts the load of each optimizer step, so that `step_routers` must be called;
            true of a class that defines `end_step`, and of others that set it.
        log_odds_E: Added to the logits of experts that take part only by and by, shape ``(experts,)``; None for none.
            The layer sets it where `lit-moe grow` has added experts. At an odds of 0 it is so low that an expert is
            not chosen and changes no weight.
        step_counts: Tokens this device sent to each expert in the optimizer step so far, ``(experts,)``; None before
            the first. Not a buffer: data-parallel training would overwrite it by the first device's in each forward
            pass.
    """

    def __init__(self, n_experts: int, top_k: int, normalize_top_k: bool = False) -> None:
        super().__init__()
        check_top_k(n_experts, top_k, normalize_top_k)
        self.n_experts = n_experts
        self.top_k = top_k
        self.normalize_top_k = normalize_top_k
        self.differs_in_training = type(self).select_in_training is not Router.select_in_training
        self.counts_steps = type(self).end_step is not Router.end_step
        self.step_counts: Tensor | None = None
        self.log_odds_E: Tensor | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "is_softmax_top_k" not in vars(cls):  # a subclass may route otherwise than its base class
            cls.is_softmax_top_k = Router.is_softmax_top_k  # type: ignore[method-assign]
        if "scores" in vars(cls) and "log_scores" not in vars(cls):  # those of the base class are of other scores
            cls.log_scores = Router.log_scores  # type: ignore[method-assign]

    def is_softmax_top_k(self) -> bool:
        """Tell whether inference takes the largest softmax scores and weighs by them, as Hugging Face's mixtures do.

        Not inherited: False for each class that does not define it itself.
        """
        return False

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Set the router's own parameters and buffers to their initial values; a router that has any defines this.

        Args:
            generator: Source of randomness; None for torch's global one.

        Raises:
            NotImplementedError: If the router has parameters or buffers, but its class does not define this method.
        """
        own = [name for name, _ in (*self.named_parameters(recurse=False), *self.named_buffers(recurse=False))]
        if own:
            raise NotImplementedError(
                f"{type(self).__name__} has {', '.join(own)} but no initial values of them; define reset_parameters."
            )

    def perturb(self, x_TD: Tensor) -> Tensor:
        """Return the tokens ``(tokens, d_model)`` as the router's projection reads them; by default unchanged."""
        return x_TD

    @abstractmethod
    def scores(self, logits_TE: Tensor, probs_TE: Tensor) -> Tensor:
        """Return the activations ``(tokens, experts)`` that weigh the experts' outputs; the router learns through them.

        Args:
            logits_TE: Logits in float32.
            probs_TE: Their softmax over all experts.
        """

    def log_scores(self, logits_TE: Tensor, scores_TE: Tensor) -> Tensor:
        """Return the logarithms of the scores, up to a number per token; normalised weights are computed from them.

        By default the logarithms of the scores, which are all the same where the scores vanish in float32. A router
        that can compute them from the logits keeps their differences. A class that defines `scores` does not inherit
        this method from another router.

        Args:
            logits_TE: Logits in float32.
            scores_TE: The scores that :meth:`scores` returned.
        """
        return scores_TE.clamp(min=torch.finfo(scores_TE.dtype).tiny).log()

    def infer(self, logits_TE: Tensor, scores_TE: Tensor, mask_T: Tensor | None) -> Tensor:
        """Return the experts ``(tokens, k)`` that inference chooses; by default those with the largest scores.

        Where the scores of several experts are equal in float32, such as 0 or 1, their logarithms decide.

        Args:
            logits_TE: Logits in float32.
            scores_TE: The scores that :meth:`scores` returned.
            mask_T: True for tokens that count; None for all.
        """
        defined = type(self).log_scores is not Router.log_scores
        return (self.log_scores(logits_TE, scores_TE) if defined else scores_TE).topk(self.top_k, dim=-1).indices

    def select_in_training(self, logits_TE: Tensor, scores_TE: Tensor, mask_T: Tensor | None) -> Tensor:
        """Return the experts ``(tokens, k)`` that training chooses, where they differ from those of inference.

        Not called in evaluation, nor where a class does not define it.

        Args:
            logits_TE: Logits in float32.
            scores_TE: The scores that :meth:`scores` returned.
            mask_T: True for tokens that count; None for all.
        """
        return self.infer(logits_TE, scores_TE, mask_T)

    def balance_counts(self, counts_E: Tensor) -> Tensor:
        """Return the tokens per expert that the balance loss counts; by default those of this call.

        Args:
            counts_E: Tokens of this call sent to each expert, shape ``(experts,)``.
        """
        return counts_E

    def losses(self, raw_balance: Tensor, raw_z: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the scaled balance loss and z-loss of the training objective; None for one that the router lacks.

        Args:
            raw_balance: Unscaled balance loss, with its graph.
            raw_z: Unscaled z-loss, with its graph.
        """
        return None, None

    def more_balance(self, routed: RoutedTokens) -> Tensor | None:
        """Return further balance losses, scaled and summed, which are added to that of `losses`; by default None.

        Args:
            routed: The tokens of this call.
        """
        return None

    @property
    def moved_bias(self) -> Tensor | None:
        """The bias on the selection that :meth:`end_step` moves, shape ``(experts,)``; None if there is none."""
        return None

    def end_step(self, counts_E: Tensor) -> None:
        """Learn from an optimizer step's global batch; by default nothing. Called by `step_routers`.

        Args:
            counts_E: Tokens sent to each expert over all micro-batches and devices, shape ``(experts,)``.
        """

    def forward(self, logits_TE: Tensor, mask_T: Tensor | None = None, sequences: int | None = None) -> RouterOutput:
        """Route tokens.

        Args:
            logits_TE: Router logits of shape ``(tokens, experts)``.
            mask_T: True for tokens that count, shape ``(tokens,)``; None for all. The others are routed as well, but
                enter no count, no loss and no balancing.
            sequences: Number of sequences of equal length that the tokens make up; None if it is not known.

        Returns:
            The experts and weights of each token, and the statistics of the call.
        """
        logits_TE = logits_TE if logits_TE.dtype == torch.float64 else logits_TE.float()
        if self.log_odds_E is not None:
            logits_TE = logits_TE + self.log_odds_E
        probs_TE = logits_TE.softmax(-1)
        scores_TE = self.scores(logits_TE, probs_TE)
        with torch.no_grad():
            raw_Tk = indices_Tk = self.infer(logits_TE, scores_TE, mask_T)
            if self.training and self.differs_in_training:
                indices_Tk = self.select_in_training(logits_TE, scores_TE, mask_T)
        if self.normalize_top_k:  # by logarithms: all scores of a token's experts may vanish, and so would their sum
            logarithms_Tk = self.log_scores(logits_TE, scores_TE).gather(-1, indices_Tk)
            weights_Tk = logarithms_Tk.clamp(min=torch.finfo(logarithms_Tk.dtype).min).softmax(-1)  # not NaN for -inf
        else:
            weights_Tk = scores_TE.gather(-1, indices_Tk)
        counts_E = F.count_experts(indices_Tk, self.n_experts, mask_T)
        raw_E = counts_E if raw_Tk is indices_Tk else F.count_experts(raw_Tk, self.n_experts, mask_T)
        routed = RoutedTokens(logits_TE, probs_TE, indices_Tk, counts_E, mask_T, sequences)
        return RouterOutput(indices_Tk, weights_Tk, self._stats(routed, raw_E))

    def _stats(self, routed: RoutedTokens, raw_E: Tensor) -> RouterStats:
        """Return the statistics of a call; ``raw_E`` are the tokens that inference would send to each expert."""
        logits_TE, mask_T, counts_E = routed.logits_TE, routed.mask_T, routed.counts_E
        tokens = torch.full((), len(logits_TE), device=logits_TE.device) if mask_T is None else mask_T.sum()
        if self.training and self.counts_steps and not recomputing():
            self.step_counts = counts_E if self.step_counts is None else self.step_counts + counts_E
        probs_mean_E = F.masked_mean(routed.probs_TE, mask_T)
        balance_E = self.balance_counts(counts_E)
        raw_balance = F.balance_loss(probs_mean_E, balance_E, balance_E.sum() // self.top_k, self.top_k)
        raw_z = F.z_loss(logits_TE, mask_T)
        balance, z = self.losses(raw_balance, raw_z)
        more = self.more_balance(routed)
        if more is not None:
            balance = more if balance is None else balance + more
        return RouterStats(
            indices=routed.indices_Tk,
            counts=counts_E,
            raw_counts=raw_E,
            tokens=tokens,
            probs_mean=probs_mean_E.detach(),
            balance_loss=balance,
            z_loss=z,
            raw_balance_loss=raw_balance.detach(),
            raw_z_loss=raw_z.detach(),
        )

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.step_counts = None  # counted under other weights

    def extra_repr(self) -> str:
        """Return the sizes that are shown when the model is printed."""
        return f"n_experts={self.n_experts}, top_k={self.top_k}, normalize_top_k={self.normalize_top_k}"


RouterCallable = Callable[[int, int], Router]
"""Makes a router from the number of experts and the number of experts per token."""


class CountsSteps(nn.Module):
    """A part of a network whose function depends on the number of optimizer steps."""

    def count_step(self) -> None:
        """Count an optimizer step; called by `step_routers`."""
        raise NotImplementedError(f"{type(self).__name__} must define count_step.")


def step_routers(model: nn.Module) -> None:
    """End an optimizer step: give routers their load over its micro-batches and devices, and reset their counts.

    Call it once per optimizer step, on every device, after the step's last forward pass: in a LightningModule from
    ``on_before_optimizer_step``. It has an effect only on routers whose `counts_steps` is true, and on experts that
    ``lit-moe grow`` has added.

    Args:
        model: A module that may hold routers at any depth.
    """
    for module in model.modules():
        if isinstance(module, CountsSteps):
            module.count_step()
    routers = [router for module in model.modules() for router in _routers_of(module) if router.counts_steps]
    counted = next((router.step_counts for router in routers if router.step_counts is not None), None)
    if counted is None:
        return
    # A layer that did not run sends zeros, so that all devices send tensors of the same shape.
    counts = [
        counted.new_zeros(router.n_experts) if router.step_counts is None else router.step_counts for router in routers
    ]
    total = sum_over_devices(torch.cat(counts))
    for router, counts_E in zip(routers, total.split([router.n_experts for router in routers]), strict=True):
        router.end_step(counts_E)
        router.step_counts = None


def _routers_of(module: nn.Module) -> list[Router]:
    """Return the module itself if it is a router, and the router of a foreign gate that is watched."""
    watched = vars(module).get(WATCH)
    return ([module] if isinstance(module, Router) else []) + ([] if watched is None else [watched.router])


def sum_over_devices(counts: Tensor) -> Tensor:
    """Return the sum of counts over the processes of the default group; all of them must call it.

    Args:
        counts: Integers, of the same shape in each process.

    Returns:
        A tensor of the same shape; without a process group, the counts themselves.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return counts
    total = counts.clone()
    dist.all_reduce(total)
    return total


def sequences_known(sequences: int | None, weight: float) -> int:
    """Return the number of sequences; a balance loss of each sequence needs it.

    Args:
        sequences: Number of sequences of equal length; None if it is not known.
        weight: The loss's factor, for the message.

    Raises:
        UserError: If it is not known.
    """
    if sequences is None:
        raise UserError(
            f"`sequence_weight` is {weight}, but how the tokens divide into sequences is not known here; give the "
            "layer inputs of shape (batch, sequence, width), or set it to 0."
        )
    return sequences


def recomputing() -> bool:
    """Tell whether activation checkpointing repeats this forward pass, whose tokens must not be counted twice.

    Every kind of recomputation runs inside autograd's engine; torch's own checkpointing asks in the same way.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def check_top_k(n_experts: int, top_k: int, normalize_top_k: bool) -> None:
    """Check numbers of experts.

    Args:
        n_experts: Number of routed experts.
        top_k: Experts per token.
        normalize_top_k: Whether the weights are divided by their sum.

    Raises:
        UserError: If top_k is not between 1 and n_experts, or normalisation would leave the router without a gradient.
    """
    check_at_least(1, n_experts=n_experts)
    if not 1 <= top_k <= n_experts:
        raise UserError(
            f"top_k is {top_k} but the layer has {n_experts} routed experts; set top_k to {n_experts} or less."
            if top_k > n_experts
            else f"top_k is {top_k} but each token needs at least one expert; set top_k to 1 or more."
        )
    if normalize_top_k and top_k == 1:
        raise UserError(
            "normalize_top_k is true with top_k 1, which makes every weight 1 and the router's gradient 0; "
            "set normalize_top_k to false or top_k to 2 or more."
        )
