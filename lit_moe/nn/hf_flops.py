"""Floating-point operations of a language model of transformers, as far as its modules and its config tell them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from lit_moe.nn.gates import WatchedGate

#: Names of the matrices of attention: those that make queries, keys and values, and the one that follows.
_INPUTS = ({"q_proj", "k_proj", "v_proj"}, {"qkv_proj"}, {"c_attn"}, {"query_key_value"}, {"Wqkv"})
_OUTPUTS = {"o_proj", "out_proj", "c_proj", "dense"}
#: Other matrices of attention, which gate its output, and its parameters that take no multiply-adds.
_GATES, _FREE = {"gate_proj", "g_proj"}, {"sinks"}


class UnknownFlops(Exception):
    """The operations of a model are not known; the message says of which part."""


def flops_per_token(model: Any, gates: Mapping[str, WatchedGate], sequence_length: int) -> int:
    """Return the floating-point operations of one token's forward pass.

    They are two per multiply-add with each weight matrix that a token passes through (of the experts, top_k), and four
    per number of a query for each token that it may attend to: all of the sequence, without the saving of causality, or
    those of a sliding window or of a chunk.

    Args:
        model: A causal language model of transformers.
        gates: Gates of its mixture layers by name.
        sequence_length: Tokens per sequence.

    Raises:
        UnknownFlops: If a layer does anything else, such as linear attention, or its experts have no known gate.
    """
    config = model.config
    if config.get_text_config() is not config:
        raise UnknownFlops("it has other parts than its text model")
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    output = model.get_output_embeddings()
    weights = 0 if output is None else output.weight.numel()
    looked_up |= set() if output is None else {id(output.weight)}
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and id(parameter) not in looked_up:
            weights += int(parameter.numel() * _share(name, parameter, gates))
    widths, windows = list(_widths(model)), list(_windows(config))
    if len(widths) != len(windows):
        raise UnknownFlops(f"its config describes {len(windows)} layers of {len(widths)}")
    keys = [min(sequence_length, window or sequence_length) for window in windows]
    return 2 * weights + 4 * sum(width * number for width, number in zip(widths, keys, strict=True))


def _share(name: str, parameter: Tensor, gates: Mapping[str, WatchedGate]) -> float:
    """Return the share of a parameter that one token uses: below 1 in a mixture's experts."""
    for gate, watched in gates.items():
        mixture = gate.rpartition(".")[0] + "."
        if name.startswith(mixture) and "experts" in name.removeprefix(mixture).split("."):
            return watched.router.top_k / watched.router.n_experts
    if "experts" in name.split("."):
        raise UnknownFlops(f"{name} belongs to experts without a known gate (see `gates`)")
    if parameter.dim() > 2:
        raise UnknownFlops(f"{name} is not a matrix")
    return 1.0


def _windows(config: Any) -> Iterator[int | None]:
    """Yield for each layer the number of tokens that a query may attend to; None for all of the sequence."""
    window, chunk = _told(config, "sliding_window"), _told(config, "attention_chunk_size")
    kinds = _told(config, "layer_types") or _told(config, "attention_layers")
    kinds = kinds or ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    known = {"full_attention": None, "sliding_attention": window, "chunked_attention": chunk}
    for kind in kinds:
        if kind not in known:
            raise UnknownFlops(f"its config has layers of {kind}")
        if kind != "full_attention" and not known[kind]:
            raise UnknownFlops(f"its config has layers of {kind} without their size")
        yield known[kind]


def _told(config: Any, key: str) -> Any:
    try:
        return getattr(config, key, None)
    except Exception as error:  # transformers has one for values that differ between layers
        raise UnknownFlops(f"its config has no single {key}") from error


def _widths(model: Any) -> Iterator[int]:
    """Yield for each layer the length of a token's query, over all heads."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    size = _told(model.config, "num_hidden_layers")
    layers = [blocks for blocks in lists if len(blocks) == size and any(map(_is_attention, blocks[0].modules()))]
    if len(layers) != 1:
        raise UnknownFlops("it has no single list of its layers")
    for index, layer in enumerate(layers[0]):
        found = [module for module in layer.modules() if _is_attention(module)]
        if len(found) != 1:
            raise UnknownFlops(f"layer {index} has {len(found)} attentions of a known form")
        [product] = [child for name, child in found[0].named_children() if name in _OUTPUTS]
        # transformers' Conv1D, of GPT-2, has a transposed weight
        yield product.get_parameter("weight").shape[0 if type(product).__name__.endswith("Conv1D") else 1]


def _is_attention(module: nn.Module) -> bool:
    children = dict(module.named_children())
    matrices = {name for name, child in children.items() if any(p.dim() > 1 for p in child.parameters())}
    own = {name for name, _ in module.named_parameters(recurse=False)}
    rest = [matrices - inputs for inputs in _INPUTS if inputs <= matrices]
    if len(rest) != 1 or len(rest[0] & _OUTPUTS) != 1 or not rest[0] <= _OUTPUTS | _GATES or not own <= _FREE:
        return False
    return all(isinstance(getattr(children[name], "weight", None), Tensor) for name in rest[0])
