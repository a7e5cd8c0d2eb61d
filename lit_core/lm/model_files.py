"""Folders of models as transformers saves them, checked before anything of the size that they claim is built."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

from lit_core.errors import UserError
from lit_core.files.json_files import read_json
from lit_core.files.listing import listed, refuse_links_out

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_REMEDY = "fetch or save the model again"
#: Keys of a config that count layers, each of which has at least one tensor.
_LAYERS = re.compile(r"(num|n)_(hidden_|encoder_|decoder_)?layers?|(encoder|decoder)_layers|depth")
#: Keys of a config that are the length of a side of some tensor.
_SIDES = re.compile(r"(\w+_)?(size|dim|width|inner|embd|channels|experts|heads|labels)|d_(model|ff|kv)")
#: Sides that say nothing of the tensors, such as those of a chunk, are small.
_SMALL = 1 << 16


class _Index(TypedDict):
    weight_map: dict[str, str]


def weight_files(folder: Path) -> dict[str, str] | None:
    """Return the names of the files with a model's weights: by tensor where there is an index, else the single one.

    Args:
        folder: The folder of the model.

    Returns:
        File name by name of tensor; of a single file, its own name by itself. None if there are no weights.

    Raises:
        UserError: If the index is damaged or missing beside parts, or names a file that is not in the folder.
    """
    if not (folder / INDEX).is_file():
        parts = [path.name for path in listed(folder, "*-of-*.safetensors")]
        if parts and not (folder / SINGLE).is_file():
            raise UserError(f"{folder} has {parts[0]}, a part of its weights, without {INDEX}; fetch the model again.")
        return {SINGLE: SINGLE} if (folder / SINGLE).is_file() else None
    refuse_links_out(folder, [folder / INDEX])
    files: dict[str, str] = read_json(folder / INDEX, _Index, _REMEDY, lenient=True)["weight_map"]
    for file in sorted(set(files.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise UserError(f"{folder / INDEX} names {file!r}, but must name .safetensors files beside it; {_REMEDY}.")
        if not os.path.isfile(folder / file):  # also a name that no file can have
            raise UserError(f"{folder / INDEX} names {file}, but there is no such file in {folder}; fetch or copy it.")
    refuse_links_out(folder, [folder / file for file in sorted(set(files.values()))])
    return files


def open_weights(path: Path) -> Any:
    """Open a file of weights; its header is compared with the size of the file, and nothing else is read.

    Raises:
        UserError: If it is not a complete safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    refuse_links_out(path.parent, [path])
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file or is torn ({error}); fetch it again.") from error


def check_model_folder(folder: Path) -> None:
    """Compare the numbers of a model's config with its weights, so that nothing is built which these cannot fill.

    Args:
        folder: The folder of the model, with config.json; without weights, nothing is compared.

    Raises:
        UserError: If a file is damaged or a link out of the folder, or the config asks for more than the weights hold.
    """
    refuse_links_out(folder, sorted(folder.iterdir()))
    config = folder / "config.json"
    files = weight_files(folder)
    if files is None or not config.is_file():
        return
    content = read_json(config, dict, _REMEDY, lenient=True)
    tensors = elements = 0
    for file in sorted(set(files.values())):
        weights = open_weights(folder / file)
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]
        tensors, elements = tensors + len(shapes), elements + sum(map(math.prod, shapes))
    for key, value in _numbers(content):
        most = tensors if _LAYERS.fullmatch(key) else max(elements, _SMALL) if _SIDES.fullmatch(key) else value
        if value > most:
            raise UserError(
                f"{config} has the {key} {value}, but the weights beside it are {tensors} tensors of {elements} "
                f"numbers in all; {_REMEDY}."
            )


def check_complete(folder: Path, subject: str, remedy: str) -> None:
    """Refuse a folder that lacks the config of a model, or weights that can be read without executing code.

    Args:
        folder: The folder.
        subject: Start of the message: the argument and its value.
        remedy: End of the message: what to give instead.

    Raises:
        UserError: If one of them is missing.
    """
    adapter = (folder / "adapter_config.json").is_file()
    if not (folder / "config.json").is_file():
        what = "with adapters of peft alone; merge them into their model, or" if adapter else "without config.json;"
        raise UserError(f"{subject}, a folder {what} {remedy if adapter else f'fetch the model again, or {remedy}'}.")
    if weight_files(folder) is None:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".gguf"))
        if others:
            raise UserError(
                f"{subject}, a folder whose weights are in {others[0]}, but only safetensors are read; save the model "
                "by save_pretrained of transformers."
            )
        raise UserError(f"{subject}, a folder with a config.json but no {SINGLE}; fetch the model again.")


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield each whole number of a config with its key, also of the configs inside it."""
    for key, value in config.items():
        if type(value) is int:
            yield key, value
        elif isinstance(value, dict):
            yield from _numbers(value)
