"""The architectures of Hugging Face that can be imported and exported, and their configs: one row each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lit_core.errors import UserError
from lit_moe.nn import DecoderConfig, MoEConfig

#: Keys of a Hugging Face config by the field of `DecoderConfig`, the same in all families.
_KEYS = {
    "vocab_size": "vocab_size",
    "n_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "d_ff": "intermediate_size",
    "activation": "hidden_act",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "max_seq_len": "max_position_embeddings",
}
_ALL_FIXED = {"norm": "rmsnorm", "rope_fraction": 1.0, "qk_norm": None, "qkv_bias": False, "clip_qkv": None}


@dataclass(frozen=True)
class Mixture:
    """Names of a family's mixture-of-experts layers, in its config and its weights.

    Args:
        keys: Keys of its config by the field of `MoEConfig`.
        fixed: Fields of `MoEConfig` that are the same in all its models.
        block: Name of the feed-forward layer in the names of the weights.
        parts: Names of an expert's gate, up and down projections.
        shared_width: Key of the hidden width of the gated shared expert; None if there is none.
    """

    keys: dict[str, str]
    fixed: dict[str, Any]
    block: str = "mlp"
    parts: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
    shared_width: str | None = None


@dataclass(frozen=True)
class Family:
    """One architecture of transformers that computes what a `Decoder` computes.

    Args:
        name: Name of its classes in transformers: NameConfig and NameForCausalLM.
        fixed: Fields of `DecoderConfig` that are the same in all its models.
        keys: Further keys of its config by the field of `DecoderConfig`.
        mixture: Names of its mixture-of-experts layers; None for a dense family.
    """

    name: str
    fixed: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    mixture: Mixture | None = None

    @property
    def all_keys(self) -> dict[str, str]:
        """Keys of its config by the field of `DecoderConfig`, without fixed fields."""
        return {ours: theirs for ours, theirs in (_KEYS | self.keys).items() if ours not in self.fixed}

    @property
    def all_fixed(self) -> dict[str, Any]:
        """Fields of `DecoderConfig` that are the same in all its models."""
        return {ours: value for ours, value in (_ALL_FIXED | self.fixed).items() if ours not in self.keys}

    def decoder_config(self, theirs: Any) -> DecoderConfig:
        """Return the `DecoderConfig` of a model.

        Args:
            theirs: Config of the model, of transformers' class.

        Raises:
            UserError: If the config sets a key to a value that our decoder does not support.
        """
        _refuse_what_we_lack(theirs)
        values: dict[str, Any] = {
            ours: getattr(theirs, key, None) for ours, key in self.all_keys.items()
        } | self.all_fixed
        if self.mixture is not None:
            values["feed_forward"] = _moe_config(self.mixture, theirs)
        return DecoderConfig(**values, rope_theta=_rope(theirs)["rope_theta"])

    def hugging_face_config(self, ours: DecoderConfig, **tokens: int | None) -> Any:
        """Return transformers' config of a decoder, for which :meth:`lacks` must be empty.

        Args:
            ours: The decoder.
            tokens: Ids of special tokens, such as eos_token_id.
        """
        import transformers

        explicit = replace(ours, n_kv_heads=ours.kv_heads, head_dim=ours.head_width)
        values = {key: getattr(explicit, name) for name, key in self.all_keys.items()}
        if self.mixture is not None:
            assert ours.moe is not None, "only a mixture is written as one"
            values |= {key: getattr(ours.moe, name) for name, key in self.mixture.keys.items()}
            if self.mixture.shared_width is not None:
                values[self.mixture.shared_width] = ours.moe.n_shared * ours.moe.expert_width
        values |= {"bos_token_id": None, "pad_token_id": None, "rope_theta": ours.rope_theta, **tokens}
        config = getattr(transformers, f"{self.name}Config")(**values)
        config.architectures = [f"{self.name}ForCausalLM"]
        return config

    def lacks(self, ours: DecoderConfig) -> list[str]:
        """Return the settings of a decoder that the family cannot express, such as ``["clip_qkv 0.5"]``.

        Args:
            ours: The decoder.
        """
        usual_head = ours.head_width * ours.n_heads == ours.d_model
        plain = replace(ours, head_dim=None if usual_head else ours.head_dim)
        wrong = [name for name, value in self.all_fixed.items() if getattr(plain, name) != value]
        settings = [f"{name} {getattr(plain, name)}" for name in wrong]
        if self.mixture is not None and ours.moe is not None:
            wrong = [name for name, value in self.mixture.fixed.items() if getattr(ours.moe, name) != value]
            settings += [f"{name} {getattr(ours.moe, name)}" for name in wrong]
        return settings


_EXPERTS = {"top_k": "num_experts_per_tok", "expert_width": "moe_intermediate_size", "n_experts": "num_experts"}
_UNSHARED = {"n_shared": 0}

FAMILIES: dict[str, Family] = {
    "llama": Family("Llama"),
    "qwen2": Family("Qwen2", {"qkv_bias": True}),
    "qwen3": Family("Qwen3", {"qk_norm": "head"}),
    "mixtral": Family(
        "Mixtral",
        mixture=Mixture(
            _EXPERTS | {"n_experts": "num_local_experts", "expert_width": "intermediate_size"},
            _UNSHARED | {"normalize_top_k": True},
            block="block_sparse_moe",
            parts=("w1", "w3", "w2"),
        ),
    ),
    "olmoe": Family(
        "Olmoe",
        {"qk_norm": "all", "head_dim": None},
        {"clip_qkv": "clip_qkv"},
        Mixture(
            _EXPERTS | {"expert_width": "intermediate_size", "normalize_top_k": "norm_topk_prob"},
            _UNSHARED,
        ),
    ),
    "qwen2_moe": Family(
        "Qwen2Moe",
        keys={"qkv_bias": "qkv_bias"},
        mixture=Mixture(
            _EXPERTS | {"normalize_top_k": "norm_topk_prob"}, {}, shared_width="shared_expert_intermediate_size"
        ),
    ),
    "qwen3_moe": Family(
        "Qwen3Moe", {"qk_norm": "head"}, mixture=Mixture(_EXPERTS | {"normalize_top_k": "norm_topk_prob"}, _UNSHARED)
    ),
}
"""Supported architectures by the ``model_type`` of a config.json."""


def family_of(model_type: Any, model: str) -> Family:
    """Return the family of a Hugging Face model.

    Args:
        model_type: Value of model_type in its config.json.
        model: Name or folder of the model, for the message.

    Raises:
        UserError: If it is not supported.
    """
    if isinstance(model_type, str) and model_type in FAMILIES:
        return FAMILIES[model_type]
    raise UserError(
        f"model is {model}, whose config.json says model_type {model_type}, but only {', '.join(FAMILIES)} can be "
        "imported; train another one by naming it in `model.hugging_face`."
    )


def nearest_family(config: DecoderConfig) -> tuple[Family, list[str]]:
    """Return the family that can express most settings of a decoder, and the settings that it cannot express.

    Of several equally good families, the first of the table is taken: the simplest.

    Args:
        config: The decoder.
    """
    candidates = [family for family in FAMILIES.values() if (family.mixture is None) == (config.moe is None)]
    family = min(candidates, key=lambda family: len(family.lacks(config)))
    return family, family.lacks(config)


def _moe_config(mixture: Mixture, theirs: Any) -> MoEConfig:
    values = {ours: getattr(theirs, key) for ours, key in mixture.keys.items()} | mixture.fixed
    if mixture.shared_width is not None:
        shared, width = getattr(theirs, mixture.shared_width), values["expert_width"]
        if shared % width:
            raise _inexpressible(mixture.shared_width, shared, f"a width that is no multiple of an expert's, {width}")
        values |= {"n_shared": shared // width, "shared_gate": shared > 0}
    if values["normalize_top_k"] and values["top_k"] == 1:
        raise _inexpressible(mixture.keys["top_k"], 1, "one expert with a weight that is always 1")
    return MoEConfig(**values)


def _refuse_what_we_lack(theirs: Any) -> None:
    """Check the keys of which only one value can be expressed, whatever the family."""
    rope = _rope(theirs)
    kind = rope.get("rope_type", rope.get("type", "default"))
    window = getattr(theirs, "sliding_window", None) if getattr(theirs, "use_sliding_window", True) else None
    rules = {
        "hidden_act": (theirs.hidden_act, theirs.hidden_act in ("silu", "gelu"), "an activation but silu and gelu"),
        "rope_parameters.rope_type": (kind, kind == "default", "scaled rotary positions"),
        "sliding_window": (window, not window, "attention in a window"),
        "quantization_config": ("given", not getattr(theirs, "quantization_config", None), "quantised weights"),
    }
    for key, usual, what in (
        ("rope_parameters.partial_rotary_factor", 1.0, "partly rotated heads"),
        ("attention_bias", False, "a bias in attention"),
        ("mlp_bias", False, "biases in the feed-forward layers"),
        ("mlp_only_layers", [], "dense layers among mixtures"),
        ("decoder_sparse_step", 1, "dense layers among mixtures"),
    ):
        holder = rope.get if key.startswith("rope") else lambda name, usual: getattr(theirs, name, usual)
        value = holder(key.rpartition(".")[2], usual)
        rules[key] = (value, value in (usual, None), what)
    for key, (value, good, what) in rules.items():
        if not good:
            raise _inexpressible(key, value, what)


def _rope(theirs: Any) -> dict[str, Any]:
    """Return the rotary positions' parameters, whose base transformers 4 keeps in another key."""
    parameters = getattr(theirs, "rope_parameters", None) or getattr(theirs, "rope_scaling", None) or {}
    if not isinstance(parameters, Mapping):
        raise UserError(f"config.json sets rope_parameters to {parameters!r:.60}, but it must be an object; mend it.")
    base = parameters.get("rope_theta", getattr(theirs, "rope_theta", None))
    if isinstance(base, bool) or not isinstance(base, int | float):
        raise UserError(f"config.json sets rope_theta to {base!r:.60}, but it must be a number; correct it.")
    return {**parameters, "rope_theta": float(base)}


def _inexpressible(key: str, value: Any, what: str) -> UserError:
    return UserError(
        f"config.json sets {key} to {value}, but our decoder has no {what.removeprefix('a ').removeprefix('an ')}; "
        "train such a model by naming it in `model.hugging_face`."
    )
