"""Models whose weights are stored in 8 or 4 bits, as published: dequantised while they are read, or refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.lm.model_files import open_weights, weight_files
from lit_core.screen import rank_zero_info

#: Methods of which transformers has an exact rule for each number, of which a file holds a few bits and a scale.
_EXACT = ("fp8", "mxfp4", "mxfp8")
#: Ends of the names of scales, which take the place of ``.weight``.
_SCALES = (".weight_scale_inv", ".scale", ".qscale_weight")
_REMEDY = "give a copy of the model in bfloat16 or float32, which most publishers have beside it"


def dequantize(config: Any, name: str, subject: str) -> None:
    """Let transformers turn the weights of a quantised model into numbers of the model's format while it reads them.

    Left to itself it does so, or keeps weights that cannot be trained, depending on the devices of the machine.

    Args:
        config: The model's config, which is changed in place.
        name: Name or folder of the model.
        subject: Start of the message: the argument and its value.

    Raises:
        UserError: If the method has no such rule, or transformers would apply it to other blocks than those that were
            quantised.
    """
    holder, quantization = _quantization(config)
    if quantization is None:
        return
    method = quantization.get("quant_method") or "an unknown method"
    if method not in _EXACT:
        raise UserError(
            f"{subject}, whose weights are quantised by {method}, which does not give back numbers to train; {_REMEDY}."
        )
    if size := quantization.get("weight_block_size"):
        _check_blocks(model_folder(name), tuple(size), subject)
    holder.quantization_config = {**quantization, "dequantize": True}
    rank_zero_info(f"The weights of {name} are quantised ({method}); they are dequantised as transformers does it.")


def _quantization(config: Any) -> tuple[Any, dict[str, Any] | None]:
    """Return what a config says of quantisation, and the config, or the text model's inside it, that says it."""
    for holder in (config, config.get_text_config()):
        found = getattr(holder, "quantization_config", None)
        if found is not None:
            return holder, found if isinstance(found, dict) else found.to_dict()
    return config, None


def is_quantized(config: Any) -> bool:
    """Tell whether a model's config says that its weights are quantised.

    Args:
        config: The model's config.
    """
    return _quantization(config)[1] is not None


def model_folder(name: str) -> Path:
    """Return the folder of a model, which is fetched by its name as loading it would do.

    Args:
        name: Name or folder of the model.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json"]))


def _check_blocks(folder: Path, block: tuple[int, ...], subject: str) -> None:
    """Refuse weights that no whole number of blocks fills: transformers 5.23 takes all blocks to be of equal size."""
    for file in sorted(set((weight_files(folder) or {}).values())):
        weights = open_weights(folder / file)
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
        for scales, grid in sorted(shapes.items()):
            name = f"{scales.removesuffix(_scale_end(scales))}.weight"
            for length, count, side in zip(shapes.get(name, ()), grid, block, strict=False):
                # of weights in 4 bits, two share a byte, and the blocks are others
                if count > 1 and count == math.ceil(length / side) and length % side:
                    raise UserError(
                        f"{subject}, whose {name} of shape {shapes[name]} is quantised in blocks of {block}, the last "
                        f"of which is smaller, where transformers takes all to be of one size; {_REMEDY}."
                    )


def _scale_end(name: str) -> str:
    return next((end for end in _SCALES if name.endswith(end)), name)
