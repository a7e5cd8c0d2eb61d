"""The small config of a user's model: from a name, a folder, a config.json or a model type of transformers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lit_core.errors import UserError, reason_of
from lit_core.files.json_files import read_json
from lit_core.files.paths import resolve_data_path, says_where
from lit_core.lm.model_files import check_model_folder, open_weights, weight_files
from lit_core.lm.transformers_loading import check_type, loading, quiet_transformers
from lit_core.record import note_input
from lit_moe.doctor.families import build, holds_mixture, numbers_of_experts, small_config
from lit_moe.nn.hf_shrink import shrink

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: The numbers of layers and of experts in the names of tensors.
_LAYER, _EXPERT = re.compile(r"\blayers\.(\d{1,6})\."), re.compile(r"(?:^|\.)experts\.(\d{1,6})\.")
_REMEDY = "give a Hugging Face name, a folder or a config.json"


def small_model(model: str) -> PretrainedConfig:
    """Return a small config of the kind of a model; of the model's files, only the config is used.

    Args:
        model: Name of a Hugging Face model, a folder of one, its config.json alone, or a model type of transformers.

    Raises:
        UserError: If there is no such model, transformers has no causal language model of its kind, its folder is
            incomplete, its config contradicts its weights, or it has no mixture of experts.
    """
    from transformers import CONFIG_MAPPING

    path = resolve_data_path(model)
    subject = f"model is {model}"
    if not path.exists() and model in CONFIG_MAPPING:
        small = _small_of_type(model, subject)
    else:
        small = _small_of_values(_values(model, path, subject), subject, path)
    try:
        with torch.device("meta"):
            mixture = holds_mixture(build(small))
    except Exception as error:  # whatever a model of transformers raises
        raise UserError(f"{subject}, of which no small copy can be built ({_reason(error)}); report it.") from error
    if not mixture:
        raise UserError(
            f"{subject}, a {small.model_type} without a mixture of experts, but doctor examines mixtures; give a model "
            "that has experts."
        )
    return small


def _small_of_type(model_type: str, subject: str) -> PretrainedConfig:
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    if CONFIG_MAPPING[model_type] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{subject}, a type of transformers that has no causal language model; {_REMEDY}.")
    try:
        return small_config(model_type)
    except Exception as error:  # whatever a config of transformers raises
        raise UserError(f"{subject}, of which no small copy can be made ({_reason(error)}); {_REMEDY}.") from error


def _values(model: str, path: Path, subject: str) -> dict[str, Any]:
    """Return what the config of a model holds, without running code that lies beside it."""
    from transformers import PretrainedConfig

    if not path.exists() and (says_where(model) or path.suffix == ".json"):
        raise UserError(f"{subject}, but there is no such file or folder; {_REMEDY}.")
    if path.is_file():
        note_input(path)
        return dict(read_json(path, dict, "give the config.json of a model", lenient=True))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{subject}, a folder without config.json; fetch the model again, or give another.")
        check_model_folder(path)
        note_input(path / "config.json")
        return dict(read_json(path / "config.json", dict, "fetch the model again", lenient=True))
    with loading(subject, _REMEDY, model):
        values, _ = PretrainedConfig.get_config_dict(model)
        return dict(values)


def _small_of_values(values: Mapping[str, Any], subject: str, path: Path) -> PretrainedConfig:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    kind = values.get("model_type")
    check_type(values, subject, _REMEDY)
    try:
        with quiet_transformers():
            config = AutoConfig.for_model(**{key: value for key, value in values.items() if key != "auto_map"})
            causal = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
            if causal is not None and causal.config_class is not type(config):
                config = config.get_text_config()
            small = None if causal is None else shrink(config)
    except Exception as error:  # whatever the checks of each config raise
        raise UserError(f"{subject}, whose config describes no model ({_reason(error)}); correct it.") from error
    if small is None:
        raise UserError(f"{subject}, a {kind}, of which transformers has no causal language model; {_REMEDY}.")
    _check_chosen(config, subject)
    if path.is_dir():
        _check_weights(config, path, subject, shapes="quantization_config" not in values)
    return small


def _check_chosen(config: PretrainedConfig, subject: str) -> None:
    """Refuse a config whose tokens go to more experts than there are, which its small copy would not show."""
    experts, chosen = numbers_of_experts(config)
    if experts and chosen and min(chosen) > (most := max(experts) + getattr(config, "zero_expert_num", 0)):
        raise UserError(
            f"{subject}, whose config sends a token to {min(chosen)} experts, but has {most}; correct its config."
        )


def _check_weights(config: PretrainedConfig, folder: Path, subject: str, shapes: bool) -> None:
    """Compare the layers, the experts and the shapes that a config describes with those of the weights beside it.

    Args:
        config: The config.
        folder: The folder of the model.
        subject: Start of an error message.
        shapes: Whether shapes are compared, of tensors that have the same names; those of packed numbers differ.
    """
    files = weight_files(folder)
    if files is None:
        return
    with torch.device("meta"):
        state = build(config).state_dict()
    opened = {file: open_weights(folder / file) for file in sorted(set(files.values()))}
    names = [name for weights in opened.values() for name in weights.keys()]
    remedy = "give the config that belongs to the weights"
    if (layers := _count(_LAYER, names)) and layers < (described := _count(_LAYER, state)):
        raise UserError(
            f"{subject}, whose config describes {described} layers, but its weights hold {layers}; {remedy}."
        )
    experts, _ = numbers_of_experts(config)
    if (held := _count(_EXPERT, names)) and len(experts) == 1 and {held} != experts:
        raise UserError(f"{subject}, whose config has {max(experts)} experts, but its weights hold {held}; {remedy}.")
    for file, weights in opened.items() if shapes else ():
        for name in weights.keys():
            shape = tuple(weights.get_slice(name).get_shape())
            if name in state and tuple(state[name].shape) != shape:
                raise UserError(
                    f"{subject}, whose config describes {name} as {tuple(state[name].shape)}, but {file} holds "
                    f"{shape}; {remedy}."
                )


def _count(pattern: re.Pattern[str], names: Iterable[str]) -> int:
    """Return the number of modules that names count from 0 where a pattern matches; 0 if none does."""
    return max((int(match[1]) + 1 for name in names if (match := pattern.search(name))), default=0)


def _reason(error: Exception) -> str:
    text = re.sub(r"^Class validation error for validator '\w+': ", "", " ".join(str(error).split()))
    return reason_of(text or type(error).__name__)
