"""The verb ``lit-moe grow``: a trained mixture gets more experts, and computes what it computed.

After Chen et al. 2023, Lifelong Language Pretraining with Distribution-Specialized Experts (arXiv 2305.12281), who add
experts for each new distribution. Shape suffixes: E experts, A added ones, D model width, I expert width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import Tensor

from lit_core import record
from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.lightning.checkpoint import streamed_checkpoint
from lit_core.screen import quoted, say
from lit_core.seeds import part_seed
from lit_moe.interop.importing import new_checkpoint, new_checkpoint_path
from lit_moe.lm import load_module
from lit_moe.nn import Decoder, DecoderConfig, MoEConfig, MoEFeedForward
from lit_moe.nn.added_experts import LOG_ZERO

Start = Literal["copies", "fresh"]
#: Tokens on which it is seen whether a router goes by the logits.
_TRIED = 64
#: Tensors of a layer with a row per expert, and their names among the added ones.
_STACKS = {"gate.weight": "gate.weight", "experts.gate_up": "gate_up", "experts.down": "down"}


def _check(n_added: int, noise: float, warmup: int, seed: int | None) -> None:
    check_at_least(0, n_added=n_added, noise=noise, warmup=warmup)
    part_seed(seed)


@checked_first(_check)
def grow(
    ckpt_path: str,
    output: str,
    n_added: int = 8,
    start: Start = "copies",
    noise: float = 0.02,
    warmup: int = 100,
    seed: int | None = None,
) -> None:
    """Add experts to each layer of a trained mixture; before training it computes the same function.

    The added experts take part by and by: their odds rise from 0 to those of all others in the first optimizer steps.
    They have weights of their own, named ``added``, so that the old ones can learn more slowly by ``lr_factors``.

    Args:
        ckpt_path: Checkpoint of a mixture-of-experts decoder of ours.
        output: The .ckpt file to be written.
        n_added: Number of experts that each layer gets; 0 only joins those of an earlier growth with all others, as
            another growth and an export need it.
        start: What the added experts start as: copies of the experts, which are taken in a drawn order, with their rows
            of the gate; or fresh ones, drawn like those of a new model.
        noise: Standard deviation of the normal noise on copies, relative to that of each weight matrix; 0 for none.
        warmup: Optimizer steps in which their odds rise; with 0 they take part at once, and the function changes.
        seed: Seed of all that is drawn, 0 or more, null for 0.

    Raises:
        UserError: If the checkpoint is not a mixture of ours, experts of an earlier growth do not take part fully yet,
            the router does not go by the logits, a number is out of its range, or the output exists.
        RunFailure: If the disk is full.
    """
    target = new_checkpoint_path(output)
    _check(n_added, noise, warmup, seed)
    module, trained = load_module(ckpt_path, "meta")
    config = _config(module.decoder, ckpt_path)
    moe = config.moe
    assert moe is not None
    layers = [name for name, part in module.named_modules() if isinstance(part, MoEFeedForward)]
    state = dict(trained["state_dict"])
    if moe.n_added:
        _join(state, layers, moe, ckpt_path)
    elif not n_added:
        raise UserError(f"n_added is 0, but {ckpt_path} has no experts of an earlier growth to join; give a number.")
    grown = replace(moe, n_experts=moe.n_experts + n_added, n_added=n_added, added_warmup=warmup if n_added else 0)
    config = replace(config, feed_forward=grown)
    with torch.device("meta"):
        decoder = Decoder(config)
    dtype = state["decoder.embedding.weight"].dtype
    weights = {f"decoder.{name}": _in(dtype, value) for name, value in decoder.state_dict().items()}
    weights = {name: value for name, value in weights.items() if ".router." not in name}
    for layer in layers:
        router = {name: value for name, value in state.items() if name.startswith(f"{layer}.router.")}
        _check_router(module.get_submodule(f"{layer}.router"), router, n_added, ckpt_path)
        weights |= {name: _widened(value, moe.n_experts, [0] * n_added).to("meta") for name, value in router.items()}
    checkpoint = new_checkpoint(config, weights)
    checkpoint["hyper_parameters"] = {**trained["hyper_parameters"], "decoder": asdict(config)}
    checkpoint["grown"] = {"n_added": n_added, "start": start, "noise": noise, "warmup": warmup, "seed": seed}
    checkpoint |= {key: trained[key] for key in ("tokenizer", "companions") if key in trained}
    checkpoint[record.KEY] = record.new_record(parent=record.ancestor(ckpt_path, trained), inputs=[])
    generator = torch.Generator().manual_seed(part_seed(seed))
    with streamed_checkpoint(target, checkpoint) as targets:
        for name, value in state.items():
            if ".router." not in name:
                targets[name].copy_(value)
        for layer in layers:
            parents = _parents(moe.n_experts, n_added, generator) if start == "copies" else None
            for name, value in state.items():
                if name.startswith(f"{layer}.router."):
                    targets[name].copy_(_widened(value, moe.n_experts, parents or [None] * n_added))
            if not n_added:
                continue
            targets[f"{layer}.added.steps"].zero_()
            for theirs, ours in _STACKS.items():
                whole = state[f"{layer}.{theirs}"].float()
                if parents is None:
                    added = _std(theirs, config) * torch.randn(n_added, *whole.shape[1:], generator=generator)
                else:
                    added = whole[parents]
                    added += noise * whole.std() * torch.randn(added.shape, generator=generator)
                targets[f"{layer}.added.{ours}"].copy_(added)
    counts = decoder.parameter_counts()
    say(f"Grown        {ckpt_path}: {moe.n_experts} + {n_added} experts, {counts.total / 1e6:.1f}M weights")
    say(f"Wrote        {target}")
    factors = " --model.init_args.lr_factors '{decoder: 0.1, added: 1.0}'" if n_added else ""
    say(f"Train it     lit-moe fit --config CONFIG --branch_from {quoted(target)}{factors}")


def _config(decoder: Any, ckpt_path: str) -> DecoderConfig:
    """Return the shape of a mixture of ours."""
    if not isinstance(decoder, Decoder):
        raise UserError(
            f"--ckpt_path is {ckpt_path}, which is a model of transformers; `lit-moe export` it, `lit-moe import` the "
            "folder, and grow what that wrote."
        )
    if decoder.config.moe is None:
        raise UserError(f"--ckpt_path is {ckpt_path}, which is dense; `lit-moe upcycle` makes it a mixture.")
    return decoder.config


def _join(state: dict[str, Tensor], layers: list[str], moe: MoEConfig, ckpt_path: str) -> None:
    """Put the experts of an earlier growth behind all others, in place."""
    for layer in layers:
        steps = int(state.pop(f"{layer}.added.steps"))
        if steps < moe.added_warmup:
            raise UserError(
                f"--ckpt_path is {ckpt_path}, whose added experts take part fully after {moe.added_warmup} optimizer "
                f"steps, but it has {steps}; train it further first."
            )
        for theirs, ours in _STACKS.items():
            old, added = state[f"{layer}.{theirs}"], state.pop(f"{layer}.added.{ours}")
            state[f"{layer}.{theirs}"] = torch.cat((old, added))


def _check_router(router: Any, state: Mapping[str, Tensor], n_added: int, ckpt_path: str) -> None:
    """Refuse a router that would choose other experts, or weigh them otherwise, because there are more of them."""
    wide = copy.deepcopy(router.to_empty(device="cpu").eval())
    logits = torch.randn(_TRIED, router.n_experts, generator=torch.Generator().manual_seed(0))
    own = {name.rpartition(".router.")[2]: value for name, value in state.items()}
    router.load_state_dict(own)
    wide.n_experts += n_added
    for name, value in own.items():
        path, _, leaf = name.rpartition(".")
        part = wide.get_submodule(path)
        widened = _widened(value, router.n_experts, [0] * n_added)
        setattr(part, leaf, torch.nn.Parameter(widened) if leaf in part._parameters else widened)
    wide.log_odds_E = torch.cat((torch.zeros(router.n_experts), torch.full((n_added,), LOG_ZERO)))
    with torch.no_grad():
        before = router(logits)
        after = wide(torch.nn.functional.pad(logits, (0, n_added)))
    if not (torch.equal(before.indices_Tk, after.indices_Tk) and torch.allclose(before.weights_Tk, after.weights_Tk)):
        raise UserError(
            f"--ckpt_path is {ckpt_path}, whose {type(router).__name__} does not choose experts by their logits, so "
            "that it would compute something else with more experts; take a mixture with another router."
        )


def _parents(n_experts: int, n_added: int, generator: torch.Generator) -> list[int]:
    """Return whose copy each added expert is: all experts in a drawn order, again and again."""
    rounds = math.ceil(n_added / n_experts)
    drawn = [torch.randperm(n_experts, generator=generator) for _ in range(rounds)]
    return torch.cat(drawn).tolist()[:n_added] if drawn else []


def _widened(value: Tensor, n_experts: int, parents: Sequence[int | None]) -> Tensor:
    """Return what a router keeps of each expert, with that of more experts: of their parents, or the mean."""
    if value.dim() == 0 or len(value) != n_experts or not parents:
        return value
    mean = value.float().mean(0).to(value.dtype)
    return torch.cat((value, torch.stack([mean if parent is None else value[parent] for parent in parents])))


def _std(stack: str, config: DecoderConfig) -> float:
    """Return the standard deviation that a new model has there; see `Decoder`."""
    into_residual = 2 / (config.n_layers * math.sqrt(config.d_model))
    return into_residual if stack == "experts.down" else math.sqrt(2 / (5 * config.d_model))


def _in(dtype: torch.dtype, value: Tensor) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value
