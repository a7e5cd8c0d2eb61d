"""The verb ``lit-moe import``: a Hugging Face checkpoint becomes a Lightning checkpoint of ours."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from lit_core import record
from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.formats import stamp
from lit_core.files.outputs import output_file
from lit_core.lightning.checkpoint import streamed_checkpoint
from lit_core.lightning.internals import CLASS_PATH, INSTANTIATE_MODULE, INSTANTIATOR
from lit_core.lm.tokenizer import Tokenizer
from lit_core.screen import quoted, say
from lit_moe.interop.families import Family
from lit_moe.interop.folder import ModelFolder
from lit_moe.interop.tensor_map import fill, pieces_of
from lit_moe.nn import Decoder, DecoderConfig

#: What weighs experts as all supported families do: by the softmax over all of them.
ROUTER = "lit_moe.nn.PenaltyRouter"
#: Files of any tokenizer that transformers knows, fast or slow.
_TOKENIZER_FILES = ("*token*", "vocab*", "merges*", "*.model", "*.tiktoken", "*.spm")


def _check(layers: int | None) -> None:
    check_at_least(1, layers=layers)


@checked_first(_check)
def import_model(model: str, output: str, layers: int | None = None) -> None:
    """Turn a Hugging Face checkpoint into a checkpoint that fit, test and generate start from.

    The weights keep their number format on the disk; a model computes in float32 unless the trainer says otherwise.
    Mixtures get a PenaltyRouter, which routes as they were trained to. Weights are copied one by one, not held in
    memory together.

    Args:
        model: Folder or name of a Hugging Face model of a supported architecture, or smollm2 for the packaged
            SmolLM2-135M-Instruct.
        output: The .ckpt file to be written.
        layers: Number of layers to keep, the first ones; null keeps all. Fewer make a weaker, faster model.

    Raises:
        UserError: If the model's architecture or a setting of it is not supported, a file or a weight is missing, the
            tokenizer has more tokens than the model, or the output exists.
        RunFailure: If the disk is full.
    """
    path = new_checkpoint_path(output)
    _check(layers)
    folder = ModelFolder(model)
    try:
        config = folder.family.decoder_config(folder.config)
    except UserError as error:
        raise UserError(f"model is {model}: {error}") from error
    known = config.n_layers
    if layers is not None and layers > known:
        raise UserError(f"layers is {layers}, but {model} has {known}; keep from 1 to {known}, or null for all.")
    config.n_layers = layers or known
    dropped = [f"model.layers.{index}." for index in range(config.n_layers, known)]
    tokenizer = _tokenizer(folder, config)
    with torch.device("meta"):
        decoder = Decoder(config)
    pieces = pieces_of(decoder, folder.family)
    shapes = {piece.name: piece.shape for parts in pieces.values() for piece in parts}
    tied = ["lm_head.weight"] if config.tie_embeddings else []
    folder.check(shapes, ignored=[*dropped, *tied, *_without_width(folder.family, config)])
    weights = {
        f"decoder.{name}": torch.empty_like(tensor, dtype=folder.dtype(pieces[name][0].name), device="meta")
        for name, tensor in decoder.state_dict().items()
    }
    checkpoint = new_checkpoint(config, weights) | tokenizer | {"companions": folder.companions()}
    checkpoint[record.KEY] = record.new_record(parent=record.ancestor(folder.path))
    with streamed_checkpoint(path, checkpoint) as targets:
        for name, parts in pieces.items():
            target = targets[f"decoder.{name}"]
            fill(target, (0,) * target.dim(), parts, folder.read)
    counts = decoder.parameter_counts()
    cut = f", first {config.n_layers} of {known} layers" if dropped else ""
    say(f"Imported     {model}{cut}: {folder.family.name}, {counts.total / 1e6:.1f}M weights")
    say(f"Wrote        {path}")
    if tokenizer:
        say(f"Generate     lit-moe generate --ckpt_path {quoted(path)}")
    else:
        say("Tokenizer    none, so data of any tokenizer with as many tokens are accepted")
    say(f"Train it     lit-moe fit --config CONFIG --branch_from {quoted(path)}")


def new_checkpoint(config: DecoderConfig, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Return the content of a `MoELanguageModel` checkpoint before any training step.

    Args:
        config: Shape of the decoder.
        weights: The module's state dict.
    """
    return {
        **stamp("litshift-checkpoint"),
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": weights,
        "optimizer_states": [],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {
            CLASS_PATH: "lit_moe.MoELanguageModel",
            "decoder": asdict(config),
            "router": {"class_path": ROUTER},
            INSTANTIATOR: INSTANTIATE_MODULE,
        },
    }


def new_checkpoint_path(output: str) -> Path:
    """Return the path of a checkpoint file that does not exist yet and can be created.

    Raises:
        UserError: If it exists, has another suffix, or cannot be written.
    """
    path = output_file(output)
    if path.suffix != ".ckpt":
        raise UserError(f"output is {output}, but a checkpoint's name ends with .ckpt; give it such a name.")
    return path


def _without_width(family: Family, config: DecoderConfig) -> list[str]:
    """Return prefixes of the names of a shared expert of width 0, which adds nothing, and of its gate."""
    if config.moe is None or config.moe.n_shared or family.mixture is None or family.mixture.shared_width is None:
        return []
    return [f"model.layers.{index}.{family.mixture.block}.shared_expert" for index in range(config.n_layers)]


def _tokenizer(folder: ModelFolder, config: DecoderConfig) -> dict[str, Any]:
    """Return the tokenizer as an entry of the checkpoint; none if the model was trained and exported without one."""
    if not (folder.path / "tokenizer.json").is_file():
        if not any(any(folder.path.glob(name)) for name in _TOKENIZER_FILES):
            return {}
        raise UserError(
            f"model is {folder.model}, but there is no tokenizer.json in {folder.path}; save the model's fast "
            "tokenizer there."
        )
    tokenizer = Tokenizer.load(folder.path)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"model is {folder.model}, whose tokenizer has {tokenizer.vocab_size} tokens, but its config.json says "
            f"vocab_size {config.vocab_size}; put the model's own tokenizer into {folder.path}."
        )
    return {"tokenizer": {"json": tokenizer.to_json(), "sha256": tokenizer.sha256, "start": list(tokenizer.start)}}
