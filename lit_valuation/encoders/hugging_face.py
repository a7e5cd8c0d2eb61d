"""Encoders of images or texts from Hugging Face models, and the packaged MiniLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_core.lightning.checksums import weights_sha256
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.pretrained import MINILM_SHA256, minilm_folder
from lit_core.lm.transformers_loading import loading
from lit_valuation.encoders.base import (
    Encoder,
    Inputs,
    images,
    prepare_images,
    texts,
)


class HuggingFaceEncoder(Encoder):
    """Encodes images or texts by a Hugging Face model.

    Features of an image are the model's pooled output if it has one (as vision transformers and CLIP do), otherwise the
    mean over positions. Features of a text are the mean over its tokens, or the projected text features of models such
    as CLIP.

    Args:
        model: Name of the model on the Hub, or a local folder. Weights are read as safetensors only.
        revision: Branch, tag or commit on the Hub; None takes the newest.
        max_length: Longest text in tokens, 1 or more; longer texts are truncated. None takes the tokenizer's own limit.
    """

    def __init__(self, model: str, revision: str | None = None, max_length: int | None = None) -> None:
        if not RequirementCache("transformers>=5.6"):
            raise UserError(
                f'{type(self).__name__} needs `transformers>=5.6`; install it with `pip install "lit-shift[hf]"`.'
            )
        check_at_least(1, max_length=max_length)
        from transformers import AutoModel

        self.model, self.revision, self.max_length = model, revision, max_length
        self.name = f"HuggingFaceEncoder[{Path(model).name if Path(model).is_dir() else model}]"
        with loading(f"model is {model}", "give a name on the Hub or a folder with config.json and safetensors", model):
            self.module = AutoModel.from_pretrained(
                model, revision=revision, use_safetensors=True, trust_remote_code=False
            )
        self.sha256 = weights_sha256(self.module)

    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Return the features of images or texts; see `Encoder.encode`."""
        with evaluating(self.module), torch.no_grad():
            if isinstance(x, Tensor):
                preprocessing = self._preprocessing()
                parts = images(x, self.name).split(batch_size)
                return torch.cat([self._encode_images(prepare_images(part, **preprocessing)) for part in parts])
            sentences = texts(x, self.name)
            tokenizer = self._tokenizer()
            order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))  # needs little padding
            features = []
            for start in range(0, len(order), batch_size):
                batch = [sentences[i] for i in order[start : start + batch_size]]
                limit = {"truncation": True, "max_length": self.max_length}
                features.append(self._encode_tokens(tokenizer(batch, padding=True, return_tensors="pt", **limit)))
            return torch.cat(features)[torch.tensor(order).argsort()]

    def _encode_images(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self.module.device)
        if hasattr(self.module, "get_image_features"):
            return _pooled(self.module.get_image_features(pixel_values=pixels))
        return _pooled(self.module(pixel_values=pixels))

    def _encode_tokens(self, tokens: Any) -> Tensor:
        tokens = tokens.to(self.module.device)
        if hasattr(self.module, "get_text_features"):
            return _pooled(self.module.get_text_features(**tokens))
        hidden = self.module(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None].to(hidden.dtype)
        return ((hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)).float().cpu()

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model, revision=self.revision, trust_remote_code=False)

    def _preprocessing(self) -> dict[str, Any]:
        """Return size, mean and standard deviation of the model's own preprocessing."""
        from transformers.image_processing_base import ImageProcessingMixin

        config, _ = ImageProcessingMixin.get_image_processor_dict(self.model, revision=self.revision)
        size = config.get("crop_size") or config["size"]
        if isinstance(size, dict):
            size = size.get("height") or size["shortest_edge"]
        return {"size": size, "mean": config["image_mean"], "std": config["image_std"]}


class MiniLM(HuggingFaceEncoder):
    """Encodes texts by all-MiniLM-L6-v2 (Reimers and Gurevych 2019, arXiv 1908.10084), fetched as a wheel of 84 MB."""

    def __init__(self) -> None:
        super().__init__(str(minilm_folder()), max_length=256)  # the length that the model was trained with
        self.name, self.sha256 = "MiniLM", MINILM_SHA256

    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Return the features of texts; see `Encoder.encode`."""
        return super().encode(texts(x, self.name), batch_size)


def _pooled(output: Any) -> Tensor:
    """Return one row of features per input from the output of a model."""
    if isinstance(output, Tensor):
        return output.float().cpu()
    pooled = getattr(output, "pooler_output", None)
    return (output.last_hidden_state.mean(dim=1) if pooled is None else pooled).flatten(1).float().cpu()
