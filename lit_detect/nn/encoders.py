"""Loading of sequence encoders with their tokenizers from Hugging Face, and small encoders with random weights.

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
from lit_core.errors import UserError, check_at_least
from lit_core.files.json_files import parse_json
from lit_core.lm.pretrained import minilm_folder
from lit_core.lm.tokenizer import END_OF_TEXT, Tokenizer
from lit_core.lm.transformers_loading import loading, quiet_transformers

_SCRATCH = re.compile(r"scratch-([1-9]\d*)x([1-9]\d*)")
_SCRATCH_VOCABULARY, _SCRATCH_POSITIONS, _SCRATCH_HEAD = 4096, 512, 32
#: A tokenizer that knows no limit tells a number beyond this.
_UNLIMITED = 1 << 30
#: Smallest `max_tokens`: the special tokens at both ends, and some text.
_FEWEST_TOKENS = 8


class Tokens(NamedTuple):
    """The tokens of a batch of texts.

    Args:
        ids_BT: Token ids, padded on the right.
        mask_BT: True for real tokens.
        offsets_BT2: Start and end of each token in its text, in characters; both 0 for special tokens and padding.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    offsets_BT2: Tensor


class EncoderTokenizer:
    """Tokenizes texts into batches, with special tokens at both ends.

    Special tokens that are written in a text are read as plain characters.

    Args:
        backend: JSON definition of a tokenizer of the ``tokenizers`` library.
        pad: Token id of padding, which the mask excludes.
        max_tokens: Number of tokens to keep from the start of a text, special tokens included.
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
        """Return the tokens of texts, with ids and mask on ``device`` and offsets on the CPU."""
        rows = self._cut.encode_batch(list(texts))
        lengths = [max(1, len(row.ids)) for row in rows]  # a text without tokens is one padding token that is read
        width = max(lengths, default=1)
        ids = [row.ids + [self.pad] * (width - len(row.ids)) for row in rows]
        offsets = [row.offsets + [(0, 0)] * (width - len(row.ids)) for row in rows]
        mask_BT = torch.arange(width) < torch.tensor(lengths, dtype=torch.int64)[:, None]
        ids_BT = torch.tensor(ids, dtype=torch.int64).reshape(len(rows), width)
        offsets_BT2 = torch.tensor(offsets, dtype=torch.int64).reshape(len(rows), width, 2)
        return Tokens(ids_BT.to(device), mask_BT.to(device), offsets_BT2)

    @property
    def special_tokens(self) -> int:
        """Number of special tokens at the ends of a text."""
        return self._whole.num_special_tokens_to_add(False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text, without special tokens."""
        return [len(row.ids) for row in self._whole.encode_batch_fast(list(texts), add_special_tokens=False)]


class LoadedEncoder(NamedTuple):
    """An encoder with its tokenizer.

    Args:
        network: The model of transformers.
        tokenizer: Its tokenizer.
        name: Its name, such as ``MiniLM``.
        is_whole: Whether all weights were loaded, so that none is new.
    """

    network: nn.Module
    tokenizer: EncoderTokenizer
    name: str
    is_whole: bool


def load_encoder(model: str, max_tokens: int | None, seed: int, classifies: bool) -> LoadedEncoder:
    """Load an encoder by its auto class of transformers, in training mode.

    Args:
        model: Name of a Hugging Face encoder or a local folder, of which only safetensors are read, so that nothing is
            unpickled; ``minilm`` for the packaged all-MiniLM-L6-v2; or ``scratch-4x128`` for a BERT of 4 layers of
            width 128 with random weights and a byte-level BPE of 4,096 tokens trained on the embedded Austen, for
            which nothing is fetched.
        max_tokens: Number of tokens to read from the start of a text, special tokens included; None takes as many as
            the encoder does, or 512 where that is not known.
        seed: Seed of the newly initialised weights.
        classifies: Whether to load a classifier with two labels (``AutoModelForSequenceClassification``) instead of a
            model that returns hidden states (``AutoModel``).

    Raises:
        UserError: If transformers is missing, the model cannot be loaded, or ``max_tokens`` is out of its range.
    """
    check_at_least(_FEWEST_TOKENS, max_tokens=max_tokens)
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
            config = _scratch_config(model, int(scratch[1]), int(scratch[2]))
            network = kind.from_config(config, trust_remote_code=False)
            backend, pad, limit, name, is_whole = _scratch_backend(), 0, _SCRATCH_POSITIONS, model, False
        else:
            folder = str(minilm_folder()) if model == "minilm" else model
            name = "MiniLM" if model == "minilm" else Path(model).name if Path(model).is_dir() else model
            network, backend, pad, limit, is_whole = _load(folder, name, kind, labels)
        network.train()  # transformers returns loaded models in evaluation mode, and new ones in training mode
        output = network(input_ids=torch.tensor([[0, 0]]))
        freeze_unused(network, output.logits if classifies else output.last_hidden_state)
    if max_tokens is None:
        max_tokens = limit if limit < _UNLIMITED else _SCRATCH_POSITIONS
    if max_tokens > limit:
        raise UserError(
            f"max_tokens is {max_tokens}, but {name} takes at most {limit}, special tokens included. "
            "Set it to such a value."
        )
    return LoadedEncoder(network, EncoderTokenizer(backend, pad, max_tokens), name, is_whole)


def _load(folder: str, name: str, kind: Any, labels: dict[str, int]) -> tuple[nn.Module, str, int, int, bool]:
    """Return the network, the tokenizer's definition, the padding id, the longest input, and if no weight is new."""
    from transformers import AutoTokenizer

    remedy = (
        "give the name of a Hugging Face encoder or a folder with safetensors and tokenizer.json, or the packaged "
        "minilm, or scratch-4x128, for which nothing is fetched"
    )
    with loading(f"model is {name}", remedy, folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        network, weights = kind.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            **labels,
        )
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"model is {name}, whose tokenizer has no tokenizer.json; choose a model that has one.")
    pad = tokenizer.pad_token_id
    definition, pad = tokenizer.backend_tokenizer.to_str(), 0 if pad is None else pad
    return network, definition, pad, _limit(network, tokenizer), not weights["missing_keys"]


def _limit(network: Any, tokenizer: Any) -> int:
    """Return the longest input in tokens; models like RoBERTa do not use the positions up to that of the padding."""
    positions = getattr(network.config, "max_position_embeddings", None)
    embeddings = getattr(getattr(network.base_model, "embeddings", None), "position_embeddings", None)
    unused = getattr(embeddings, "padding_idx", None)
    limit = int(tokenizer.model_max_length)  # a huge number if the tokenizer has no limit
    return limit if not positions or positions < 1 else min(limit, positions - (0 if unused is None else unused + 1))


def _scratch_config(model: str, layers: int, width: int) -> Any:
    from transformers import BertConfig

    if width % _SCRATCH_HEAD:
        raise UserError(
            f"model is {model}, but its width must be a multiple of {_SCRATCH_HEAD}, the width of an attention head. "
            f"Choose such a width, for example scratch-{layers}x{max(1, width // _SCRATCH_HEAD) * _SCRATCH_HEAD}."
        )
    return BertConfig(
        vocab_size=_SCRATCH_VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // _SCRATCH_HEAD,
        intermediate_size=4 * width,
        max_position_embeddings=_SCRATCH_POSITIONS,
        pad_token_id=None,  # padding is masked, and its token id is that of an ordinary token
        num_labels=2,
    )


@lru_cache(maxsize=1)
def _scratch_backend() -> str:
    """Return the definition of a byte-level BPE trained on the embedded prose, with end-of-text at both ends."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import processors

    learned = Tokenizer.train_bpe((document.text for document in Austen().documents()), _SCRATCH_VOCABULARY)
    definition = parse_json(learned.to_json(), "The tokenizer")
    del definition["end_of_text"]
    backend = Backend.from_str(json.dumps(definition))
    ends = [(END_OF_TEXT, learned.end_of_text)]
    backend.post_processor = processors.TemplateProcessing(f"{END_OF_TEXT} $A {END_OF_TEXT}", special_tokens=ends)
    return backend.to_str()


def renew_last_layers(network: Any, layers: int) -> None:
    """Reinitialise the last layers of an encoder, and its pooler, in place (Zhang et al. 2021, arXiv 2006.05987).

    Weights of linear layers are drawn from a normal distribution with the standard deviation ``initializer_range`` of
    the model's config. Biases are set to 0, and layer norms to their initial values. The function draws from torch's
    global generator.

    Args:
        network: A model of transformers.
        layers: Number of layers, 1 or more.

    Raises:
        UserError: If the model has fewer layers.
    """
    known = network.config.num_hidden_layers
    if not 1 <= layers <= known:
        raise UserError(
            f"reinit_layers is {layers}, but the model has {known} layers. Give a number from 0 to {known}."
        )
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
    """Freeze the parameters that an output does not depend on, in place; training on several devices requires this.

    Args:
        network: The network.
        output: Output of the network, computed with gradients enabled.
    """
    used = {id(parameter) for parameter in _parameters_of(output)}
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in used)


def _parameters_of(output: Tensor) -> Iterator[Tensor]:
    """Yield the leaves of the autograd graph of a tensor."""
    waiting, seen = [output.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting += [following for following, _ in node.next_functions]
