"""Bytes that devices send each other in a training step, computed from shapes."""

from __future__ import annotations

from lit_moe.plan.layout import Layout
from lit_moe.plan.network import Network, Weights


def wire_bytes(network: Network, layout: Layout) -> dict[str, float]:
    """Return the bytes that a device sends in an optimizer step, by purpose; collectives go around a ring.

    A ring of n devices sends (n - 1) / n of what is gathered or reduced to parts, and twice that where all get the sum.
    DDP sums the gradients once. FSDP2 gathers the weights of layers for each forward and each backward pass, the others
    once for both, under bf16-mixed in 16 bits; it reduces the gradients of trained weights in float32 after each
    backward pass, or once per optimizer step; those of experts among the devices that hold the same ones. Expert
    parallelism sends the tokens to their experts and back, D numbers per chosen expert, in each forward pass and its
    gradients in the backward pass; activation checkpointing repeats the forward pass.

    Args:
        network: What is known of the network for the layout.
        layout: Division of a training step over devices.

    Returns:
        Bytes by purpose; empty if it is not known to how many experts a token is sent.
    """
    n, ep = layout.devices, layout.expert_parallel
    if ep > 1 and network.experts is None:
        return {}
    if not layout.sharded:
        return {"gradients, summed": 2 * (n - 1) / n * network.trained() * layout.stored}

    def sent(weights: Weights, size: int, exact: int) -> float:
        rest = weights.whole - weights.routed - weights.exact
        return (n - 1) / n * (rest * size + weights.exact * exact) + (n - ep) / n * weights.routed / ep * size

    gathered = [sent(one.weights, layout.stream, layout.stored) for one in (*network.layers, network.outer)]
    reduced = sum(sent(one.trained, layout.reduced, layout.reduced) for one in (*network.layers, network.outer))
    parts = {
        "weights, gathered": layout.accumulation * (2 * sum(gathered[:-1]) + gathered[-1]),
        "gradients, reduced": (1 if layout.reduce_once else layout.accumulation) * reduced,
    }
    if network.experts and ep > 1:
        rows = layout.accumulation * network.experts * layout.tokens
        passes = 6 if network.recompute else 4
        parts["tokens, to experts and back"] = passes * (ep - 1) / ep * rows * network.width * layout.operand
    return parts
