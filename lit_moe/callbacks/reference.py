"""Loading of the reference model whose routing `RouterDrift` compares."""

from __future__ import annotations

import copy

import torch
from lightning.pytorch import LightningModule

from lit_core.callbacks.branch import load_weights
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file, read_checkpoint_file
from lit_core.lightning.internals import INSTANTIATOR
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.nn import moe_layers


def load_reference(path: str, module: LightningModule, tokenizer: Tokenizer | None) -> LightningModule:
    """Return the model of a checkpoint, frozen and in evaluation mode; nothing in the file is executed.

    Args:
        path: The checkpoint; without hyperparameters, its weights must fit a copy of `module`.
        module: The LightningModule that the reference is compared with.
        tokenizer: Tokenizer of the data; None to compare none.

    Raises:
        UserError: If the checkpoint cannot be read or its routing cannot be compared with the module's.
    """
    if not hasattr(module, "routing_step"):
        raise UserError(
            f"RouterDrift needs a method routing_step(batch), which {type(module).__name__} does not have; define it: "
            "run the mixture layers as an evaluation does, and return which tokens count or None for all."
        )
    checkpoint = read_checkpoint_file(path, "reference")
    if INSTANTIATOR in checkpoint.get("hyper_parameters", {}):  # then they are built, not just passed on
        load_checkpoint_file(path, "reference", known=[type(module)])
    theirs = checkpoint.get("tokenizer")
    if theirs and tokenizer is not None and theirs["sha256"] != tokenizer.sha256:
        raise UserError(
            f"reference is {path}, which was trained with the tokenizer {theirs['sha256'][:12]}, but the data were "
            f"prepared with {tokenizer.sha256[:12]}, so token ids can't be compared; give a checkpoint of the same one."
        )
    with torch.random.fork_rng(devices=[]):
        if checkpoint.get("hyper_parameters"):
            try:
                model = type(module).load_from_checkpoint(path, map_location="cpu", weights_only=True)
            except (KeyError, RuntimeError, TypeError) as error:  # Lightning and torch say it of each argument
                raise UserError(
                    f"reference is {path}, which is not a checkpoint of a {type(module).__name__}; give a checkpoint "
                    "of a run with the same model."
                ) from error
        else:
            model = copy.deepcopy(module)
            load_weights(model, checkpoint["state_dict"], path, "reference")
    shapes = _shape(model), _shape(module)
    if shapes[0] != shapes[1]:
        raise UserError(
            f"reference is {path}, a model of {shapes[0]}, but this one is of {shapes[1]}; give a checkpoint of the "
            "same shape."
        )
    return model.eval().requires_grad_(False)


def vocab_size(module: LightningModule) -> int | None:
    """Return the number of token ids of a module with ``config.vocab_size``; None for others."""
    return getattr(getattr(module, "config", None), "vocab_size", None)


def _shape(module: LightningModule) -> str:
    routers = [layer.router for layer in moe_layers(module).values()]
    sizes = list(dict.fromkeys(f"{router.n_experts} experts, {router.top_k} per token" for router in routers))
    ids = "" if vocab_size(module) is None else f", with {vocab_size(module)} token ids"
    return f"{len(routers)} mixture layers of {' and '.join(sizes)}{ids}"
