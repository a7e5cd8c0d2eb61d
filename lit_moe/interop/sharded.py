"""Loading of a Hugging Face checkpoint into a decoder that is already divided over devices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lit_core.errors import UserError
from lit_moe.interop.folder import ModelFolder
from lit_moe.interop.tensor_map import fill, pieces_of
from lit_moe.nn import Decoder


def load_sharded(decoder: Decoder, model: str) -> None:
    """Fill a decoder from a Hugging Face checkpoint, in place; each rank reads only its own part of every tensor.

    Works on sharded (DTensor) and on plain parameters. There is no communication.

    Args:
        decoder: The decoder, of the model's shape, not on the meta device.
        model: Folder or name of the model.

    Raises:
        UserError: If the model cannot be imported, or has another shape than the decoder.
    """
    folder = ModelFolder(model)
    theirs = folder.family.decoder_config(folder.config)
    with torch.device("meta"):
        expected = Decoder(theirs)
    mine, wanted = (
        {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()} for net in (decoder, expected)
    )
    for name in [*wanted, *mine]:
        if mine.get(name) != wanted.get(name):
            raise UserError(
                f"model is {model}, whose {name} has the shape {wanted.get(name)}, but the decoder's has "
                f"{mine.get(name)}; give the decoder the model's shape."
            )
    pieces = pieces_of(expected, folder.family)
    shapes = {piece.name: piece.shape for parts in pieces.values() for piece in parts}
    folder.check(shapes, ignored=["lm_head.weight"] if theirs.tie_embeddings else [])
    for name, tensor in decoder.state_dict().items():
        for part, offset in _local_parts(tensor):
            fill(part, offset, pieces[name], folder.read)


def _local_parts(tensor: Tensor) -> list[tuple[Tensor, tuple[int, ...]]]:
    """Return the parts of a tensor that this rank holds, each with its offset in the whole."""
    if not isinstance(tensor, DTensor):
        return [(tensor, (0,) * tensor.dim())]
    local, parts = tensor.to_local(), tensor.__create_chunk_list__()  # as torch's distributed checkpoints ask
    return [(local, tuple(part.offsets)) for part in parts if local.numel()]
