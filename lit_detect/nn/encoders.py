"""Sequence encoders of Hugging Face with their tokenizers, and small new ones for which nothing is fetched.

Shape suffixes: B batch, T tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

from lit_core.corpora import Austen
from lit_core.errors import UserError
from lit_core.lm.pretrained import minilm_folder
from lit_core.lm.tokenizer import END_OF_TEXT, Tokenizer
from lit_core.lm.transformers_loading import quiet_transformers

_SCRATCH = re.compile(r"scratch-([1-9]\d*)x([1-9]\d*)")
_SCRATCH_VOCABULARY, _SCRATCH_POSITIONS, _SCRATCH_HEAD = 4096, 512, 32
#: Fewest tokens that can be asked for: those that mark the ends, and some text.
_FEWEST_TOKENS = 8


class Tokens(NamedTuple):
    """Tokens of a batch of texts.

    Args:
        ids_BT: Token ids, padded on the right.
        mask_BT: True for real tokens.
        offsets_BT2: Start and end of each token in its text, in characters; both 0 for tokens that stand for none.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    offsets_BT2: Tensor


class EncoderTokenizer:
    """Turns texts into batches of tokens, with those that mark the ends; no text can smuggle such a token in.

    Args:
        backend: A tokenizer of the ``tokenizers`` library, as plain text.
        pad: Id that fills up; it is masked.
        max_tokens: Tokens to keep of a text, the first ones, with those that mark the ends.
    """

    def __init__(self, backend: str, pad: int, max_tokens: int) -> None:
        from tokenizers import Tokenizer as Backend

        self.pad, self.max_tokens = pad, max_tokens
        self._whole, self._cut = Backend.from_str(backend), Backend.from_str(backend)
        self._whole.no_truncation()
        self._cut.enable_truncation(max_tokens)
        for part in (self._whole, self._cut):
            part.no_padding()
            part.encode_special_tokens = True

    def __call__(self, texts: Sequence[str], device: torch.device) -> Tokens:
        """Return the tokens of texts, ids and mask on a device and offsets on the CPU."""
        found = self._cut.encode_batch(list(texts))
        lengths = [max(1, len(row.ids)) for row in found]  # an empty text is one padding that is read
        width = max(lengths, default=1)
        ids = [row.ids + [self.pad] * (width - len(row.ids)) for row in found]
        offsets = [row.offsets + [(0, 0)] * (width - len(row.ids)) for row in found]
        mask_BT = torch.arange(width) < torch.tensor(lengths, dtype=torch.int64)[:, None]
        ids_BT = torch.tensor(ids, dtype=torch.int64).reshape(len(found), width)
        offsets_BT2 = torch.tensor(offsets, dtype=torch.int64).reshape(len(found), width, 2)
        return Tokens(ids_BT.to(device), mask_BT.to(device), offsets_BT2)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, uncut and without those that mark the ends."""
        return [len(row.ids) for row in self._whole.encode_batch_fast(list(texts), add_special_tokens=False)]


class Encoder(NamedTuple):
    """An encoder as its users need it.

    Args:
        network: The model of transformers.
        tokenizer: Its tokenizer.
        name: Its true name, such as ``MiniLM``.
    """

    network: nn.Module
    tokenizer: EncoderTokenizer
    name: str


def load_encoder(model: str, max_tokens: int, seed: int, classifies: bool) -> Encoder:
    """Load an encoder, in the class that transformers has for it.

    Args:
        model: Name of a Hugging Face encoder or a local folder, of which only safetensors are read, so that nothing is
            unpickled; ``minilm`` for the packaged all-MiniLM-L6-v2; or ``scratch-4x128`` for a BERT of 4 layers of
            width 128 with new weights and a byte-level BPE of 4,096 tokens learned from the embedded Austen, for
            which nothing is fetched.
        max_tokens: Tokens to read of a text, the first ones, with those that mark the ends.
        seed: Seed of the weights that are new.
        classifies: Whether the model has two labels (``AutoModelForSequenceClassification``), or gives hidden states
            (``AutoModel``).

    Raises:
        UserError: If transformers is missing, there is no such model, or it takes fewer tokens.
    """
    if not RequirementCache("transformers>=5.6"):
        raise UserError(
            f'model is {model}, which needs `transformers>=5.6`; install it with `pip install "lit-shift[hf]"`.'
        )
    from transformers import AutoModel, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if classifies else AutoModel
    labels = {"num_labels": 2} if classifies else {}
    scratch = _SCRATCH.fullmatch(model)
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        if scratch is not None:
            network = kind.from_config(_scratch_config(model, int(scratch[1]), int(scratch[2])))
            backend, pad, limit, name = _scratch_backend(), 0, _SCRATCH_POSITIONS, model
        else:
            folder = str(minilm_folder()) if model == "minilm" else model
            name = "MiniLM" if model == "minilm" else Path(model).name if Path(model).is_dir() else model
            network, backend, pad, limit = _load(folder, name, kind, labels)
        network.train()  # transformers hands over loaded models in evaluation mode, new ones not
        output = network(input_ids=torch.tensor([[0, 0]]))
        freeze_unused(network, output.logits if classifies else output.last_hidden_state)
    if not _FEWEST_TOKENS <= max_tokens <= limit:
        raise UserError(
            f"max_tokens is {max_tokens}, but {name} takes from {_FEWEST_TOKENS} to {limit} with the tokens that mark "
            "the ends; set it so."
        )
    return Encoder(network, EncoderTokenizer(backend, pad, max_tokens), name)


def _load(folder: str, name: str, kind: Any, labels: dict[str, int]) -> tuple[nn.Module, str, int, int]:
    """Return the network, the tokenizer's definition, the padding id and the longest input in tokens."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        network = kind.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **labels)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"model is {name}, which cannot be loaded ({reason}); give the name of a Hugging Face encoder or a folder "
            "with safetensors and tokenizer.json, or the packaged minilm, or scratch-4x128, for which nothing is "
            "fetched."
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"model is {name}, whose tokenizer has no tokenizer.json; choose a model that has one.")
    pad = tokenizer.pad_token_id
    return network, tokenizer.backend_tokenizer.to_str(), 0 if pad is None else pad, _limit(network, tokenizer)


def _limit(network: Any, tokenizer: Any) -> int:
    """Return the longest input in tokens; RoBERTa and its kin leave the places up to that of the padding unused."""
    positions = getattr(network.config, "max_position_embeddings", None)
    places = getattr(getattr(network.base_model, "embeddings", None), "position_embeddings", None)
    unused = getattr(places, "padding_idx", None)
    limit = int(tokenizer.model_max_length)  # a huge number where none is given
    return limit if not positions or positions < 1 else min(limit, positions - (0 if unused is None else unused + 1))


def _scratch_config(model: str, layers: int, width: int) -> Any:
    from transformers import BertConfig

    if width % _SCRATCH_HEAD:
        raise UserError(f"model is {model}, but the width must be a multiple of {_SCRATCH_HEAD}, that of a head.")
    return BertConfig(
        vocab_size=_SCRATCH_VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // _SCRATCH_HEAD,
        intermediate_size=4 * width,
        max_position_embeddings=_SCRATCH_POSITIONS,
        pad_token_id=None,  # what pads is masked, and its token is a real one
        num_labels=2,
    )


@lru_cache(maxsize=1)
def _scratch_backend() -> str:
    """Return a byte-level BPE learned from the embedded prose, that puts the end-of-text token before and after."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import processors

    learned = Tokenizer.train_bpe((document.text for document in Austen().documents()), _SCRATCH_VOCABULARY)
    definition = json.loads(learned.to_json())
    del definition["end_of_text"]
    backend = Backend.from_str(json.dumps(definition))
    ends = [(END_OF_TEXT, learned.end_of_text)]
    backend.post_processor = processors.TemplateProcessing(f"{END_OF_TEXT} $A {END_OF_TEXT}", special_tokens=ends)
    return backend.to_str()


def renew_last_layers(network: Any, layers: int) -> None:
    """Give the last layers of an encoder, and its pooler, new weights (Zhang et al. 2021, arXiv 2006.05987).

    Weights of linear layers are drawn from a normal distribution with the deviation ``initializer_range`` of the
    model's config, biases become 0, and layer norms start anew. Draws from torch's global generator.

    Args:
        network: A model of transformers.
        layers: Number of layers, 1 or more.

    Raises:
        UserError: If the model has fewer layers.
    """
    known = network.config.num_hidden_layers
    if not 1 <= layers <= known:
        raise UserError(f"reinit_layers is {layers}, but the model has {known} layers; give from 0 to {known}.")
    base = network.base_model
    stack = next(part for part in base.modules() if isinstance(part, nn.ModuleList) and len(part) == known)
    renewed = [*stack[-layers:], *([base.pooler] if getattr(base, "pooler", None) is not None else [])]
    for module in (module for part in renewed for module in part.modules()):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=network.config.initializer_range)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()


def freeze_unused(network: nn.Module, output: Tensor) -> None:
    """Take out of training the parameters that an output does not depend on, as training on several devices asks.

    Args:
        network: The network.
        output: Something that it computed with gradients enabled.
    """
    used = {id(parameter) for parameter in _parameters_of(output)}
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in used)


def _parameters_of(output: Tensor) -> Iterator[Tensor]:
    """Walk the graph of a tensor to its leaves."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [following for following, _ in node.next_functions]
