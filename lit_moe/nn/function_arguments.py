"""The arguments of a network on which its function depends, besides its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lit_core.errors import UserError
from lit_core.field_types import as_dataclass
from lit_core.lightning.same_function import flat
from lit_moe.nn.adapters import AdapterConfig
from lit_moe.nn.config import DecoderConfig

#: Fields of a decoder on which no logits depend, or which are widths that only its weights can have.
_IDLE = {"vocab_size", "d_ff", "feed_forward", "max_seq_len", "activation_checkpointing"}
#: Keys of a config of transformers, and parts of keys, that concern training alone or the form of what a model returns.
_OTHER = {"architectures", "id2label", "label2id", "problem_type", "return_dict", "transformers_version", "use_cache"}
_OTHER |= {"vocab_size", "_name_or_path", "_attn_implementation", "_experts_implementation"}
_OTHER |= {"output_attentions", "output_hidden_states", "output_router_logits"}
_OTHER_PARTS = ("aux_loss", "dropout", "dtype", "initializer", "max_position", "pdrop", "token_id", "z_loss")


def function_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a `MoELanguageModel` on which the function of its network depends, by dotted names.

    What only training depends on, such as losses, random changes and recomputation, is left out. Routers count by
    their class.

    Args:
        arguments: The arguments as plain data, as a checkpoint has them.
    """
    try:
        return _of_network(arguments) | _of_adapter(arguments.get("adapter"))
    except (UserError, AttributeError, KeyError, TypeError, ValueError):  # of another release, or of somebody else
        return {}


def _of_network(arguments: Mapping[str, Any]) -> dict[str, Any]:
    theirs = arguments.get("hugging_face")
    if theirs:
        config = flat(dict(theirs.get("config") or {}), "hugging_face.config")
        return {key: value for key, value in config.items() if not _concerns_others(key.split(".")[2])}
    decoder = as_dataclass(DecoderConfig, arguments.get("decoder"), "decoder")
    values = {f"decoder.{key}": value for key, value in asdict(decoder).items() if key not in _IDLE}
    usual = {"n_kv_heads": decoder.n_heads, "head_dim": decoder.d_model // decoder.n_heads}
    values |= {f"decoder.{key}": None for key, value in usual.items() if getattr(decoder, key) == value}
    if decoder.moe is None:
        return values
    router = arguments.get("router") or {"class_path": "SinkhornRouter"}  # the default
    settings = router.get("init_args") or {}
    mixture = asdict(decoder.moe)
    mixture["normalize_top_k"] |= bool(settings.get("normalize_top_k"))
    del mixture["backend"]
    if not decoder.moe.n_added:
        del mixture["added_warmup"]
    return values | flat(mixture, "decoder.feed_forward") | {"router": str(router["class_path"]).rpartition(".")[2]}


def _concerns_others(key: str) -> bool:
    return key in _OTHER or any(part in key for part in _OTHER_PARTS)


def _of_adapter(arguments: Any) -> dict[str, Any]:
    adapter = as_dataclass(AdapterConfig, arguments, "adapter")
    return {} if adapter is None else {"adapter.rank": adapter.rank, "adapter.alpha": adapter.alpha}
