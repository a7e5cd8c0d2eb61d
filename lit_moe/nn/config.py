"""Configuration of a decoder and of its mixture-of-experts layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.field_types import as_dataclass, check_fields
from lit_core.origin import python_number
from lit_moe.nn.router import check_top_k

Activation = Literal["silu", "gelu"]
Backend = Literal["auto", "loop", "grouped_mm"]
Preset = Literal["dense", "switch", "granular"]


@dataclass
class MoEConfig:
    """A mixture-of-experts feed-forward layer.

    Args:
        n_experts: Number of routed experts.
        top_k: Routed experts per token.
        expert_width: Hidden width of one expert, routed or shared.
        n_shared: Number of shared experts that see every token; 0 for none.
        shared_gate: Whether the shared experts' output is multiplied by a learned sigmoid gate per token.
        normalize_top_k: Whether a token's routed weights are divided by their sum; needs top_k of 2 or more.
        backend: Implementation of the experts; auto chooses by device and number format.
        n_added: How many of the experts, the last ones, ``lit-moe grow`` has added, with weights of their own; 0 for
            none.
        added_warmup: Optimizer steps, 0 or more, in which the odds of the added experts rise from 0 to those of the
            others.
    """

    n_experts: int
    top_k: int
    expert_width: int
    n_shared: int = 0
    shared_gate: bool = False
    normalize_top_k: bool = False
    backend: Backend = "auto"
    n_added: int = 0
    added_warmup: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        check_top_k(self.n_experts, self.top_k, self.normalize_top_k)
        check_at_least(1, expert_width=self.expert_width)
        check_at_least(0, n_shared=self.n_shared, n_added=self.n_added, added_warmup=self.added_warmup)
        if self.n_added > self.n_experts - self.top_k:
            raise UserError(
                f"n_added is {self.n_added}, but of {self.n_experts} experts {self.top_k} are chosen at the start "
                f"without the added ones; set it to {self.n_experts - self.top_k} or less."
            )
        if self.shared_gate and self.n_shared == 0:
            raise UserError(
                "shared_gate is true but n_shared is 0, so there is nothing to gate; set n_shared to 1 or more."
            )

    @property
    def active_width(self) -> int:
        """Hidden width that one token passes through, shared experts included."""
        return (self.top_k + self.n_shared) * self.expert_width


@dataclass
class DecoderConfig:
    """A Llama-style decoder, dense or with mixtures of experts.

    Args:
        vocab_size: Number of token ids; linked to the tokenizer of the data when run from the command line.
        n_layers: Number of layers.
        d_model: Width of the residual stream.
        n_heads: Number of query heads.
        n_kv_heads: Number of key and value heads; None for as many as query heads.
        head_dim: Width of one head, an even number; None for d_model divided by n_heads.
        d_ff: Hidden width of the dense feed-forward layer, which the presets switch and granular match in FLOPs.
        activation: Activation of the gated feed-forward layers.
        rope_theta: Base of the rotary position encoding.
        rope_fraction: Fraction of each head that is rotated, above 0 and at most 1.
        norm: Kind of normalisation.
        norm_eps: Small number added to the variance in normalisations.
        tie_embeddings: Whether the output layer shares the embedding's weights.
        qk_norm: RMS normalisation of queries and keys, over each head or over all heads together; None for none.
        qkv_bias: Whether the query, key and value projections have biases.
        clip_qkv: Queries, keys and values are clipped to [-clip_qkv, clip_qkv]; None for no clipping.
        max_seq_len: Longest sequence in tokens, prompt and generated text together.
        feed_forward: dense, switch (8 experts, 1 per token), granular (31 routed and 1 shared of a quarter of the
            width, 3 per token), or a mapping with the shape of a mixture-of-experts layer.
        activation_checkpointing: Whether each layer's activations are recomputed in the backward pass to save memory.
    """

    vocab_size: int
    n_layers: int = 4
    d_model: int = 256
    n_heads: int = 4
    n_kv_heads: int | None = None
    head_dim: int | None = None
    d_ff: int = 704
    activation: Activation = "silu"
    rope_theta: float = 10000.0
    rope_fraction: float = 1.0
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    qk_norm: Literal["head", "all"] | None = None
    qkv_bias: bool = False
    clip_qkv: float | None = None
    max_seq_len: int = 2048
    feed_forward: Preset | MoEConfig = "dense"
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        self.feed_forward = as_dataclass(MoEConfig, self.feed_forward, "feed_forward")
        check_fields(self)
        for name in ("vocab_size", "n_layers", "d_model", "n_heads", "head_dim", "d_ff", "max_seq_len"):
            check_at_least(1, **{name: getattr(self, name)})
        check_above(0, rope_theta=self.rope_theta, norm_eps=self.norm_eps, clip_qkv=self.clip_qkv)
        if self.head_dim is None and self.d_model % self.n_heads:
            raise UserError(
                f"n_heads is {self.n_heads} but must divide d_model, which is {self.d_model}; "
                "change one of them or set head_dim."
            )
        if self.head_width % 2:
            raise UserError(f"head_dim is {self.head_width} but must be even for rotary positions; set an even number.")
        if self.kv_heads < 1 or self.n_heads % self.kv_heads:
            raise UserError(
                f"n_kv_heads is {self.n_kv_heads} but must divide n_heads, which is {self.n_heads}; set a divisor."
            )
        if not 0 < self.rope_fraction <= 1:
            raise UserError(
                f"rope_fraction is {self.rope_fraction} but must be above 0 and at most 1; set it to 1 for all."
            )
        if not isinstance(self.feed_forward, MoEConfig):
            preset(self.feed_forward, self.d_ff)  # refuses a d_ff that does not fit, before memory is spent

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.head_dim if self.head_dim is not None else self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_kv_heads if self.n_kv_heads is not None else self.n_heads

    @property
    def moe(self) -> MoEConfig | None:
        """Shape of the mixture-of-experts layers; None if the decoder is dense."""
        if isinstance(self.feed_forward, MoEConfig):
            return self.feed_forward
        return preset(self.feed_forward, self.d_ff)


def preset(name: Preset, d_ff: int) -> MoEConfig | None:
    """Return the mixture of a preset, which has the FLOPs per token of a dense layer plus those of the router.

    The presets are those of Thérien et al. 2025 (arXiv 2503.05029).

    Args:
        name: dense, switch or granular.
        d_ff: Hidden width of the dense layer.

    Returns:
        The mixture's shape; None for dense.

    Raises:
        UserError: If the name is unknown or d_ff cannot be divided into quarters for granular.
    """
    d_ff = python_number(d_ff)
    if name == "dense":
        return None
    if name == "switch":
        config = MoEConfig(n_experts=8, top_k=1, expert_width=d_ff)
    elif name == "granular":
        if d_ff % 4:
            raise UserError(
                f'd_ff is {d_ff} but feed_forward "granular" needs a multiple of 4, as an expert has a quarter of it; '
                f"set d_ff to {d_ff + 4 - d_ff % 4}."
            )
        config = MoEConfig(n_experts=31, top_k=3, expert_width=d_ff // 4, n_shared=1)
    else:
        raise UserError(f'feed_forward is "{name}" but must be dense, switch, granular or a mapping; set one of them.')
    assert config.active_width == d_ff, "a preset is matched in FLOPs by construction"
    return config
