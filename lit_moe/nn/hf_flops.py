"""Floating-point operations of a language model of transformers, counted in a forward pass on the meta device."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from lit_core.errors import reason_of

#: The name under which transformers finds the attention that is counted and not computed.
_COUNTED = "lit_moe_counted"
#: Attributes of a layer's parts that tell only which layer it is.
_NUMBERS = ("layer_idx", "layer_id", "layer_index", "layer_number")
#: The keys of a config that name the tokens that a query of a local layer may attend to, by the layer's kind.
_REACHES = {"sliding": ("sliding_window", "sliding_window_size"), "chunked": ("attention_chunk_size",)}
_REACHES["local"] = ("window_size", *_REACHES["sliding"])


class UnknownFlops(Exception):
    """The operations of a model are not known; the message says of which part."""


class TokenCounts(NamedTuple):
    """What one token's forward pass takes: operations, and over all layers experts and the parameters of these."""

    flops: float
    experts: float
    expert_parameters: float


def flops_per_token(model: Any, sequence_length: int) -> float:
    """Return the floating-point operations of one token's forward pass; see `counts_per_token`."""
    return counts_per_token(model, sequence_length).flops


def counts_per_token(model: Any, sequence_length: int) -> TokenCounts:
    """Return the floating-point operations of one token's forward pass, and the experts that it uses.

    They are two per multiply-add of every matrix product, convolution and triangular solve, as torch's own counter
    counts them in a forward pass of transformers' torch implementation. So linear attention counts what it does in
    chunks of tokens. A state that is updated element by element, such as Mamba's, counts nothing besides its
    projections and its convolution. Two parts are counted by rule:

    - Experts count as many times per token as the gate chooses experts, whatever the implementation computes.
    - Attention counts, for each query, all tokens of the sequence, without the saving of causality, or those that its
      sliding window, its chunk or its indexer leaves.

    Args:
        model: A causal language model of transformers on the meta device, which is changed.
        sequence_length: Tokens per sequence.

    Raises:
        UnknownFlops: If the work depends on the tokens themselves, or a layer is of a kind that no rule knows.
    """
    counts = _Counts(model.config.get_text_config(), sequence_length)
    model.eval()
    for name, module in model.named_modules():
        uses = _uses(model, name, module)
        if uses is not None:
            module.forward = partial(counts.of_experts, module, uses)
    for index, layer in enumerate(largest_list(model)):
        layer.forward = partial(counts.of_layer, layer, index, layer.forward)
    with torch.device("meta"):
        tokens = torch.zeros(1, sequence_length, dtype=torch.long)
    try:
        _count_attention(model, counts.of_attention)
        with torch.no_grad(), counts.counter, _Unmasked():
            model(input_ids=tokens, use_cache=False)
    except UnknownFlops:
        raise
    except Exception as error:  # whatever meta tensors cannot do, by torch and by the model's own checks
        reason = reason_of(error, 100)
        raise UnknownFlops(f"its work depends on the tokens ({type(error).__name__}: {reason})") from error
    if any(map(_is_local, counts.kinds)) and not counts.attentions:
        raise UnknownFlops("it has local attention, of which its implementation does not tell the size")
    return TokenCounts(*(counts.total / sequence_length).tolist())


def triangular_solve(matrix: Sequence[int], sides: Sequence[int], **options: Any) -> int:
    """Return the operations of a solve by substitution, which torch's counter leaves out; the arguments are shapes."""
    return math.prod(sides) * matrix[-1]


class _Counts:
    """Counts of a forward pass: operations, by torch's counter or by rule, uses of experts, and their parameters.

    Layers that differ only in their weights are counted once.
    """

    def __init__(self, config: Any, sequence_length: int) -> None:
        solve = torch.ops.aten.linalg_solve_triangular
        self.counter = FlopCounterMode(display=False, custom_mapping={solve: triangular_solve})
        self.attentions = 0
        self.kinds = _told(config, "layer_types") or _told(config, "attention_layers") or ()
        self._config, self._length = config, sequence_length
        self._by_rule = np.zeros(3)  # in the order of `TokenCounts`
        self._layers: dict[Any, tuple[np.ndarray, Any]] = {}

    @property
    def total(self) -> np.ndarray:
        """Counts so far, in the order of `TokenCounts`."""
        return self._by_rule + np.array([self.counter.get_total_flops(), 0, 0])

    def of_layer(self, layer: nn.Module, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Count a layer; the forward pass of the layer."""
        kind = self.kinds[index] if index < len(self.kinds) else None
        key = (kind, fingerprint(layer), shapes(args), shapes(kwargs))
        if key in self._layers:
            counts, output = self._layers[key]
            self._by_rule += counts
            return output
        before = self.total
        output = forward(*args, **kwargs)
        self._layers[key] = self.total - before, output
        return output

    def of_attention(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, None]:
        """Count an attention, and return an output of its shape; called by transformers in place of its own."""
        batch, heads, queries, width = query.shape
        reach = self._reach(module, key.shape[2], kwargs)
        self._by_rule[0] += 2 * batch * heads * queries * reach * (width + value.shape[-1])
        self.attentions += 1
        return query.new_empty(batch, queries, heads, value.shape[-1]), None

    def _reach(self, module: nn.Module, keys: int, options: dict[str, Any]) -> int:
        """Return the number of keys that a query attends to at most."""
        own = min(keys, self._length)  # what follows them are compressed tokens, of DeepSeek-V4
        window = options.get("sliding_window") or getattr(module, "keep_window_size", None) or self._window(module)
        attended, compressed = min(own, window or own), keys - own
        indexer = next((part for part in module.modules() if type(part).__name__.endswith("Indexer")), None)
        if options.get("indices") is not None:
            return min(attended, options["indices"].shape[-1])
        if options.get("block_indices") is not None:
            return min(attended, options["block_indices"].shape[-1] * int(indexer.block_size))  # type: ignore[union-attr, arg-type]
        if indexer is not None:
            if not compressed:
                raise UnknownFlops(f"{type(indexer).__name__} does not tell how many keys it chooses")
            compressed = min(compressed, int(indexer.index_topk))  # type: ignore[arg-type]
        return attended + compressed

    def _window(self, module: nn.Module) -> int | None:
        """Return the reach of a layer's kind by the config, where the attention is told only by its mask."""
        index = getattr(module, "layer_idx", None)
        if not self.kinds or index is None or not _is_local(self.kinds[index]):
            return None
        keys = _REACHES[str(self.kinds[index]).partition("_")[0]]
        sizes = [size for key in keys if (size := _told(self._config, key))]
        if not sizes:
            raise UnknownFlops(f"its config has layers of {self.kinds[index]} without their size")
        return int(sizes[0])

    def of_experts(self, module: nn.Module, uses: Callable[..., float], *args: Any, **kwargs: Any) -> Tensor:
        """Count a call of stacked experts, and return an output of its shape; the forward pass of the module."""
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        hidden = tensors[0]
        n_experts = _n_experts(module)
        weights = [weight for name, weight in module.named_parameters() if weight.dim() > 1 and "bias" not in name]
        used = uses(tensors) / n_experts  # of all of them
        products, whole = (sum(weight.numel() for weight in some) for some in (weights, module.parameters()))
        self._by_rule += [2 * used * products, used * n_experts, used * whole]
        own = getattr(module, "weight", None)  # of one product, such as JetMoE's
        width = hidden.shape[-1] if own is None else own.shape[1]
        return hidden.new_empty(*hidden.shape[:-1], width)


def routed_experts(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that hold the routed experts of a model, by name."""
    found = {
        name: module
        for name, module in model.named_modules()
        if "shared" not in name and (_is_stack(module) or name.endswith("experts"))
    }
    around = {name.rpartition(".")[0] for name in found}  # such as JetMoE's module around two products
    return {name: module for name, module in found.items() if name not in around}


def _is_stack(module: nn.Module) -> bool:
    stacked = any(weight.dim() == 3 for weight in module.parameters(recurse=False))
    return stacked and not isinstance(module, nn.modules.conv._ConvNd)


def _uses(model: nn.Module, name: str, module: nn.Module) -> Callable[..., float] | None:
    """Return what tells, from the tensors of a call, how often one of the module's experts is used.

    None for any other module, and for shared experts, which all tokens use.
    """
    arguments = list(inspect.signature(type(module).forward).parameters)[1:]
    stacked = [weight for weight in module.parameters(recurse=False) if weight.dim() == 3]
    is_named, is_stack = name.endswith("experts"), _is_stack(module)
    if "shared" in name or isinstance(module, nn.ModuleList) or not (is_named or is_stack):
        return None
    if getattr(module, "zero_expert_num", 0):
        raise UnknownFlops(f"{name} has experts that compute nothing, and how many a token uses depends on the token")
    if len(arguments) == 3:  # tokens, the experts that each one chooses, and their weights
        return lambda tensors: sum(one.numel() for one in tensors if not one.is_floating_point())
    if "expert_size" in arguments:  # of rows that are sorted by expert
        return lambda tensors: len(tensors[0])
    top_k = getattr(model.get_submodule(name.rpartition(".")[0]), "top_k", None)
    if is_stack and len(arguments) == 1 and isinstance(top_k, int):  # all tokens for each expert, most of them zeros
        return lambda tensors: tensors[0].shape[:-1].numel() * top_k / len(stacked[0])
    if is_named and is_stack:
        raise UnknownFlops(f"{name} is a {type(module).__name__}, and how many experts a token uses is not known")
    return None


def largest_list(model: nn.Module) -> list[nn.Module]:
    """Return the layers of the largest list of a model."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    sizes = [sum(weight.numel() for layer in layers for weight in layer.parameters()) for layers in lists]
    return lists[sizes.index(max(sizes))] if lists else []


def fingerprint(layer: nn.Module) -> tuple[Any, ...]:
    """Return all on which the work of a layer depends, besides its input: equal for layers of one kind."""
    plain = (bool, int, float, str, type(None))
    parts = []
    for name, module in layer.named_modules():
        own = {key: value for key, value in vars(module).items() if isinstance(value, plain) and key not in _NUMBERS}
        shapes = {key: tuple(weight.shape) for key, weight in module.named_parameters(recurse=False)}
        parts.append((name, type(module), tuple(own.items()), tuple(shapes.items())))
    return tuple(parts)


def shapes(value: Any) -> Any:
    """Return the arguments of a call as far as a layer's work may depend on them: shapes in place of tensors."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, (list, tuple)):
        return tuple(map(shapes, value))
    if isinstance(value, dict):
        return tuple((key, shapes(one)) for key, one in value.items())
    return value if isinstance(value, (bool, int, float, str)) else type(value)


def _n_experts(module: nn.Module) -> int:
    stacked = [weight for weight in module.parameters() if weight.dim() == 3]
    return len(stacked[0]) if stacked else int(module.num_experts)  # type: ignore[arg-type]


def _is_local(kind: str) -> bool:
    return str(kind).partition("_")[0] in _REACHES


def _told(config: Any, key: str) -> Any:
    try:
        return getattr(config, key, None)
    except Exception as error:  # transformers has one for values that differ between layers
        raise UnknownFlops(f"its config has no single {key}") from error


class _Unmasked(TorchFunctionMode):
    """Answers what a model asks about values: nothing is padded and no sequence is packed, so all tokens are equal."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.tolist and args[0].is_meta:
            return [0] * len(args[0])
        if func in (Tensor.__bool__, Tensor.item) and args[0].is_meta and args[0].dtype == torch.bool:
            return True
        return func(*args, **(kwargs or {}))


def _count_attention(model: Any, counted: Callable[..., Any]) -> None:
    """Let a model of transformers call `counted` in place of its attention."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(_COUNTED, counted)
    AttentionMaskInterface.register(_COUNTED, _mask)
    model.set_attn_implementation(_COUNTED)


def _mask(batch_size: int, q_length: int, kv_length: int, *args: Any, **kwargs: Any) -> Tensor:
    return torch.empty(batch_size, 1, q_length, kv_length, device="meta")
