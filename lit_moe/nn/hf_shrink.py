"""A config of transformers as a small one of the same kind: each kind of layer once or twice, and narrow.

What a number is, its key tells; a key that no rule knows is made small where its name ends as that of a width does.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

HIDDEN, HEADS, EXPERTS, VOCABULARY = 64, 4, 16, 128
#: Layers that a small model has at least, and of how many kinds each comes twice.
_LAYERS, _TWICE = 4, 3

#: What a whole number becomes by its key; the first pattern that fits the whole key counts, and 0 stays 0.
#: 16 experts, since Doge's are the pairs of two sets of 4; what is divided among heads is divisible by 8.
_RULES: tuple[tuple[str, int], ...] = (
    (r"vocab_size\w*|\w+_vocab_size_base|unpadded_vocab_size", VOCABULARY),
    (r"(hidden_size|d_model|n_embd|embed_dim|text_hidden_size|backbone_hidden_size)", HIDDEN),
    (r"zero_expert_num", 4),
    (r"(moe_)?(num_|n_)(local_|routed_)?experts", EXPERTS),
    (r"(moe_)?(num_|n_)?shared_experts|moe_num_shared_experts", 2),
    (r"(num_)?(experts_per_tok(en)?|experts_per_group)|moe_top_?k|moe_k|top_k_experts", 2),
    (r"n_group|num_expert_group", 4),
    (r"topk_group", 2),
    (r"mamba_n(um)?_heads", 8),
    (r"(mamba_n_|n_|o_)groups", 2),
    (r"linear_num_key_heads|heads_per_ngram", 2),
    (r"index\w*_n_heads", 16),  # of a few, the rectified scores are often all 0, and which of those is taken is chance
    (r"(num|n)_(attention_)?heads(_per_layer)?|(linear_num|swa_num_attention|num_attention|\w+_num)\w*_heads", HEADS),
    (r"qk_rope_head_dim|rotary_dim", 8),
    (r"qk_head_dim", 24),
    (r"\w*head_dim|kv_channels|d_rel|\w*d_head", 16),
    (r"\w*d_state|ssm_state_size|\w*dt_rank|\w*lora_?rank|\w*rank", 16),
    (r"(moe|expert|shared)\w*intermediate_size|expert\w*hidden_size|router_hidden_size|moe_latent_size", 32),
    (r"\w*intermediate_size\w*|ffn_hidden_size", 48),
    (r"(sliding|keep)_window(_size)?|attention_chunk_size|\w*chunk_size|block_size|index_topk|floor_scale", 8),
    (r"log_scaling_n_floor|rel_extent|ple_embed_dim|indexer_budget", 16),
    (r"index_block_size|global_attn_every_n_layers|\w*_layer_period|split_ngram_parts", 4),
    (r"index_topk_blocks", 2),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index|num_nextn_predict_layers|num_kv_shared_layers", 1),
    (r"decoder_sparse_step|moe_layer_interval|interleave_moe_layer_step|n_layers_per_attn_res_block", 2),
    (r"(\w+_)?(size|dim|width|rank|channels)", 32),
)
_COMPILED = tuple((re.compile(pattern), value) for pattern, value in _RULES)
#: Keys that name the number of layers, and those that list the numbers of some layers.
_COUNTS = re.compile(r"(num_(hidden_)?|n_)layers?")
_IDS = re.compile(r"(\w+_)?(layer_ids|only_layers)|moe_layers")
#: What belongs to the files of a model: how its weights are stored, and code beside them.
_OF_FILES = {"quantization_config", "auto_map", "dtype", "torch_dtype", "_name_or_path"}
#: Most characters of a key that is looked at; none of transformers has half as many.
_LONGEST = 100
#: What a forward pass draws at random, which a small model does not.
_RANDOM = re.compile(r"\w*(dropout|pdrop|jitter)\w*")
_MIXTURE = re.compile("moe|sparse")
_KEY_VALUE_HEADS = re.compile(r"\w*(key_value|kv)_(n_)?heads|kv_n_heads|num_kv_heads")
#: Numbers that these keys have are kept: lengths cost nothing, and kernels of convolutions are short.
_KEPT = re.compile(r"\w*(position|seq_len|max_length|kernel|conv|chunk_size_feed_forward|pretraining_tp)\w*")


def shrink(config: Any) -> Any:
    """Return a small config of the same kind: same layers in the same order, fewer of each, narrow, without dropout.

    Args:
        config: A config of transformers, which is left as it is.

    Returns:
        A new config; of a config with several models, each is small.
    """
    fields = _fields(config)
    count = _count(fields)
    chosen = _layers(fields, count)
    return type(config)(**{key: _small(fields, key, count, chosen) for key in fields})


def _fields(config: Any) -> dict[str, Any]:
    """Return the values of a config, without those that its class derives from them."""
    values: dict[str, Any] = config.to_dict()
    arguments = {field.name for field in dataclasses.fields(config) if field.init}
    arguments |= {"per_layer_config", *config.attribute_map, *config.attribute_map.values()}
    derived = set(type(config)().to_dict()) - arguments
    inner = {key: getattr(config, key) for key in config.sub_configs if key in values}
    known = {key for key in values if len(key) <= _LONGEST} - derived - _OF_FILES
    return {key: value for key, value in (values | inner).items() if key in known}


def _count(fields: Mapping[str, Any]) -> int:
    """Return the number of a config's layers; 0 if it has none, as one of several models does."""
    numbers = [value for key, value in fields.items() if _COUNTS.fullmatch(key) and isinstance(value, int)]
    return numbers[0] if numbers else len(fields.get("layers_block_type") or ())


def _layers(fields: Mapping[str, Any], count: int) -> list[int]:
    """Return the layers that stay: of each kind, by all that a config says of single layers, the first ones."""
    lists = [value for key, value in fields.items() if _is_by_layer(key, value, count)]
    ids = [value for key, value in fields.items() if _IDS.fullmatch(key) and value]
    changes = fields.get("per_layer_config") or {}
    kinds = [
        (
            *(str(entries[i]) for entries in lists),
            *(str(i in entries) for entries in ids),
            str(_changes(changes, i)),
        )
        for i in range(count)
    ]
    each = 2 if len(set(kinds)) <= _TWICE else 1
    seen: Counter[tuple[str, ...]] = Counter()
    chosen: list[int] = []
    others: list[int] = []
    for index, kind in enumerate(kinds):
        most = max(each, 2 if any(_MIXTURE.search(entry) for entry in kind) else 1)
        (chosen if seen[kind] < most else others).append(index)
        seen[kind] += 1
    others.sort(key=lambda index: (-seen[kinds[index]], index))
    return sorted(chosen + others[: max(0, _LAYERS - len(chosen))])


def _small(fields: Mapping[str, Any], key: str, count: int, chosen: list[int]) -> Any:
    value = fields[key]
    if hasattr(value, "to_dict"):
        return shrink(value)
    if _is_by_layer(key, value, count):
        return [_number(fields, key, value[index]) for index in chosen]
    if isinstance(value, list) and _IDS.fullmatch(key):
        first = 1 if key == "ple_layer_ids" else 0  # which Qwen4 counts from 1
        return [place + first for place, index in enumerate(chosen) if index + first in value]
    if key == "per_layer_config" and value:
        return {place: _changed(fields, _changes(value, index)) for place, index in enumerate(chosen)}
    if key == "compress_rates":
        return {kind: min(rate, 2 + 2 * place) for place, (kind, rate) in enumerate(value.items())}
    if key.endswith("token_id"):
        return _token(key, value)
    if _COUNTS.fullmatch(key) and isinstance(value, int):
        return len(chosen)
    if key.endswith("_layer_offset"):
        period = fields[key.replace("offset", "period")]
        return value * min(period, 4) // period
    return _number(fields, key, value)


def _is_by_layer(key: str, value: Any, count: int) -> bool:
    return isinstance(value, (list, tuple)) and count > 1 and len(value) == count and not _IDS.fullmatch(key)


def _changes(by_layer: Mapping[Any, dict[str, Any]], index: int) -> dict[str, Any]:
    """Return what `per_layer_config` says of a layer, whose number is written with any number of zeros before it."""
    return next((changes for layer, changes in by_layer.items() if int(layer) == index), {})


def _changed(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the small numbers of a layer that are not those of the other layers."""
    own = {**fields, **changes}
    small = {key: _number(own, key, own[key]) for key in own if type(own[key]) is int}
    for key in changes:
        if key in ("head_dim", "q_lora_rank", "kv_lora_rank") and changes[key] > (fields.get(key) or 0):
            small[key] *= 2  # as both would come out the same
    return {key: value for key, value in small.items() if value != _number(fields, key, fields.get(key))}


def _token(key: str, value: Any) -> Any:
    """Return one of the first ids for a special token; each kind has its own."""
    if value is None:
        return None
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    return ids.get(key, 3)


def _number(fields: Mapping[str, Any], key: str, value: Any) -> Any:
    if isinstance(value, float) and _RANDOM.fullmatch(key):
        return 0.0
    if type(value) is not int or _KEPT.fullmatch(key):
        return copy.deepcopy(value)
    if _KEY_VALUE_HEADS.fullmatch(key):
        heads = fields.get("swa_num_attention_heads" if key.startswith("swa") else "num_attention_heads") or 1
        return HEADS if value >= heads else min(value, 2)
    if key == "head_dim" and value == fields.get("qk_rope_head_dim"):
        key = "qk_rope_head_dim"
    if key.endswith("head_dim") and value == (fields.get("qk_nope_head_dim") or 0) + (
        fields.get("qk_rope_head_dim") or 0
    ):
        key = "qk_head_dim"
    for pattern, small in _COMPILED:
        if pattern.fullmatch(key):
            return min(value, small)
    return value
