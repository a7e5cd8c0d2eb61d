"""Experts and weights divided among devices: FSDP2 and expert parallelism."""

from lit_moe.parallel.sharding import clip_gradients, shard

__all__ = ["clip_gradients", "shard"]
