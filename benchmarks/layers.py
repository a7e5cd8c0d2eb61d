"""Feed-forward layers of several libraries with the same weights, and the plain formula each must agree with.

Shape suffixes: T tokens, D model width, E routed experts, I hidden width of one expert, N = T k rows of experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lit_moe.nn import FeedForward, MoEConfig, MoEFeedForward, TopKRouter

Pairs = list[tuple[Tensor, Tensor]]


class Mismatch(RuntimeError):
    """A contender does not compute what it is said to compute."""


@dataclass(frozen=True)
class Mixture:
    """Shape of a mixture of experts.

    Attributes:
        d_model: Width of inputs and outputs.
        n_experts: Routed experts.
        top_k: Routed experts per token.
        width: Hidden width of one expert, routed or shared.
        n_shared: Shared experts.
    """

    d_model: int
    n_experts: int
    top_k: int
    width: int
    n_shared: int = 0

    @property
    def active_width(self) -> int:
        """Hidden width that one token passes through."""
        return (self.top_k + self.n_shared) * self.width

    def without_shared(self) -> Mixture:
        """Return the nearest shape of equal FLOPs that has routed experts only: the shared ones become routed."""
        return Mixture(self.d_model, self.n_experts + self.n_shared, self.top_k + self.n_shared, self.width)

    def __str__(self) -> str:
        shared = f" + {self.n_shared}" if self.n_shared else ""
        return f"{self.n_experts}{shared} × {self.width}, k = {self.top_k}"


@dataclass
class Weights:
    """Weights of a layer, or their gradients, each in one stacked tensor; the gate's rows come before the up rows.

    Attributes:
        router_ED: Router.
        gate_up: First products of the routed experts, ``(E, 2 I, D)``.
        down: Second products, ``(E, D, I)``.
        shared_gate_up: First products of all shared experts, or of a dense layer, ``(2 width, D)``; may be empty.
        shared_down: Second product, ``(D, width)``.
    """

    router_ED: Tensor
    gate_up: Tensor
    down: Tensor
    shared_gate_up: Tensor
    shared_down: Tensor

    @classmethod
    def draw(cls, shape: Mixture) -> Weights:
        """Draw weights that keep the size of their inputs, from torch's global generator."""
        width, shared = shape.width, shape.n_shared * shape.width

        def normal(*size: int) -> Tensor:
            return torch.randn(size) * size[-1] ** -0.5

        return cls(
            normal(shape.n_experts, shape.d_model),
            normal(shape.n_experts, 2 * width, shape.d_model),
            normal(shape.n_experts, shape.d_model, width),
            normal(2 * shared, shape.d_model),
            normal(shape.d_model, shared) if shared else torch.zeros(shape.d_model, 0),
        )

    def reference(self, dtype: torch.dtype) -> Weights:
        """Return a copy in float64, after rounding to a number format, that collects gradients."""
        return Weights(*(t.to(dtype).double().requires_grad_() for t in vars(self).values()))

    def gradients(self) -> Weights:
        """Return the gradients of :meth:`reference`'s weights, zeros where there is none."""
        return Weights(*(torch.zeros_like(t) if t.grad is None else t.grad for t in vars(self).values()))


def gated(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Return down (silu(gate x) * up x)."""
    gate, up = (x @ gate_up.T).chunk(2, dim=-1)
    return (nn.functional.silu(gate) * up) @ down.T


def token_by_token(x_TD: Tensor, weights: Weights, top_k: int, normalize: bool) -> Tensor:
    """Compute a mixture of experts one token at a time: the meaning of all layers here.

    Args:
        x_TD: Tokens.
        weights: Weights of the layer.
        top_k: Routed experts per token.
        normalize: Whether the weights of a token's experts are divided by their sum.
    """
    rows, gate_ups, downs = [], weights.gate_up.unbind(), weights.down.unbind()
    for x_D in x_TD:
        values, experts = (weights.router_ED @ x_D).softmax(0).topk(top_k)
        if normalize:
            values = values / values.sum()
        chosen = zip(values, experts.tolist(), strict=True)
        routed = sum(value * gated(x_D, gate_ups[e], downs[e]) for value, e in chosen)
        rows.append(routed + gated(x_D, weights.shared_gate_up, weights.shared_down))
    return torch.stack(rows)


@dataclass
class Layer:
    """A layer of some library.

    Attributes:
        name: Its name in the tables.
        module: The layer; maps ``(batch, sequence, d_model)`` to the same shape.
        shape: Its shape; a dense layer is one shared expert without routed ones.
        weights: The weights it started from, in float32.
        normalize: Whether it divides the weights of a token's experts by their sum.
        pairs: Matches its parameters with the pieces of stacked weights, or of their gradients.
    """

    name: str
    module: nn.Module
    shape: Mixture
    weights: Weights
    normalize: bool
    pairs: Callable[[Weights], Pairs]

    def __post_init__(self) -> None:
        pairs = self.pairs(self.weights)
        if {id(parameter) for parameter, _ in pairs} != {id(parameter) for parameter in self.module.parameters()}:
            raise Mismatch(f"{self.name} has other parameters than this benchmark fills.")
        with torch.no_grad():
            for parameter, piece in pairs:
                parameter.copy_(piece)


def dense(d_model: int, width: int) -> Layer:
    """Our dense layer, the measure of all others."""
    module, shape = FeedForward(d_model, width), Mixture(d_model, 0, 0, width, n_shared=1)

    def pairs(w: Weights) -> Pairs:
        return _gated_pairs((module.gate, module.up, module.down), w.shared_gate_up, w.shared_down)

    return Layer("dense", module, shape, Weights.draw(shape), False, pairs)


def ours(shape: Mixture, weights: Weights, backend: str) -> Layer:
    """Our mixture, with weights divided by their sum where there are several, as the peers do."""
    config = MoEConfig(
        shape.n_experts,
        shape.top_k,
        shape.width,
        n_shared=shape.n_shared,
        normalize_top_k=shape.top_k > 1,
        backend=backend,  # type: ignore[arg-type]
    )
    module = MoEFeedForward(shape.d_model, config, TopKRouter)

    def pairs(w: Weights) -> Pairs:
        experts = module.experts
        found: Pairs = [(module.gate.weight, w.router_ED), (experts.gate_up, w.gate_up), (experts.down, w.down)]
        shared = module.shared
        if shared is not None:
            found += _gated_pairs((shared.gate, shared.up, shared.down), w.shared_gate_up, w.shared_down)
        return found

    return Layer(f"ours, {backend}", module, shape, weights, shape.top_k > 1, pairs)


def huggingface(shape: Mixture, weights: Weights, implementation: str) -> Layer:
    """Hugging Face's Mixtral block, which has no shared experts.

    Raises:
        ImportError: If transformers is not installed.
    """
    from transformers.models.mixtral.modeling_mixtral import MixtralConfig, MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=shape.d_model,
        intermediate_size=shape.width,
        num_local_experts=shape.n_experts,
        num_experts_per_tok=shape.top_k,
        experts_implementation=implementation,
    )
    module = MixtralSparseMoeBlock(config)

    def pairs(w: Weights) -> Pairs:
        experts: Any = module.experts
        return [(module.gate.weight, w.router_ED), (experts.gate_up_proj, w.gate_up), (experts.down_proj, w.down)]

    return Layer(f"Hugging Face, {implementation}", module, shape, weights, True, pairs)


def litgpt(shape: Mixture, weights: Weights) -> Layer:
    """Mixture of litgpt.

    Raises:
        ImportError: If litgpt is not installed.
    """
    from litgpt.config import Config  # type: ignore[import-not-found]
    from litgpt.model import LLaMAMoE  # type: ignore[import-not-found]

    config = Config(
        n_embd=shape.d_model,
        n_head=1,
        n_expert=shape.n_experts,
        n_expert_per_token=shape.top_k,
        n_shared_expert=shape.n_shared or None,
        intermediate_size=shape.width,
        moe_intermediate_size=shape.width,
        mlp_class_name="LLaMAMoE",
        bias=False,
    )
    module = LLaMAMoE(config)

    def pairs(w: Weights) -> Pairs:
        found = [(module.gate.weight, w.router_ED)]
        for expert, gate_up, down in zip(module.experts, w.gate_up, w.down, strict=True):
            found += _gated_pairs((expert.fc_1, expert.fc_2, expert.proj), gate_up, down)
        if shape.n_shared:
            shared = module.shared_experts
            found += _gated_pairs((shared.fc_1, shared.fc_2, shared.proj), w.shared_gate_up, w.shared_down)
        return found

    return Layer("litgpt", module, shape, weights, True, pairs)


def check(layers: list[Layer], dtype: torch.dtype, tokens: int = 16, device: str = "cpu") -> None:
    """Compare layers with the formula in float64 on the same weights, rounded to the layers' number format.

    In float32: output and gradients of the input and of every weight. In bfloat16: output and gradient of the input, by
    the median token, as a router in bfloat16 sends a few tokens to other experts.

    Args:
        layers: Layers of equal width, in that number format.
        dtype: float32 or bfloat16.
        tokens: Number of random tokens.
        device: Where the layers are.

    Raises:
        Mismatch: If they differ by more than rounding.
    """
    x_TD, grad_TD = torch.randn(2, tokens, layers[0].shape.d_model).to(dtype).unbind()
    tolerance = 1e-3 if dtype == torch.float32 else 3e-2
    references: dict[tuple[int, bool], _Expected] = {}  # computed once for all layers that share weights and rule
    for layer in layers:
        key = (id(layer.weights), layer.normalize)
        if key not in references:
            references[key] = _reference(layer, x_TD, grad_TD)
        expected = references[key]
        x_1TD = x_TD[None].clone().to(device).requires_grad_()
        out_1TD = layer.module(x_1TD)
        out_1TD.backward(grad_TD[None].to(device))
        assert x_1TD.grad is not None
        errors = {
            "output": _error(out_1TD.detach()[0].cpu(), expected.out_TD),
            "gradient of the input": _error(x_1TD.grad[0].cpu(), expected.grad_x_TD),
        }
        if dtype == torch.float32:
            for index, (parameter, piece) in enumerate(layer.pairs(expected.gradients)):
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.cpu()
                errors[f"gradient of weight {index}"] = _error(grad.flatten()[None], piece.flatten()[None])
        layer.module.zero_grad(set_to_none=True)
        for what, error in errors.items():
            if not error <= tolerance:  # not >: a NaN must not pass
                raise Mismatch(
                    f"{layer.name}, {dtype}: {what} is off by {error:.1e} of its size; {tolerance} is allowed."
                )


@dataclass
class _Expected:
    out_TD: Tensor
    grad_x_TD: Tensor
    gradients: Weights


def _reference(layer: Layer, x_TD: Tensor, grad_TD: Tensor) -> _Expected:
    x_TD, weights = x_TD.double().requires_grad_(), layer.weights.reference(x_TD.dtype)
    out_TD = token_by_token(x_TD, weights, layer.shape.top_k, layer.normalize)
    out_TD.backward(grad_TD.double())
    assert x_TD.grad is not None
    return _Expected(out_TD.detach(), x_TD.grad, weights.gradients())


def _error(found: Tensor, expected: Tensor) -> float:
    """Return the median row's distance, relative to the size of the row where that is above 1."""
    # Not relative to 0: a router whose one weight is always 1 has gradients of 0, and of rounding.
    distance, size = (found.double() - expected).norm(dim=1), expected.norm(dim=1)
    return float((distance / size.clamp(min=1)).median())


def _gated_pairs(linears: tuple[nn.Linear, nn.Linear, nn.Linear], gate_up: Tensor, down: Tensor) -> Pairs:
    gate, up = gate_up.chunk(2)
    return [(linears[0].weight, gate), (linears[1].weight, up), (linears[2].weight, down)]
