"""Llama-style decoder, dense or with mixtures of experts.

Shape suffixes: B batch, S sequence, K keys, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, noop_context_fn

from lit_core.errors import UserError
from lit_moe.nn.added_experts import AddedExperts
from lit_moe.nn.attention import Attention, rope_table
from lit_moe.nn.attention_mask import Allowed, attention_mask, block_mask, takes_blocks
from lit_moe.nn.cache import KVCache
from lit_moe.nn.config import DecoderConfig
from lit_moe.nn.dispatch import keep_shares
from lit_moe.nn.experts import GroupedExperts
from lit_moe.nn.feed_forward import FeedForward, MoEFeedForward
from lit_moe.nn.penalty_router import PenaltyRouter
from lit_moe.nn.router import Router, RouterCallable


class ParameterCounts(NamedTuple):
    """Numbers of parameters: all, those that one token passes through, and both without embedding and output layer."""

    total: int
    active: int
    total_without_embeddings: int
    active_without_embeddings: int


class Layer(nn.Module):
    """One decoder layer: x + attention(norm(x)), then x + feed_forward(norm(x)).

    Args:
        config: Shape of the decoder.
        router: Makes a router for each mixture-of-experts layer.
        index: Index of the layer.
    """

    def __init__(self, config: DecoderConfig, router: RouterCallable, index: int) -> None:
        super().__init__()
        self.attention_norm = _norm(config)
        self.attention = Attention(config, index)
        self.feed_forward_norm = _norm(config)
        self.feed_forward: FeedForward | MoEFeedForward
        if config.moe is None:
            self.feed_forward = FeedForward(config.d_model, config.d_ff, config.activation)
        else:
            self.feed_forward = MoEFeedForward(config.d_model, config.moe, router, config.activation)

    def forward(
        self,
        x_BSD: Tensor,
        rope: tuple[Tensor, Tensor],
        allowed: Allowed,
        mask_BS: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor:
        """Transform ``(batch, new tokens, d_model)``; the other arguments are those of attention and feed-forward."""
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), rope, allowed, cache)
        h_BSD = self.feed_forward_norm(x_BSD)
        if isinstance(self.feed_forward, MoEFeedForward):
            return x_BSD + self.feed_forward(h_BSD, mask_BS)
        return x_BSD + self.feed_forward(h_BSD)


class Decoder(nn.Module):
    """Causal language model: embedding, layers, final norm, output layer.

    Weights start normally distributed: standard deviation sqrt(2 / (5 d_model)) (Nguyen and Salazar 2019,
    arXiv 1910.05895), and 2 / (n_layers sqrt(d_model)) for the projections that write into the residual stream
    (Wang and Komatsuzaki 2021, GPT-J). Norm gains start at 1, biases at 0. Routers initialise what they have of their
    own by `Router.reset_parameters`.

    Args:
        config: Shape of the decoder.
        router: Makes a router from the number of experts and of experts per token; unused in a dense decoder.
    """

    def __init__(self, config: DecoderConfig, router: RouterCallable = PenaltyRouter) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config, router, index) for index in range(config.n_layers))
        self.norm = _norm(config)
        self.output = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialise all weights again, in a fixed order, and the parameters and buffers of routers.

        Args:
            generator: Source of randomness on the weights' device; None for torch's global one.
        """
        small = math.sqrt(2 / (5 * self.config.d_model))
        into_residual = 2 / (self.config.n_layers * math.sqrt(self.config.d_model))
        for module in self.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):
                nn.init.normal_(module.weight, std=small, generator=generator)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, GroupedExperts):
                nn.init.normal_(module.gate_up, std=small, generator=generator)
                nn.init.normal_(module.down, std=into_residual, generator=generator)
                if isinstance(module, AddedExperts):
                    module.steps.zero_()
            elif isinstance(module, (nn.RMSNorm, nn.LayerNorm)):
                module.reset_parameters()
            elif isinstance(module, Router):
                module.reset_parameters(generator)
        for module in self.modules():
            if isinstance(module, Attention):
                nn.init.normal_(module.out.weight, std=into_residual, generator=generator)
            elif isinstance(module, FeedForward):
                nn.init.normal_(module.down.weight, std=into_residual, generator=generator)

    def forward(
        self,
        input_ids_BS: Tensor,
        *,
        mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Return next-token logits ``(batch, sequence, vocabulary)``; the arguments are those of :meth:`hidden`."""
        return self.head(self.hidden(input_ids_BS, mask=mask, document_ids=document_ids, cache=cache))

    def hidden(
        self,
        input_ids_BS: Tensor,
        *,
        mask: Tensor | None = None,
        document_ids: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Return the hidden states that the output layer reads, for losses that compute the logits in chunks.

        Args:
            input_ids_BS: Token ids of shape ``(batch, sequence)``.
            mask: True for real tokens, False for padding on either side, shape ``(batch, sequence)``; None for no
                padding, which is faster. Padding is not attended to and enters no routing count, loss or balancing.
            document_ids: Index of the document that each token belongs to, shape ``(batch, sequence)``; a token attends
                only to its own document. None for one document per row.
            cache: Earlier tokens, extended by this call; None for none. Cannot be combined with document_ids.

        Returns:
            Normalised hidden states of shape ``(batch, sequence, d_model)``.

        Raises:
            UserError: If the sequence is longer than max_seq_len.
        """
        length = input_ids_BS.shape[1]
        start = 0 if cache is None else cache.length
        if start + length > self.config.max_seq_len:
            raise UserError(
                f"The sequence has {start + length} tokens but max_seq_len is {self.config.max_seq_len}; "
                "shorten the sequence or set the decoder's max_seq_len higher."
            )
        if cache is not None and document_ids is not None:
            raise ValueError("document_ids and cache exclude each other.")
        keys_mask = mask if cache is None else cache.extend_mask(mask, len(input_ids_BS), length, input_ids_BS.device)
        allowed: Allowed
        if document_ids is not None and takes_blocks(document_ids, self.config.head_width):
            allowed = block_mask(mask, document_ids)
        else:
            allowed = attention_mask(start, length, keys_mask, document_ids, input_ids_BS.device)
        rope = rope_table(self.config, start, length, input_ids_BS.device)
        x_BSD = self.embedding(input_ids_BS)
        recompute = self.config.activation_checkpointing and torch.is_grad_enabled()
        contexts = keep_shares if self._divided() else noop_context_fn
        for layer in self.layers:
            if recompute:
                x_BSD = checkpoint(layer, x_BSD, rope, allowed, mask, None, use_reentrant=False, context_fn=contexts)
            else:
                x_BSD = layer(x_BSD, rope, allowed, mask, cache)
        if cache is not None:
            cache.advance(length)
        return self.norm(x_BSD)

    def _divided(self) -> bool:
        return any(isinstance(module, GroupedExperts) and module.divided for module in self.modules())

    def head(self, hidden: Tensor) -> Tensor:
        """Return logits ``(..., vocabulary)`` of hidden states ``(..., d_model)``."""
        if self.output is None:
            return nn.functional.linear(hidden, self.embedding.weight)
        return self.output(hidden)

    def parameter_counts(self) -> ParameterCounts:
        """Return the numbers of parameters; works on the meta device."""
        total = sum(parameter.numel() for parameter in self.parameters())
        embeddings = self.embedding.weight.numel() + (0 if self.output is None else self.output.weight.numel())
        idle = 0
        for module in self.modules():
            if isinstance(module, MoEFeedForward):
                count = next(inner.n_experts for inner in module.experts.modules() if isinstance(inner, GroupedExperts))
                of_one = sum(parameter.numel() for parameter in module.experts.parameters()) // count
                idle += of_one * (module.router.n_experts - module.router.top_k)
        return ParameterCounts(total, total - idle, total - embeddings, total - idle - embeddings)

    def flops_per_token(self, sequence_length: int) -> int:
        """Return the floating-point operations of one token's forward pass; a training step costs three times as many.

        Two per multiply-add of every matrix product: 2 × active matrix weights (embedding look-up excluded, output
        layer included) + 4 × layers × heads × head_dim × sequence_length for the scores and their use. Attention is
        counted over the full sequence, without the saving of causality; elementwise work and activation
        checkpointing's second forward pass are not counted.

        Args:
            sequence_length: Tokens per sequence.
        """
        vectors = sum(parameter.numel() for parameter in self.parameters() if parameter.dim() == 1)
        weights = self.parameter_counts().active_without_embeddings - vectors + self.embedding.weight.numel()
        attention = 4 * self.config.n_layers * self.config.n_heads * self.config.head_width * sequence_length
        return 2 * weights + attention


def _norm(config: DecoderConfig) -> nn.Module:
    kind = nn.RMSNorm if config.norm == "rmsnorm" else nn.LayerNorm
    return kind(config.d_model, eps=config.norm_eps)
