"""The model of a checkpoint, to compare the routing of another with."""

from __future__ import annotations

import copy

import torch
from lightning.pytorch import LightningModule

from lit_core.callbacks.branch import load_weights
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.nn import moe_layers


def load_reference(path: str, module: LightningModule, tokenizer: Tokenizer | None) -> LightningModule:
    """Rebuild the model of a checkpoint, frozen and in evaluation mode; nothing in the file is executed.

    Args:
        path: The checkpoint; one that does not describe its model must fit the module as it is.
        module: What it is to be compared with.
        tokenizer: Tokenizer of the data; None where there is none to compare.

    Raises:
        UserError: If it cannot be read or its routing cannot be compared with the module's.
    """
    if not hasattr(module, "routing_step"):
        raise UserError(
            f"RouterDrift runs the reference by a method routing_step(batch), which {type(module).__name__} has not; "
            "define it: run the mixture layers as an evaluation does, and return which tokens count or None for all."
        )
    checkpoint = load_checkpoint_file(path, "reference")
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
                    f"reference is {path}, which is no checkpoint of a {type(module).__name__}; give one of a run with "
                    "the same model."
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
