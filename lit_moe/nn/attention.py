"""Causal self-attention with rotary positions.

Shape suffixes: B batch, S new tokens, K keys, H heads, d head width, r rotated width, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_moe.nn.attention_mask import Allowed, attend_in_blocks
from lit_moe.nn.cache import KVCache
from lit_moe.nn.config import DecoderConfig


class Attention(nn.Module):
    """Grouped-query causal attention by torch's scaled_dot_product_attention, or in blocks by its flex attention.

    Args:
        config: Shape of the decoder.
        layer: Index of the layer, under which keys and values are cached.
    """

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_width
        self.clip = config.clip_qkv
        q_width, kv_width = config.n_heads * self.head_dim, config.kv_heads * self.head_dim
        self.q = nn.Linear(config.d_model, q_width, bias=config.qkv_bias)
        self.k = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.v = nn.Linear(config.d_model, kv_width, bias=config.qkv_bias)
        self.out = nn.Linear(q_width, config.d_model, bias=False)
        self.norm_per_head = config.qk_norm == "head"
        self.q_norm: nn.RMSNorm | None = None
        self.k_norm: nn.RMSNorm | None = None
        if config.qk_norm is not None:
            self.q_norm = nn.RMSNorm(self.head_dim if self.norm_per_head else q_width, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(self.head_dim if self.norm_per_head else kv_width, eps=config.norm_eps)

    def forward(self, x_BSD: Tensor, rope: tuple[Tensor, Tensor], allowed: Allowed, cache: KVCache | None) -> Tensor:
        """Let each token attend to itself and to earlier tokens.

        Args:
            x_BSD: Tokens of shape ``(batch, new tokens, d_model)``.
            rope: Cosines and sines of shape ``(new tokens, rotated width)``.
            allowed: True where a query may see a key, shape ``(batch or 1, 1, new tokens, keys)``, or the same in
                blocks; None for plain causal attention among the new tokens, or for one new token that may see
                everything.
            cache: Keys and values of earlier tokens, extended by this call; None for none.

        Returns:
            Shape ``(batch, new tokens, d_model)``.
        """
        q = self._heads(self.q(x_BSD), self.q_norm)
        k = self._heads(self.k(x_BSD), self.k_norm)
        v = self._heads(self.v(x_BSD), None)
        q_BHSd, k_BHSd = rotate(q, *rope), rotate(k, *rope)
        if cache is not None:
            k_BHSd, v = cache.update(self.layer, k_BHSd, v)
        if allowed is None or isinstance(allowed, Tensor):
            out_BHSd = nn.functional.scaled_dot_product_attention(
                q_BHSd,
                k_BHSd,
                v,
                attn_mask=allowed,
                is_causal=allowed is None and q_BHSd.shape[2] == k_BHSd.shape[2],
                enable_gqa=q_BHSd.shape[1] != k_BHSd.shape[1],
            )
        else:
            out_BHSd = attend_in_blocks(q_BHSd, k_BHSd, v, allowed)
        return self.out(out_BHSd.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor, norm: nn.RMSNorm | None) -> Tensor:
        if norm is not None:
            wide = x.unflatten(-1, (-1, self.head_dim)) if self.norm_per_head else x
            # In the gain's own number format: under autocast the projections are narrower than the norms.
            x = norm(wide.to(norm.weight.dtype)).to(x.dtype).view_as(x)
        x = x.unflatten(-1, (-1, self.head_dim))
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
        return x.transpose(1, 2)


def rope_table(config: DecoderConfig, start: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of rotary positions (Su et al. 2021, arXiv 2104.09864).

    Args:
        config: Shape of the decoder.
        start: First position.
        length: Number of positions.
        device: Device of the table.

    Returns:
        Two float32 tensors of shape ``(length, rotated width)``; both halves of the width are equal.
    """
    width = rotated_width(config)
    # In float32 on every device and under every precision: bfloat16 cannot tell positions above 256 apart.
    frequency_r = config.rope_theta ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    angle_Sr = torch.arange(start, start + length, dtype=torch.float32, device=device)[:, None] * frequency_r
    angle_Sr = torch.cat((angle_Sr, angle_Sr), dim=-1)
    return angle_Sr.cos(), angle_Sr.sin()


def rotated_width(config: DecoderConfig) -> int:
    """Return how many dimensions of each head are rotated: an even number, at least 2."""
    return max(int(config.head_width * config.rope_fraction) // 2 * 2, 2)


def rotate(x_BHSd: Tensor, cos_Sr: Tensor, sin_Sr: Tensor) -> Tensor:
    """Rotate the first dimensions of each head by its position; the others stay unchanged.

    Args:
        x_BHSd: Queries or keys of shape ``(batch, heads, tokens, head_dim)``.
        cos_Sr: Cosines of shape ``(tokens, rotated width)``.
        sin_Sr: Sines of the same shape.

    Returns:
        The same shape and number format.
    """
    width = cos_Sr.shape[-1]
    turned, rest = x_BHSd[..., :width].to(cos_Sr.dtype), x_BHSd[..., width:]
    first, second = turned.chunk(2, dim=-1)
    turned = (turned * cos_Sr + torch.cat((-second, first), dim=-1) * sin_Sr).to(x_BHSd.dtype)
    return turned if rest.shape[-1] == 0 else torch.cat((turned, rest), dim=-1)
