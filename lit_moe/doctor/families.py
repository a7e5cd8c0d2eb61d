"""The causal language models of the installed transformers that hold mixtures of experts, found by what they build."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lit_core.errors import reason_of
from lit_core.lm.transformers_loading import quiet_transformers
from lit_moe.nn.hf_shrink import EXPERTS, shrink

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_EXPERTS = re.compile(r"experts?|moe|router")
_NUMBER = re.compile(r"(moe_)?(num_|n_)(local_|routed_)?experts")
#: What a model needs, though its class has no value for it, and parts of published models that its class leaves out.
_NEEDED: dict[str, dict[str, Any]] = {
    "cohere2_moe": {"num_shared_experts": 1},
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"moe_num_experts": 16, "moe_top_k": 4},
    },
    "dots1": {"n_shared_experts": 2},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"] * 8
    },
    "granitemoeshared": {"shared_intermediate_size": 1024},
    "hunyuan_v1_moe": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "linear_attention", "full_attention", "moe", "mlp"]
    },
    "qwen4_exp_text": {
        **{"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 256},
        **{"indexer_budget": 16, "indexer_compress_ratio": 4, "ple_layer_ids": [1], "eos_token_id": 2},
    },
}
_CHOSEN = re.compile(r"num_experts_per_tok(en)?|moe_top_?k|moe_k|top_k_experts")


def mixture_families() -> dict[str, type[PretrainedConfig]]:
    """Return the config classes of all model types whose causal language model holds a mixture, by model type.

    A type that only wraps the text model of another one is left out, since it builds that one.
    """
    return dict(_found()[0])


def unbuilt() -> dict[str, str]:
    """Return why no small model is built of a model type whose config speaks of experts, by model type."""
    return dict(_found()[1])


def small_config(model_type: str) -> PretrainedConfig:
    """Return a small config of a model type, with mixtures switched on where the class's own values have none.

    Args:
        model_type: One of `mixture_families`.
    """
    config, _ = _with_mixture(_class_of(model_type))
    return config


def holds_mixture(model: nn.Module) -> bool:
    """Tell whether a model has several experts: in modules of that name, or where transformers records router logits.

    Args:
        model: A causal language model of transformers, which may be on the meta device.
    """
    experts = [module for name, module in model.named_modules() if name.rpartition(".")[2] == "experts"]
    if experts:
        return any(_several(module) for module in experts)
    recorded = getattr(model, "_can_record_outputs", None) or {}
    kinds = tuple(kind for one in _as_list(recorded.get("router_logits")) if isinstance(kind := _kind(one), type))
    return any(isinstance(module, kinds) for module in model.modules())


def numbers_of_experts(config: Any) -> tuple[set[int], set[int]]:
    """Return the numbers of experts that a config has, and those of experts that a token is sent to.

    Args:
        config: A config of transformers.
    """
    values = {key: value for key, value in vars(config).items() if type(value) is int}
    number = {value for key, value in values.items() if _NUMBER.fullmatch(key)}
    return number, {value for key, value in values.items() if _CHOSEN.fullmatch(key)}


def build(config: PretrainedConfig) -> Any:
    """Return the causal language model of a config, with transformers' own random weights in float32.

    Args:
        config: A config of transformers.
    """
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


@cache
def _found() -> tuple[dict[str, type[PretrainedConfig]], dict[str, str]]:
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    families: dict[str, type[PretrainedConfig]] = {}
    reasons: dict[str, str] = {}
    for model_type in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        kind = CONFIG_MAPPING[model_type]
        if not _speaks_of_experts(kind):
            continue
        try:
            model_class = MODEL_FOR_CAUSAL_LM_MAPPING[kind]
            if model_class.config_class is not kind:
                continue
            _, mixture = _with_mixture(kind)
        except Exception as error:  # whatever a config or a model of transformers raises
            reasons[model_type] = f"{type(error).__name__}: {reason_of(error)}"
        else:
            if mixture:
                families[model_type] = kind
    return families, reasons


def _class_of(model_type: str) -> type[PretrainedConfig]:
    from transformers import CONFIG_MAPPING

    kind: type[PretrainedConfig] = CONFIG_MAPPING[model_type]
    return kind


def _speaks_of_experts(kind: type[PretrainedConfig]) -> bool:
    keys = {key for one in (kind, *getattr(kind, "sub_configs", {}).values()) for key in _annotated(one)}
    return any(_EXPERTS.search(key) for key in keys)


def _annotated(kind: Any) -> set[str]:
    return {key for base in getattr(kind, "__mro__", ()) for key in vars(base).get("__annotations__", {})}


def _with_mixture(kind: type[PretrainedConfig]) -> tuple[PretrainedConfig, bool]:
    """Return a small config of a class, and whether it builds a mixture."""
    needed = _NEEDED.get(kind.model_type, {})
    with quiet_transformers():
        config = kind(**needed)
        _fill(config, lambda value: value is None)
        small = shrink(config)
        if _builds_mixture(small):
            return small, True
        for part in (config, *(getattr(config, name, None) for name in kind.sub_configs)):
            if part is not None:
                _switch_on(part)
        small = shrink(config)
        return small, _builds_mixture(small)


def _switch_on(config: Any) -> None:
    """Set the switches and numbers of a config that keep its mixture away."""
    for key, value in list(vars(config).items()):
        if value is False and re.search(r"(^|_)moe(_|$)", key):
            setattr(config, key, True)
    _fill(config, lambda value: value is None or (type(value) is int and value <= 1))


def _fill(config: Any, lacks: Callable[[Any], bool]) -> None:
    """Set the numbers of a config's experts where they are lacking."""
    for key, value in list(vars(config).items()):
        if _NUMBER.fullmatch(key) and lacks(value):
            setattr(config, key, EXPERTS)
        elif _CHOSEN.fullmatch(key) and lacks(value):
            setattr(config, key, 2)
        elif key == "moe_intermediate_size" and value is None:
            setattr(config, key, config.intermediate_size)


def _builds_mixture(config: PretrainedConfig) -> bool:
    with torch.device("meta"):
        return holds_mixture(build(config))


def _several(experts: nn.Module) -> bool:
    told = [value for key, value in vars(experts).items() if _NUMBER.fullmatch(key)]
    return told[0] > 1 if told else len(list(experts.children())) > 1


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _kind(recorder: Any) -> Any:
    return getattr(recorder, "target_class", recorder)
