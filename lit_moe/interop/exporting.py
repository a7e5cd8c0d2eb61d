"""The verb ``lit-moe export``: a checkpoint of ours becomes a model as Hugging Face's transformers saves it."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_core import record
from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.outputs import new_folder
from lit_core.files.paths import make_folder, sync_folder
from lit_core.files.temporary import temporary
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lightning.later_weights import lacks_weights
from lit_core.lm.tokenizer import Tokenizer
from lit_core.lm.transformers_loading import quiet_transformers
from lit_core.screen import say
from lit_moe.interop.families import Family, nearest_family
from lit_moe.interop.folder import COMPANIONS, INDEX, need_transformers
from lit_moe.interop.tensor_map import Piece, pieces_of
from lit_moe.lm import load_module
from lit_moe.module import MoELanguageModel
from lit_moe.nn import Decoder, DecoderConfig, HFDecoder, moe_layers
from lit_moe.nn.adapters import without_adapters

Tensors = dict[str, tuple[tuple[int, ...], torch.dtype, Callable[[], Tensor]]]
"""Shape, number format and content of each tensor by its name; the content is computed when it is written."""


def _check(shard_bytes: int) -> None:
    check_at_least(1, shard_bytes=shard_bytes)


@checked_first(_check)
def export_model(ckpt_path: str, output: str, shard_bytes: int = 5_000_000_000) -> None:
    """Turn a checkpoint into a folder that Hugging Face's transformers loads, with equal logits.

    The architecture is the one of Llama, Qwen2, Qwen3, Mixtral, OLMoE, Qwen2-MoE and Qwen3-MoE that can express the
    decoder. A mixture that only Qwen2-MoE can express, such as one with ungated shared experts, becomes a Qwen2-MoE
    whose shared gate has a constant value. Weights keep their number format and are written shard by shard, so that at
    most one shard is in memory; a model of transformers is in memory once.

    Args:
        ckpt_path: Checkpoint of ``lit-moe fit``, import or upcycle.
        output: The folder to be written.
        shard_bytes: Largest size of one safetensors file, 1 or more; a larger tensor has a file of its own.

    Raises:
        UserError: If none of the architectures can express the decoder or its router, or the output exists.
        OSError: If the disk is full.
    """
    target = new_folder(output)
    _check(shard_bytes)
    need_transformers("Exporting")
    checkpoint = load_checkpoint_file(ckpt_path)
    companions = _companions(checkpoint, ckpt_path)
    write = _write_ours if checkpoint.get("hyper_parameters", {}).get("hugging_face") is None else _write_theirs
    tokenizer = None if "tokenizer" not in checkpoint else Tokenizer.from_json(checkpoint["tokenizer"]["json"])
    made = [folder for folder in target.parents if not folder.exists()]
    make_folder(target.parent)
    try:
        with temporary(target, folder=True) as work:
            if tokenizer is not None:
                tokenizer.save(work / "tokenizer.json")
            name = write(work, ckpt_path, shard_bytes, None if tokenizer is None else tokenizer.end_of_text)
            for file, text in companions.items():
                (work / file).write_text(text, encoding="utf-8")
            own = record.new_record(parent=record.ancestor(ckpt_path, checkpoint), inputs=[])
            record.write(work / record.RECORD, own)
            work.chmod(0o755)
            for path in work.iterdir():
                path.chmod(0o644)
            sync_folder(work)
            os.replace(work, target)
    except Exception:
        for folder in made:
            folder.rmdir()
        raise
    files = len(list(target.glob("*.safetensors")))
    say(f"Exported     {ckpt_path}: {name}, {files} file{'s' if files > 1 else ''} of weights")
    say(f"Wrote        {target}")


def _companions(checkpoint: dict[str, Any], ckpt_path: str) -> dict[str, str]:
    """Return the texts of the small files that are copied along by file name, after checking the names."""
    companions = checkpoint.get("companions", {})
    for name, text in companions.items() if isinstance(companions, dict) else [(companions, "")]:
        if name not in COMPANIONS or not isinstance(text, str):
            raise UserError(
                f"--ckpt_path is {ckpt_path}, whose companions name {name!r}, but they can only be the texts of "
                f"{', '.join(COMPANIONS)}; it was not written by lit-moe, or was changed."
            )
    return dict(companions)


def _write_ours(folder: Path, ckpt_path: str, shard_bytes: int, end_of_text: int | None) -> str:
    """Write weights and config of a decoder of ours, and return the name of its architecture."""
    module, checkpoint = load_module(ckpt_path, "meta")
    state = checkpoint["state_dict"]
    moe = module.decoder.config.moe
    if moe is not None and moe.n_added:
        raise UserError(
            f"--ckpt_path is {ckpt_path}, whose added experts have weights of their own; join them with all others by "
            "`lit-moe grow --n_added 0`, and export what that wrote."
        )
    if module.adapter is not None:
        module = _merged(ckpt_path)
        state = module.state_dict()
    assert isinstance(module.decoder, Decoder)
    config = _with_routers(module.decoder, ckpt_path)
    family = _family(config, ckpt_path)
    state = {name.removeprefix("decoder."): tensor for name, tensor in state.items()}
    tensors = dict(_tensors(module.decoder, family, state))
    _write_weights(folder, tensors, shard_bytes)
    described = family.hugging_face_config(config, eos_token_id=end_of_text)
    described.dtype = str(next(iter(tensors.values()))[1]).removeprefix("torch.")
    described.save_pretrained(folder)
    return family.name


def _write_theirs(folder: Path, ckpt_path: str, shard_bytes: int, end_of_text: int | None) -> str:
    """Write weights and config of a model that is transformers' already, and return the name of its class."""
    module, checkpoint = load_module(ckpt_path, "meta")
    if module.adapter is not None:
        module = _merged(ckpt_path)
    decoder = module.decoder
    assert isinstance(decoder, HFDecoder)
    if module.adapter is None and lacks_weights(decoder):  # the file itself is the weights, and not copied
        module.load_state_dict(checkpoint["state_dict"], assign=True)
        decoder.model.tie_weights()
    with quiet_transformers():
        decoder.model.save_pretrained(folder, max_shard_size=shard_bytes)
    return type(decoder.model).__name__


def _merged(ckpt_path: str) -> MoELanguageModel:
    """Return a module with its adapters merged, each weight in the number format in which it was trained."""
    module, checkpoint = load_module(ckpt_path)
    module.merge_adapters()
    formats = {without_adapters(name): tensor.dtype for name, tensor in checkpoint["state_dict"].items()}
    for name, tensor in module.state_dict(keep_vars=True).items():
        tensor.data = tensor.data.to(formats[name])
    return module


def _family(config: DecoderConfig, ckpt_path: str) -> Family:
    family, lacks = nearest_family(config)
    if lacks:
        raise UserError(
            f"--ckpt_path is {ckpt_path}, but the decoder has {', '.join(lacks)}, and {family.name}, the nearest of "
            "Hugging Face's architectures, does not; use it through lit-moe."
        )
    return family


def _with_routers(decoder: Decoder, ckpt_path: str) -> DecoderConfig:
    """Return the shape of a decoder, with its routers' normalisation of weights."""
    config = decoder.config
    for layer in moe_layers(decoder).values():
        if not layer.router.is_softmax_top_k():
            raise UserError(
                f"--ckpt_path is {ckpt_path}, whose {type(layer.router).__name__} does not choose and weigh experts by "
                "a softmax alone, as Hugging Face's architectures do; use it through lit-moe."
            )
        assert config.moe is not None
        moe = replace(config.moe, normalize_top_k=layer.router.normalize_top_k)
        config = replace(config, feed_forward=moe)
    return config


def _tensors(decoder: Decoder, family: Family, state: dict[str, Tensor]) -> Iterator[tuple[str, Any]]:
    pieces = pieces_of(decoder, family)
    ungated = _has_ungated_shared(decoder.config)
    for name, parts in pieces.items():
        # What a neutral gate, sigmoid(0), halves must be doubled.
        factor = 2 if ungated and name.endswith("feed_forward.shared.down.weight") else 1
        for piece in parts:
            yield piece.name, (piece.shape, state[name].dtype, partial(_content, piece, state[name], factor))
    if family.mixture is not None and family.mixture.shared_width is not None:
        yield from _neutral_shared(decoder.config, family.mixture.block, next(iter(state.values())).dtype)


def _content(piece: Piece, ours: Tensor, factor: int) -> Tensor:
    return piece.take(ours) * factor  # a copy in any case: a file's tensors must not share memory


def _has_ungated_shared(config: DecoderConfig) -> bool:
    return config.moe is not None and config.moe.n_shared > 0 and not config.moe.shared_gate


def _neutral_shared(config: DecoderConfig, block: str, dtype: torch.dtype) -> Iterator[tuple[str, Any]]:
    """Yield what the family wants of a gated shared expert and the decoder does not have."""
    assert config.moe is not None
    shapes = {} if config.moe.shared_gate else {"shared_expert_gate": (1, config.d_model)}
    if config.moe.n_shared == 0:
        wide = {"gate_proj": (0, config.d_model), "up_proj": (0, config.d_model), "down_proj": (config.d_model, 0)}
        shapes |= {f"shared_expert.{name}": shape for name, shape in wide.items()}
    for index in range(config.n_layers):
        for name, shape in shapes.items():
            content = partial(torch.zeros, shape, dtype=dtype)
            yield f"model.layers.{index}.{block}.{name}.weight", (shape, dtype, content)


def _write_weights(folder: Path, tensors: Tensors, shard_bytes: int) -> None:
    """Write the tensors into one file, or several with an index."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    sizes = {name: torch.Size(shape).numel() * dtype.itemsize for name, (shape, dtype, _) in tensors.items()}
    shards: list[list[str]] = [[]]
    for name, size in sizes.items():
        if shards[-1] and sum(sizes[other] for other in shards[-1]) + size > shard_bytes:
            shards.append([])
        shards[-1].append(name)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        content = {name: tensors[name][2]().contiguous() for name in names}
        try:
            save_file(content, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:  # in which it wraps what the system says
            said = re.search(r"os error (\d{1,4})\)", str(error))
            number = int(said[1]) if said else errno.EIO
            raise OSError(number, os.strerror(number), str(folder / file)) from error
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
