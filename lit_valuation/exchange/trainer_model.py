"""The trainer's model in a query: what is needed to compute gradients at it, and nothing else of its checkpoint."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_core.errors import UserError, reason_of
from lit_core.files.formats import stamp
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lightning.internals import CLASS_PATH
from lit_core.references import resolved
from lit_core.screen import quoted
from lit_core.trust import KNOWN, OWN
from lit_valuation.encoders.stamp import public_name
from lit_valuation.exchange.folder import Received, blamed_on
from lit_valuation.exchange.manifest import Query
from lit_valuation.training.loading import Description, described, load_task

#: Its name in the folder of a query.
MODEL = "model.ckpt"
#: Arguments of a task that say what it computes; the others say how it is trained.
_NEEDED = ("network", "label_smoothing", "positions", CLASS_PATH)
#: What a checkpoint keeps of the data that a model is for.
_OF_DATA = ("classes", "input_shape", "target_mean", "target_scale")


def trainer_model(path: str | Path, model: Description | None = None) -> bytes:
    """Return a checkpoint with the network of another one: no optimizer, config, record or step, and no path.

    Args:
        path: Checkpoint of ``lit-valuation fit``.
        model: The class of the model, which owners do not have; None for such a checkpoint.

    Raises:
        UserError: If an owner could not build the model, or its description names a folder of this machine.
    """
    remedy = "send none (--gradients owner)"
    if model is not None:
        raise UserError(
            f"--gradients is trainer, but --model is {described(model)['class_path']}, which owners do not have; "
            f"{remedy}."
        )
    checkpoint = load_checkpoint_file(path)
    parameters: Mapping[str, Any] = resolved(checkpoint["hyper_parameters"])
    kept = {key: parameters[key] for key in _NEEDED if key in parameters}
    for class_path in _class_paths(kept):
        if not class_path.startswith((*KNOWN, *OWN)):
            raise UserError(
                f"--gradients is trainer, but the model of --ckpt_path {quoted(path)} is built from {class_path}, "
                f"which owners do not have; {remedy}."
            )
    for text in _texts(kept):
        if public_name(text) != text:
            raise UserError(
                f"--gradients is trainer, but the description of the model in --ckpt_path {quoted(path)} holds {text}, "
                f"which would tell owners of your folders; {remedy}."
            )
    at_home = tuple(f"{key}." for key in parameters if key not in _NEEDED)  # parts such as an augmentation
    weights: Mapping[str, Tensor] = checkpoint["state_dict"]
    content = {
        **stamp("litshift-checkpoint"),
        "global_step": 0,
        "hyper_parameters": kept,
        **{key: checkpoint[key] for key in _OF_DATA if key in checkpoint},
        "state_dict": {name: weight.clone() for name, weight in weights.items() if not name.startswith(at_home)},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def load_trainer_model(query: Received[Query]) -> LightningModule:
    """Return the model in a query, in evaluation mode; its file may name what checkpoints of others may, and no more.

    Raises:
        UserError: If it cannot be built, or does not fit what the query says of its samples.
    """
    contents, model = query.manifest.contents, query.manifest.model
    assert model is not None
    try:
        with blamed_on(query.folder):
            task = load_task(query.folder / model.file)
    except UserError as error:
        said = str(error).removeprefix("--ckpt_path is ")
        raise UserError(
            f"The query's model is refused: {reason_of(said, 500)}. Unless it says what to do, ask its sender for the "
            "query again."
        ) from error
    known, shape = tuple(task.classes), tuple(task.input_shape)  # type: ignore[arg-type]
    foreign = sorted(set(contents.classes) - set(known))
    fault = f"asks for samples of {foreign[0]}, which its model does not know" if foreign else None
    if shape != contents.shape:
        fault = f"holds inputs of the shape {contents.shape}, but its model takes {shape}"
    if fault is not None:
        raise UserError(f"{query.folder} {fault}; ask its sender for it again.")
    return task


def _class_paths(node: Any) -> list[str]:
    """Return the import paths that a description names, at any depth."""
    if isinstance(node, Mapping):
        own = [value for key, value in node.items() if key in ("class_path", CLASS_PATH) and isinstance(value, str)]
        return own + [path for value in node.values() for path in _class_paths(value)]
    return [path for value in node for path in _class_paths(value)] if isinstance(node, list | tuple) else []


def _texts(node: Any) -> list[str]:
    if isinstance(node, str):
        return [node]
    inner = node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
    return [text for value in inner for text in _texts(value)]
