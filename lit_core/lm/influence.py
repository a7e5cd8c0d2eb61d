"""Trials of a causal language model: whether tokens influence others that must not know of them.

Shape suffixes: B batch, S sequence, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from lit_core.lightning.evaluation_mode import evaluating

#: A row, and the first and the end of the positions of a piece in it, whose tokens may see no other piece.
Piece = tuple[int, int, int]
#: Tokens of a piece from which on a mean tells more than a median, though some tokens are rounded to other experts.
_MANY = 16
#: Share of the influence that a difference may have and still be rounding, of float32 and of 16 bits.
_ROUNDING, _ROUNDING_16 = 1e-3, 0.1


@dataclass
class Outcome:
    """What a trial has shown.

    Attributes:
        differences: Relative difference of each piece's states from those of the piece alone.
        foreign_gradient: Whether a piece's states have a gradient with regard to a token outside the piece; None if
            they have none at all.
    """

    differences: list[float]
    foreign_gradient: bool | None


class Trial:
    """Runs a small batch through a model as it is: its weights, their types, its attention, the autocast around.

    A gradient shows any influence, however small the weights are: it is exactly 0 only if there is none. What has no
    gradient, such as hashed tokens, positions, and states that do not begin at 0, shows in the difference from the
    states of each piece alone.

    The model runs in evaluation mode and draws no random number; nothing of it changes but what its hooks note.

    Args:
        model: A causal language model of transformers.
        states: Returns the states ``(batch, sequence, width)`` for token ids ``(batch, sequence)``, without padding.
        pieces: Pieces of the rows; tokens between them are padding.
        shape: Rows and tokens of a row.
        gradients: Whether gradients are computed; without them a long row takes no more memory than in an evaluation.
    """

    def __init__(
        self,
        model: Any,
        states: Callable[[Tensor], Tensor],
        pieces: Sequence[Piece],
        shape: tuple[int, int],
        gradients: bool = True,
    ) -> None:
        self._model, self._pieces, self._gradients = model, pieces, gradients
        self._embedded: list[Tensor] = []  # of the ids of the trial, noted while the model runs, which may be divided
        self.ids_BS = probe_ids(model, shape)
        with self._quiet(), torch.no_grad():
            with self._hook(lambda _, __, output: self._embedded.append(output)):
                states(self.ids_BS)
            self._alone = [states(self.ids_BS[row : row + 1, start:end])[0] for row, start, end in pieces]
        self._without = self.outcome(states)

    def outcome(self, states: Callable[[Tensor], Tensor]) -> Outcome:
        """Compare the pieces of a run with themselves alone.

        Args:
            states: Returns the states ``(batch, sequence, width)`` for the ids of the trial.
        """
        foreign: bool | None = None
        with self._quiet(), torch.inference_mode(False), torch.set_grad_enabled(self._gradients):
            with self._leaf() if self._gradients else nullcontext() as leaf_BSD:
                states_BSD = states(self.ids_BS.clone())
            if leaf_BSD is not None and states_BSD.requires_grad:
                foreign = any(self._sees_others(states_BSD, leaf_BSD, piece) for piece in self._pieces)
        differences = [
            self._difference(states_BSD.detach()[row, start:end], alone)
            for (row, start, end), alone in zip(self._pieces, self._alone, strict=True)
        ]
        return Outcome(differences, foreign)

    def separates(self, states: Callable[[Tensor], Tensor]) -> bool:
        """Tell whether no piece is influenced by a token outside it; False also where that cannot be told.

        Args:
            states: Returns the states ``(batch, sequence, width)`` for the ids of the trial, with the pieces kept
                apart.
        """
        tried, without = self.outcome(states), self._without
        if self._gradients and (tried.foreign_gradient is not False or without.foreign_gradient is not True):
            return False
        scale = (_ROUNDING if self._precise else _ROUNDING_16) * max(without.differences)
        return max(tried.differences) <= max(scale, 4 * torch.finfo(self._alone[0].dtype).eps)

    def contradicts(self, states: Callable[[Tensor], Tensor]) -> bool:
        """Tell whether a run that keeps the pieces apart by its construction does not.

        Args:
            states: Returns the states ``(batch, sequence, width)`` for the ids of the trial.
        """
        tried = self.outcome(states)
        return tried.foreign_gradient is True or not max(tried.differences) <= 0.5

    def _sees_others(self, states_BSD: Tensor, leaf_BSD: Tensor, piece: Piece) -> bool:
        row, start, end = piece
        part = states_BSD[row, start:end].float()
        weights = torch.arange(part.numel(), device=part.device).cos().view_as(part)  # a plain sum may be a constant
        gradient = torch.autograd.grad((part * weights).sum(), leaf_BSD, retain_graph=True)[0].clone()
        gradient[row, start:end] = 0
        return not bool((gradient == 0).all())  # one that is not a number is none that one may train with

    @contextmanager
    def _leaf(self) -> Iterator[Tensor]:
        """Begin the graph at the embeddings of the ids, ``(batch, sequence, width)``, in whatever layout they come."""
        leaf_BSD = self._embedded[0].clone().requires_grad_()
        positions_V = {token: position for position, token in enumerate(self.ids_BS.flatten().tolist())}

        def cut(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            index = torch.tensor([positions_V.get(token, -1) for token in args[0].flatten().tolist()])
            index = index.to(output.device).view(args[0].shape)
            return leaf_BSD.flatten(0, 1)[index.clamp(min=0)].where(index[..., None] >= 0, output.detach())

        with self._hook(cut):
            yield leaf_BSD

    @contextmanager
    def _hook(self, hook: Callable[..., Any]) -> Iterator[None]:
        handle = self._model.get_input_embeddings().register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    @property
    def _precise(self) -> bool:
        kind = self.ids_BS.device.type
        return self._alone[0].dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(kind)

    def _difference(self, tokens_ND: Tensor, alone_ND: Tensor) -> float:
        """Return the tokens' mean relative difference; of few in 16 bits, where rounding moves experts, the median."""
        ours, theirs = tokens_ND.double(), alone_ND.double()
        relative_N = (ours - theirs).norm(dim=-1) / theirs.norm(dim=-1).clamp(min=1e-30)
        value = relative_N.mean() if self._precise or len(relative_N) >= _MANY else relative_N.median()
        return float(value) if bool(relative_N.isfinite().all()) else float("inf")

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        device = self.ids_BS.device
        devices = [device] if device.type == "cuda" else []
        with (
            evaluating(self._model),
            torch.random.fork_rng(devices=devices),
            torch.compiler.set_stance("force_eager"),  # nothing is compiled for these few shapes
        ):
            yield


def sees_later_tokens(model: Any) -> bool:
    """Tell whether a token's logits have a gradient with regard to a later token, so that the model is not causal.

    Args:
        model: A causal language model of transformers.
    """
    leaves: list[Tensor] = []

    def cut(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    hook = model.get_input_embeddings().register_forward_hook(cut)
    try:
        with few_tokens(model) as logits_BSV:
            weights_V = torch.arange(logits_BSV.shape[-1], device=logits_BSV.device).cos()
            gradient = torch.autograd.grad((logits_BSV[:, 1] * weights_V).sum(), leaves[0])[0]
    finally:
        hook.remove()
    return not bool((gradient[:, 2:] == 0).all())


def idle_parameters(model: Any) -> dict[str, nn.Parameter]:
    """Return the parameters without any gradient, by name, that are in a module which returns only what has none.

    These are modules that choose, and return indices or a mask. A parameter that few tokens do not reach, as it
    compresses many at a time, is in no such module.

    Args:
        model: A causal language model of transformers.
    """
    choosing: set[nn.Module] = set()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        tensors = [each for each in (output if isinstance(output, tuple) else (output,)) if isinstance(each, Tensor)]
        if tensors and not any(each.is_floating_point() for each in tensors):
            choosing.add(module)

    hook = register_module_forward_hook(note)
    try:
        with few_tokens(model) as logits_BSV:
            reached = _reached(logits_BSV)
    finally:
        hook.remove()
    inside = {id(parameter) for module in choosing for parameter in module.parameters()}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) in inside and id(parameter) not in reached
    }


def _reached(tensor: Tensor) -> set[int]:
    """Return the ids of the leaves of a graph."""
    nodes: list[Any] = [tensor.grad_fn]
    seen: set[Any] = set(nodes)
    while nodes:
        following = {node for node, _ in nodes.pop().next_functions if node is not None} - seen
        seen |= following
        nodes.extend(following)
    return {id(node.variable) for node in seen if hasattr(node, "variable")}


@contextmanager
def few_tokens(model: Any) -> Iterator[Tensor]:
    """Give the logits of four tokens with their graph, in evaluation mode.

    Args:
        model: A causal language model of transformers.
    """
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        yield model(input_ids=probe_ids(model, (1, 4)), use_cache=False).logits


def probe_ids(model: Any, shape: tuple[int, int]) -> Tensor:
    """Return ordinary token ids of a shape, the same at each call: none that the config names, such as of padding.

    Args:
        model: A model of transformers.
        shape: Rows and tokens of a row.
    """
    config = model.config.get_text_config()
    size = min(config.vocab_size, 1 << 12)
    special: set[Any] = set()
    for name, value in [*vars(model.config).items(), *vars(config).items()]:
        if name.endswith(("token_id", "token_index")):
            special.update(value if isinstance(value, list) else [value])
    ordinary = [token for token in range(size) if token not in special] or [0]
    count = shape[0] * shape[1]
    step = next(step for step in (37, 41, 1) if len(ordinary) % step or step == 1)
    ids = [ordinary[(11 + step * number) % len(ordinary)] for number in range(count)]
    return torch.tensor(ids, device=model.get_input_embeddings().weight.device).view(shape)
