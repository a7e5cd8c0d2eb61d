"""Any causal language model of Hugging Face's transformers, with the interface of `Decoder`.

Shape suffixes: B batch, S sequence, D model width, V vocabulary.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

from lit_core.errors import UserError, did_you_mean, reason_of
from lit_core.files.json_files import parse_json
from lit_core.lightning.exact_buffers import ExactBuffers
from lit_core.lightning.later_weights import come_later, lacks_weights, parameters_on_meta, weights_come_later
from lit_core.lm.decoding import use_packed_attention
from lit_core.lm.divided_loading import read_parts, without_weights
from lit_core.lm.influence import few_tokens
from lit_core.lm.language_model import HuggingFaceLM, divides
from lit_core.lm.pretrained import smollm2, smollm2_folder
from lit_core.lm.tokenizer import Tokenizer
from lit_core.screen import rank_zero_warn
from lit_moe.nn.adapters import never_called, without_adapters
from lit_moe.nn.dispatch import keep_shares
from lit_moe.nn.gates import say_frozen_biases, watch_gates
from lit_moe.nn.hf_bias import exact_biases
from lit_moe.nn.hf_config import LOSSES, HFConfig
from lit_moe.nn.hf_documents import Documents
from lit_moe.nn.hf_flops import UnknownFlops, flops_per_token
from lit_moe.nn.hf_graph import check_graph
from lit_moe.nn.hf_precision import kept_in_float32
from lit_moe.nn.hf_shrink import shrink

#: A model with fewer numbers is itself small enough for trials.
_SMALL = 1 << 24


class HFDecoder(ExactBuffers):
    """A causal language model of transformers, dense or with mixtures of experts, with the interface of `Decoder`.

    The model keeps its own routing. `moe_layers` returns its gates, so that callbacks measure them. The auxiliary
    losses of transformers are never added; those of lit_moe can be switched on. Weights are in float32 unless the
    trainer's precision changes them. Their names are those of transformers with the prefix ``model.``. The frequencies
    of rotary positions, and the modules that the model lists as float32 only, stay in float32.

    Args:
        config: The model and its added losses.
        vocab_size: Number of token ids for random weights whose config has none; None takes the default of
            transformers.

    Attributes:
        model: The model of transformers.
        config: Its configuration; of a model with several, that of the text model.
        tokenizer: The tokenizer in the model's folder; None with random weights.

    Raises:
        UserError: If there is no such model, it has no gates for the losses, or transformers is not installed.
    """

    model: Any

    def __init__(self, config: HFConfig, vocab_size: int | None = None) -> None:
        super().__init__()
        if not RequirementCache("transformers>=5.6"):
            raise UserError(
                'A Hugging Face model needs `transformers>=5.6`; install it with `pip install "lit-shift[hf]"`.'
            )
        self.tokenizer: Tokenizer | None = None
        self._unread: str | None = None
        self._build(config, vocab_size)
        later = come_later() and lacks_weights(self.model)
        self._copy = [_small_copy(self.model)] if later else []  # in a list, so as to be no part
        if None in self._copy:
            with weights_come_later(False):
                self._build(config, vocab_size)
            self._copy = []
        self.config: Any = self.model.config.get_text_config()
        self._described, self._divides = config, _first_run(self.model, *self._copy)  # a trial that gates need not see
        balancing = {name: getattr(config, name) for name in (*LOSSES, "selection_bias")}
        balancing["bias_rate"] = 0.001 if config.bias_rate is None else config.bias_rate
        self.watched = watch_gates(self.model, config.gates, config.top_k, **balancing)
        asked = [name for name in LOSSES if balancing[name]]
        asked += ["selection_bias"] if config.selection_bias == "loss_free" else []
        if not self.watched and asked:
            said = " and ".join(f"`{name}` is {balancing[name]}" for name in asked)
            raise UserError(
                f"{said}, but no gate was found in {type(self.model).__name__}; name its gates in `gates`, or leave "
                f"{'them' if len(asked) > 1 else 'it'} out."
            )
        if config.activation_checkpointing:
            _recompute(self.model)
        self._documents = Documents(self.model, self.model.base_model if self._divides else self.model)
        self._kind = type(self.model)  # FSDP2 replaces the class of the model itself
        self._exact: dict[torch.dtype, list[str]] = {}
        self._flops: dict[int, float] = {}  # of a token, by the length of its sequence

    def _build(self, config: HFConfig, vocab_size: int | None) -> None:
        self._unread = None
        if config.model is not None:
            pretrained = self._pretrained(config.model)
            self.model, self.tokenizer = pretrained.module.train(), pretrained.tokenizer
        elif config.config is not None:
            size = {} if vocab_size is None else {"vocab_size": vocab_size}
            self.model = _random(size | config.config)

    def _pretrained(self, model: str) -> HuggingFaceLM:
        """Return a pretrained model; without its weights, if they come later and can be read in parts."""
        if come_later():
            source = str(smollm2_folder()) if model == "smollm2" else model
            if (empty := without_weights(source)) is not None:
                self._unread = source
                return empty
        return smollm2() if model == "smollm2" else HuggingFaceLM.from_pretrained(model)

    def read_weights(self, device: torch.device) -> None:
        """Read this device's part of the pretrained weights, if they were left out.

        Args:
            device: This process's device.

        Raises:
            UserError: If a file or a weight is missing, has another shape than the config describes, or is NaN.
        """
        if self._unread is not None:
            read_parts(self.model, self._unread, device)
            self._unread = None

    @property
    def layers(self) -> nn.ModuleList:
        """The blocks of the network, in order."""
        lists = [module for module in self.model.base_model.modules() if isinstance(module, nn.ModuleList)]
        blocks = [module for module in lists if len(module) == self.config.num_hidden_layers]
        if not blocks:
            raise UserError(
                f"{type(self.model).__name__} has no list of its {self.config.num_hidden_layers} layers, so it cannot "
                "be sharded; choose another strategy."
            )
        return blocks[0]

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Check that the tokenizer is the model's own, or, with random weights, has no more tokens than the model.

        Args:
            tokenizer: The tokenizer of the data.

        Raises:
            UserError: If the model does not fit it.
        """
        if self.tokenizer is not None and self.tokenizer.sha256 != tokenizer.sha256:
            raise UserError(
                f"The model's tokenizer is {self.tokenizer.sha256[:12]}, but `data.root` was prepared with "
                f"{tokenizer.sha256[:12]}; prepare the data with `tokenizer` set to the model."
            )
        if tokenizer.vocab_size > self.config.vocab_size:
            raise UserError(
                f"The model's config has a vocab_size of {self.config.vocab_size}, but the data's tokenizer has "
                f"{tokenizer.vocab_size} tokens; give at least as many."
            )

    def forward(
        self, input_ids_BS: Tensor, *, mask: Tensor | None = None, document_ids: Tensor | None = None
    ) -> Tensor:
        """Return next-token logits ``(batch, sequence, vocabulary)``; the arguments are those of :meth:`hidden`."""
        return self.head(self.hidden(input_ids_BS, mask=mask, document_ids=document_ids))

    def hidden(self, input_ids_BS: Tensor, *, mask: Tensor | None = None, document_ids: Tensor | None = None) -> Tensor:
        """Return the hidden states before the output layer; the logits if the model changes them after that layer.

        Args:
            input_ids_BS: Token ids of shape ``(batch, sequence)``.
            mask: True for real tokens, False for padding on either side, shape ``(batch, sequence)``; None for no
                padding. Padding is not attended to and enters no routing count and no loss.
            document_ids: Index of the document that each token belongs to, shape ``(batch, sequence)``; a token attends
                only to its own document. None for one document per row.

        Returns:
            Shape ``(batch, sequence, d_model)``, or ``(batch, sequence, vocabulary)``.
        """
        length, longest = input_ids_BS.shape[1], getattr(self.config, "max_position_embeddings", None)
        if longest is not None and length > longest:
            raise UserError(
                f"The sequence has {length} tokens but the model takes {longest}; "
                "lower `data.init_args.sequence_length`."
            )
        return self._documents.states(input_ids_BS, mask, document_ids)

    def separate_documents(self, length: int) -> None:
        """Find out how the model keeps documents apart; otherwise done when documents first come, if not divided.

        Args:
            length: Tokens of a row.
        """
        for small in self._copy:
            self._documents.tried_on(small, small.base_model if self._divides else small, length)
        if not self._copy:
            self._documents.way(documents=True, length=length)

    def call(self, **inputs: Any) -> Any:
        """Call the model of transformers itself; works also if this network's weights are divided over devices."""
        return self.model(**inputs)

    def head(self, hidden: Tensor) -> Tensor:
        """Return the logits ``(..., vocabulary)`` of the output of :meth:`hidden`."""
        return self.model.get_output_embeddings()(hidden) if self._divides else hidden

    def flops_per_token(self, sequence_length: int) -> float:
        """Return the floating-point operations of one token's forward pass, counted as `Decoder` counts them.

        A sliding window or a chunk counts as many tokens as it holds, and experts as many as a token uses; see
        `lit_moe.nn.hf_flops.flops_per_token`. What cannot be counted gives NaN, with a warning.

        Args:
            sequence_length: Tokens per sequence.
        """
        if sequence_length not in self._flops:
            try:
                self._flops[sequence_length] = flops_per_token(self.twin(), sequence_length)
            except UnknownFlops as reason:
                rank_zero_warn(f"The FLOPs of {type(self.model).__name__} are not known and logged as nan: {reason}.")
                self._flops[sequence_length] = math.nan
        return self._flops[sequence_length]

    def twin(self, device: str = "meta") -> Any:
        """Return a model of the same config on a device, in torch's default format."""
        config = copy.deepcopy(self.model.config)
        for part in (config, *(getattr(config, name) for name in config.sub_configs)):
            if part is not None:
                part.dtype = torch.get_default_dtype()
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return self._kind(config)

    @property
    def exact_buffers(self) -> list[str]:
        """Names of the buffers and parameters that transformers keeps in float32 when it loads a model in bfloat16."""
        return self.exact_in(torch.bfloat16)

    def exact_in(self, dtype: torch.dtype) -> list[str]:
        """Return the names of what transformers keeps in float32; see `lit_moe.nn.hf_precision.kept_in_float32`."""
        if dtype not in self._exact:
            names = kept_in_float32(self.model, self.twin, dtype)
            self._exact[dtype] = [f"model.{name}" for name in names]
        return self._exact[dtype]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> HFDecoder:  # moves and converts
        moved = [gate.router.bias for gate in self.watched.values() if gate.router.bias is not None]
        with exact_biases(moved):
            return super()._apply(fn, recurse)

    def say_frozen(self) -> None:
        """Say, at the start of a training, that selection biases stay as they are, if there are any and they do."""
        if self._described.selection_bias == "frozen":
            say_frozen_biases(self.model, self.watched)

    def check_adapters(self) -> None:
        """Check that the model uses the adapters that were added; nothing is computed on the meta device.

        Raises:
            UserError: If it does not run with them, or reads the weights of a layer without a call of that layer.
        """
        if self.model.get_input_embeddings().weight.is_meta:
            return

        def run() -> None:
            with few_tokens(self.model):
                pass

        try:
            idle = never_called(self.model, run)
        except Exception as error:  # whatever a model of transformers raises
            raise UserError(
                f"`adapter.targets` names weights of a {type(self.model).__name__} that cannot have an adapter "
                f"({reason_of(error)}); name others."
            ) from error
        if idle:
            raise UserError(
                f"`adapter.targets` names {without_adapters(idle[0])}, but a {type(self.model).__name__} reads its "
                "weight without a call of that layer, so an adapter would not be trained; name others."
            )

    @property
    def divides(self) -> bool:
        """Whether the logits are the output layer of the hidden states; see `lit_core.lm.language_model.divides`."""
        return self._divides

    @property
    def recomputes(self) -> bool:
        """Whether the activations of layers are recomputed in the backward pass."""
        return self._described.activation_checkpointing

    def check_sharded(self, precision: str) -> None:
        """Check that FSDP2 can divide the weights, of which it takes one number format per layer.

        Args:
            precision: That of the trainer.

        Raises:
            UserError: If some weights stay in float32 in this precision.
        """
        dtype = {"bf16-true": torch.bfloat16, "16-true": torch.float16}.get(precision)
        parameters = {name for name, _ in self.named_parameters()}
        kept = set() if dtype is None else parameters.intersection(self.exact_in(dtype))
        if kept:
            raise UserError(
                f"`trainer.precision` is {precision}, but {type(self.model).__name__} keeps {len(kept)} of its weights "
                f"in float32, such as {min(kept)}, and a sharded layer has weights of one format; set it to bf16-mixed."
            )

    def describe(self) -> dict[str, Any]:
        """Return the fields of an `HFConfig` that builds this network with random weights, without its files."""
        config = parse_json(self.model.config.to_json_string(use_diff=False), "The config", lenient=True)
        return asdict(replace(self._described, model=None, config=_with_floats(config)))


def _with_floats(value: Any) -> Any:
    """Return a value of a config in which infinite numbers, which transformers writes as objects, are numbers again."""
    if isinstance(value, dict):
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {key: _with_floats(inner) for key, inner in value.items()}
    return [_with_floats(inner) for inner in value] if isinstance(value, list) else value


def _first_run(model: Any, copy: Any = None) -> bool:
    """Check the graph of a model that has not run before, or of its copy; return what `divides` tells of it."""
    try:
        check_graph(model, copy)
        return divides(model if copy is None else copy)
    except UserError:
        raise
    except Exception as error:  # such as of a gate that chooses more experts than there are
        raise UserError(
            f"`hugging_face` describes a {type(model).__name__} that cannot run ({reason_of(error)}); correct "
            "its config."
        ) from error


def _small_copy(model: Any) -> Any:
    """Return a small model of the same kind with random weights, for trials of a model that has none.

    Returns:
        The copy in training mode; None with a warning if there is no small one that runs.
    """
    from transformers import AutoModelForCausalLM

    is_small = sum(parameter.numel() for parameter in model.parameters()) < _SMALL
    try:
        config = copy.deepcopy(model.config) if is_small else shrink(model.config)
        config._attn_implementation = model.config._attn_implementation
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            small = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        use_packed_attention(small)
        with few_tokens(small):
            return small
    except Exception as error:  # whatever a model of transformers raises
        rank_zero_warn(
            f"No small copy of {type(model).__name__} runs ({reason_of(error)}), so each process builds the whole "
            "model in its memory before it keeps its part."
        )
        return None


def _random(config: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config, kind = _with_floats(config), config.get("model_type")  # also those of checkpoints that hold such objects
    try:
        built = AutoConfig.for_model(**config)
        known = {*AutoConfig.for_model(kind).to_dict(), *built.attribute_map}
        with parameters_on_meta() if come_later() else nullcontext():
            model = AutoModelForCausalLM.from_config(built, dtype=torch.float32, trust_remote_code=False)
    except Exception as error:  # whatever the checks of each config raise
        reason = reason_of(error)
        raise UserError(
            f"`hugging_face.config` with model_type {kind} describes no language model of transformers ({reason}); "
            "correct it."
        ) from error
    for key in config.keys() - known:  # transformers takes any key; published configs have some of their own
        if near := did_you_mean(key, known - config.keys(), nearness=0.85):
            raise UserError(f"`hugging_face.config` has {key}, which {kind} does not know; correct or remove it.{near}")
    return model


def _recompute(model: Any) -> None:
    if not model.supports_gradient_checkpointing:
        raise UserError(
            f"`activation_checkpointing` is true, but transformers has none for {type(model).__name__}; "
            "set it to false."
        )
    # transformers changed the name
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": keep_shares})
