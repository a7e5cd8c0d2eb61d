"""The config of a language model of transformers, read from its config.json alone."""

from __future__ import annotations

from typing import Any

from lit_core.errors import UserError
from lit_core.fetch.hub_access import asking_hub, hub_reason
from lit_core.files.json_files import parse_json
from lit_core.files.paths import resolve_data_path
from lit_core.lm.pretrained import smollm2_folder
from lit_core.lm.transformers_loading import check_class, check_type, quiet_transformers

_REMEDY = "give a Hugging Face name or a folder with config.json"


def config_of(name: str) -> dict[str, Any]:
    """Return the keys of a model's config, without how its weights are quantised; no other file is needed.

    Args:
        name: Name of a Hugging Face model, a folder, which may be below the data root, or smollm2.

    Raises:
        UserError: If there is no config, or it describes no language model that transformers knows.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

    folder = smollm2_folder() if name == "smollm2" else resolve_data_path(name)
    source, subject = str(folder) if folder.is_dir() else name, f"The language model is {name}"
    try:
        with asking_hub(), quiet_transformers():
            check_type(PretrainedConfig.get_config_dict(source)[0], subject, _REMEDY)
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
            check_class(AutoModelForCausalLM, config)
    except UserError:
        raise
    except Exception as error:  # each config of transformers has its own
        raise UserError(f"{subject}, whose config cannot be read ({hub_reason(error)}); {_REMEDY}.") from error
    values: dict[str, Any] = parse_json(config.to_json_string(use_diff=False), "The config", lenient=True)
    for part in (values, *(values.get(key) for key in config.sub_configs)):
        if isinstance(part, dict):
            part.pop("quantization_config", None)
    return values
