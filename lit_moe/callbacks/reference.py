"""Loading of the reference with whose routing `RouterDrift` compares: a model, or a fingerprint of one."""

from __future__ import annotations

import copy

import torch
from lightning.pytorch import LightningModule

from lit_core.callbacks.branch import load_weights
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file, read_checkpoint_file
from lit_core.lightning.internals import INSTANTIATOR
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.fingerprint import Fingerprint, check_can_route, shape_text, sizes_of, vocab_size


def load_reference(path: str, module: LightningModule, tokenizer: Tokenizer | None) -> LightningModule:
    """Return the model of a checkpoint, frozen and in evaluation mode; nothing in the file is executed.

    Args:
        path: The checkpoint; without hyperparameters, its weights must fit a copy of `module`.
        module: The LightningModule that the reference is compared with.
        tokenizer: Tokenizer of the data; None to compare none.

    Raises:
        UserError: If the checkpoint cannot be read or its routing cannot be compared with the module's.
    """
    check_can_route(module)
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


def load_fingerprint(path: str, module: LightningModule, tokenizer: Tokenizer | None) -> Fingerprint:
    """Return a fingerprint with which the routing of a module can be compared.

    Args:
        path: The file.
        module: The LightningModule.
        tokenizer: Tokenizer of the data; None to compare none.

    Raises:
        UserError: If the file cannot be read, or is of other token ids or another shape.
    """
    check_can_route(module)
    found = Fingerprint.load(path, "reference")
    if tokenizer is not None and found.probe.tokenizer != tokenizer.sha256:
        raise UserError(
            f"reference is {path}, whose tokens are of the tokenizer {found.probe.tokenizer[:12]}, but the data were "
            f"prepared with {tokenizer.sha256[:12]}; give a fingerprint of a model with the same one."
        )
    sizes, ids = sizes_of(module), vocab_size(module)
    if found.sizes != sizes:
        raise UserError(
            f"reference is {path}, of {shape_text(found.sizes)}, but this model has {shape_text(sizes)}; give a "
            "fingerprint of a model of the same shape."
        )
    largest = int(found.probe.rows.max())
    if ids is not None and largest >= ids:
        raise UserError(
            f"reference is {path}, which has the token {largest}, but this model knows {ids} tokens; give a "
            "fingerprint of a model with the same tokenizer."
        )
    return found


def _shape(module: LightningModule) -> str:
    ids = "" if vocab_size(module) is None else f", with {vocab_size(module)} token ids"
    return f"{shape_text(sizes_of(module))}{ids}"
