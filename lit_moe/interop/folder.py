"""A Hugging Face checkpoint on disk: its config, its tokenizer's files, and weights that are read slice by slice."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from lit_core.errors import UserError, reason_of
from lit_core.fetch.hub_access import asking_hub, hub_reason
from lit_core.files.json_files import read_json
from lit_core.files.paths import resolve_data_path
from lit_core.files.text_files import read_text
from lit_core.lm.model_files import INDEX, SINGLE, check_model_folder, open_weights, weight_files
from lit_moe.interop.families import Family, family_of

#: Small files that are copied unchanged; our decoder does not read them.
COMPANIONS = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
#: Names of tensors that are not weights: old checkpoints hold the frequencies of the rotary positions.
_NO_WEIGHTS = ("rotary_emb.inv_freq",)


class ModelFolder:
    """A model as transformers saves it, in one safetensors file or several; nothing is unpickled.

    Args:
        model: Name of a Hugging Face model, a folder (absolute, from the working directory, or below the data root),
            or smollm2 for the packaged SmolLM2-135M-Instruct.

    Attributes:
        path: The folder.
        family: Its architecture.
        config: Its config, of transformers' class.

    Raises:
        UserError: If there is no such model, its architecture is not supported, or a file is missing or truncated.
    """

    def __init__(self, model: str) -> None:
        need_transformers("A Hugging Face checkpoint")
        self.model = model
        self.path = _locate(model)
        check_model_folder(self.path)
        described = self._json("config.json")
        self.family: Family = family_of(described.get("model_type"), model)
        self.config = self._parse(described)
        self._files: dict[str, Any] = {}

    def _parse(self, described: dict[str, Any]) -> Any:
        import transformers

        try:
            return getattr(transformers, f"{self.family.name}Config").from_dict(described)
        except Exception as error:  # transformers checks keys by classes of its own
            reason = reason_of(error)
            raise UserError(f"{self.path / 'config.json'} cannot be understood ({reason}); correct it.") from error

    @cached_property
    def weight_map(self) -> dict[str, str]:
        """File of each tensor by its name."""
        files = weight_files(self.path)
        if files is None:
            raise UserError(
                f"model is {self.model}, but there is neither {INDEX} nor {SINGLE} in {self.path}; save the model as "
                "safetensors, since nothing is unpickled."
            )
        return files if (self.path / INDEX).is_file() else dict.fromkeys(self._open(SINGLE).keys(), SINGLE)

    def read(self, name: str, region: tuple[slice, ...]) -> Tensor:
        """Read a part of a tensor without reading the rest.

        Args:
            name: Name of the tensor.
            region: A slice per dimension.
        """
        return self._open(self.weight_map[name]).get_slice(name)[region]

    def dtype(self, name: str) -> Any:
        """Return the number format of a tensor."""
        return self.read(name, tuple(slice(0, 0) for _ in self.shape(name))).dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        file = self.weight_map[name]
        if name not in self._open(file).keys():
            raise UserError(f"{self.path / INDEX} says that {file} holds {name}, but it does not; fetch it again.")
        return tuple(self._open(file).get_slice(name).get_shape())

    def check(self, shapes: dict[str, tuple[int, ...]], ignored: Collection[str]) -> None:
        """Check that the model has the expected weights and no others.

        Args:
            shapes: Shape of each expected tensor by its name.
            ignored: Prefixes of further names that are allowed.

        Raises:
            UserError: If one is missing, has another shape, or is not expected.
        """
        for name, shape in shapes.items():
            if name not in self.weight_map:
                raise UserError(f"model is {self.model}, but {name} is missing from its weights; fetch it again.")
            if self.shape(name) != shape:
                raise UserError(
                    f"model is {self.model}, whose {name} has the shape {self.shape(name)} where its config.json asks "
                    f"for {shape}; correct config.json."
                )
        for name in self.weight_map:
            if name not in shapes and not name.startswith(tuple(ignored)) and not name.endswith(_NO_WEIGHTS):
                raise UserError(
                    f"model is {self.model}, whose weights hold {name}, which no {self.family.name} of its config.json "
                    "has; correct config.json."
                )

    def companions(self) -> dict[str, str]:
        """Return the texts of the small files in `COMPANIONS` by file name, as far as there are such files."""
        files = {name: self.path / name for name in COMPANIONS if (self.path / name).is_file()}
        return {name: read_text(path) for name, path in files.items()}

    def _open(self, file: str) -> Any:
        if file not in self._files:
            self._files[file] = open_weights(self.path / file)
        return self._files[file]

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.is_file():
            raise UserError(f"model is {self.model}, but there is no {name} in {self.path}; give a model's folder.")
        content: dict[str, Any] = read_json(path, remedy="fetch it again", lenient=True)
        return content


def need_transformers(what: str) -> None:
    """Raise a `UserError` if transformers is not installed.

    Args:
        what: Subject of the message, such as "Exporting".
    """
    if not RequirementCache("transformers>=5.6"):
        raise UserError(f'{what} needs `transformers>=5.6`; install it with `pip install "lit-shift[hf]"`.')


def _locate(model: str) -> Path:
    if model == "smollm2":
        from lit_core.lm.pretrained import smollm2_folder

        return smollm2_folder()
    path = resolve_data_path(model)
    if path.is_dir():
        return path
    from huggingface_hub import snapshot_download

    try:
        with asking_hub():
            return Path(snapshot_download(model, allow_patterns=["*.safetensors", "*.json", "*.jinja"]))
    except (OSError, ValueError) as error:
        raise UserError(
            f"model is {model}, but there is no such folder, and the hub does not give it ({hub_reason(error)}); "
            "correct the path or the name."
        ) from error
