"""The verb ``lit-moe upcycle``: a dense decoder becomes a mixture (Komatsuzaki et al. 2023, arXiv 2212.05055).

Shape suffixes: D model width, F width of the dense layer, E experts, I expert width, G groups.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import torch
from torch import Tensor

from lit_core import record
from lit_core.errors import UserError, check_above, check_at_least, checked_first
from lit_core.lightning.checkpoint import streamed_checkpoint
from lit_core.screen import quoted, say
from lit_core.seeds import part_seed
from lit_moe.interop.importing import new_checkpoint, new_checkpoint_path
from lit_moe.lm import load_module
from lit_moe.nn import Decoder, MoEConfig


def _check(
    n_experts: int, top_k: int, granularity: int, n_shared: int, noise: float, router_std: float, seed: int | None
) -> None:
    check_at_least(1, n_experts=n_experts, top_k=top_k, granularity=granularity)
    check_at_least(0, n_shared=n_shared, noise=noise)
    check_above(0, router_std=router_std)
    part_seed(seed)
    if n_shared >= granularity:
        raise UserError(f"n_shared is {n_shared} but must be from 0 to below granularity, {granularity}; change it.")
    pieces = granularity - n_shared
    for name, value in (("n_experts", n_experts), ("top_k", top_k)):
        if value % pieces:
            raise UserError(
                f"{name} is {value} but must be a multiple of {pieces}, the pieces of the dense layer in a group; "
                "change it."
            )


@checked_first(_check)
def upcycle(
    ckpt_path: str,
    output: str,
    n_experts: int = 8,
    top_k: int = 2,
    granularity: int = 1,
    n_shared: int = 0,
    normalize_top_k: bool = True,
    noise: float = 0.0,
    router_std: float = 0.02,
    seed: int | None = None,
) -> None:
    """Turn a dense checkpoint into a mixture-of-experts checkpoint whose experts are copies of the dense layers.

    With granularity 1 each expert is a copy of the dense layer. With granularity G the dense layer is cut along its
    width into G pieces: the shared experts are the first pieces, and the routed experts are copies of the others, in
    groups. The experts of a group start with equal router weights, so that a token's experts are all pieces of one
    group, or of several groups (virtual groups of He et al. 2024, arXiv 2410.07524). The experts' output projections
    are scaled so that the mixture computes the same function as the dense layer: exactly with normalize_top_k and
    without noise. Without normalize_top_k the weights of a token sum to about top_k over n_experts, and the smaller
    router_std, the closer.

    Args:
        ckpt_path: Checkpoint of a dense decoder of ours, of ``lit-moe fit`` or import.
        output: The .ckpt file to be written.
        n_experts: Number of routed experts, a multiple of granularity minus n_shared.
        top_k: Routed experts per token, a multiple of granularity minus n_shared.
        granularity: Number of pieces that the dense layer is cut into, a divisor of its width; 1 copies it whole.
        n_shared: Number of shared experts that see every token, below granularity; 0 for none.
        normalize_top_k: Whether a token's routed weights are divided by their sum; needs top_k of 2 or more.
        noise: Standard deviation of the normal noise on the routed experts' weights, relative to that of each weight
            matrix; 0 for none.
        router_std: Standard deviation of the router's normally distributed weights, above 0.
        seed: Seed of router and noise, 0 or more, null for 0; saved in the checkpoint with the other arguments.

    Raises:
        UserError: If the checkpoint is not dense, a number is out of its range, or the output exists.
        RunFailure: If the disk is full.
    """
    target = new_checkpoint_path(output)
    _check(n_experts, top_k, granularity, n_shared, noise, router_std, seed)
    seed = part_seed(seed)
    module, dense = load_module(ckpt_path, "meta")
    if not isinstance(module.decoder, Decoder):
        raise UserError(
            f"--ckpt_path is {ckpt_path}, which is a model of transformers; `lit-moe export` it, `lit-moe import` the "
            "folder, and upcycle what that wrote."
        )
    config = module.decoder.config
    if config.moe is not None:
        raise UserError(f"--ckpt_path is {ckpt_path}, which is a mixture of experts already; give a dense checkpoint.")
    if config.d_ff % granularity:
        raise UserError(f"granularity is {granularity} but must divide d_ff, {config.d_ff}; change it.")
    moe = MoEConfig(n_experts, top_k, config.d_ff // granularity, n_shared, normalize_top_k=normalize_top_k)
    with torch.device("meta"):
        decoder = Decoder(replace(config, feed_forward=moe))
    state = {name.removeprefix("decoder."): tensor for name, tensor in dense["state_dict"].items()}
    dtype = state["embedding.weight"].dtype
    weights = {f"decoder.{name}": tensor.to(dtype) for name, tensor in decoder.state_dict().items()}
    arguments = {
        "moe": asdict(moe),
        "granularity": granularity,
        "noise": noise,
        "router_std": router_std,
        "seed": seed,
        "dense_steps": dense["global_step"],
    }
    checkpoint = new_checkpoint(decoder.config, weights) | {"upcycled": arguments}
    checkpoint |= {key: dense[key] for key in ("tokenizer", "companions") if key in dense}
    checkpoint[record.KEY] = record.new_record(parent=record.ancestor(ckpt_path, dense), inputs=[])
    generator = torch.Generator().manual_seed(seed)
    with streamed_checkpoint(target, checkpoint) as targets:
        for name, tensor in state.items():
            if ".feed_forward." not in name:
                targets[f"decoder.{name}"].copy_(tensor)
        for index in range(config.n_layers):
            layer = f"layers.{index}.feed_forward."
            gate, up, down = (state[f"{layer}{part}.weight"].float() for part in ("gate", "up", "down"))
            for name, tensor in mixture_weights(gate, up, down, moe, noise, router_std, generator).items():
                targets[f"decoder.{layer}{name}"].copy_(tensor)
    counts = decoder.parameter_counts()
    say(f"Upcycled     {ckpt_path}: {counts.total / 1e6:.1f}M weights, {counts.active / 1e6:.1f}M active")
    if noise > 0 or not normalize_top_k:
        say("             which only come near the dense model: validate before training")
    say(f"Wrote        {target}")
    say(f"Train it     lit-moe fit --config CONFIG --branch_from {quoted(target)}")


def mixture_weights(
    gate_FD: Tensor,
    up_FD: Tensor,
    down_DF: Tensor,
    moe: MoEConfig,
    noise: float,
    router_std: float,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the weights of a mixture whose experts are copies of a dense layer or of its pieces.

    Args:
        gate_FD: Gate of the dense layer, of shape ``(d_ff, d_model)``, where d_ff is a multiple of the expert width.
        up_FD: Its up projection, of the same shape.
        down_DF: Its down projection, of shape ``(d_model, d_ff)``.
        moe: Shape of the mixture.
        noise: Standard deviation of the noise on routed experts, relative to that of each matrix.
        router_std: Standard deviation of the router's weights.
        generator: Source of randomness.

    Returns:
        Tensors by their name in `MoEFeedForward`.
    """
    width, d_model = moe.expert_width, gate_FD.shape[1]
    shared, routed = moe.n_shared * width, gate_FD.shape[0] // width - moe.n_shared
    groups = moe.n_experts // routed

    def experts(matrix_FD: Tensor) -> Tensor:
        matrix_EID = matrix_FD[shared:].unflatten(0, (routed, width)).repeat(groups, 1, 1)
        if noise > 0:
            matrix_EID += noise * matrix_FD.std() * torch.randn(matrix_EID.shape, generator=generator)
        return matrix_EID

    # Each piece's weight is 1 / routed on the whole with normalised weights, and top_k / n_experts of that without.
    scale = routed * (1.0 if moe.normalize_top_k else moe.n_experts / moe.top_k)
    router_GD = router_std * torch.randn(groups, d_model, generator=generator)
    weights = {
        "gate.weight": router_GD.repeat_interleave(routed, dim=0),
        "experts.gate_up": torch.cat((experts(gate_FD), experts(up_FD)), dim=1),
        "experts.down": scale * experts(down_DF.t()).transpose(1, 2),
    }
    if moe.n_shared:
        weights |= {"shared.gate.weight": gate_FD[:shared], "shared.up.weight": up_FD[:shared]}
        weights["shared.down.weight"] = down_DF[:, :shared]
    return weights
