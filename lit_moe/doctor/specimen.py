"""A small random copy of a model: built again with the same weights as often as a check needs it."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lit_core.lm.transformers_loading import quiet_transformers
from lit_core.seeds import part_seed
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, HFConfig, HFDecoder

if TYPE_CHECKING:
    from transformers import PretrainedConfig

#: Ids below are special tokens; `tokens` draws none of them.
SPECIAL = 4
#: Standard deviations: of weights that transformers draws nearly 0, of what it sets to one number, and of the biases
#: of experts among these, which are added to probabilities.
_SPREAD, _NOISE, _BIAS = 0.125, 0.1, 0.03


class Specimen:
    """A small random model of transformers for checks, which routes each token by what it is.

    The weights are wide enough for attention, experts and gates to matter. What transformers sets to a constant, as it
    does norms, selection biases and zero-initialised outputs, differs a little from entry to entry.

    Args:
        config: A small config of transformers, such as `shrink` or `families.small_config` returns.
        seed: Seed of the weights and of the tokens, 0 or more; None takes that of the run.
    """

    def __init__(self, config: PretrainedConfig, seed: int | None = None) -> None:
        self.config = config
        self.seed = part_seed(seed)

    @property
    def name(self) -> str:
        """The model type."""
        return str(self.config.model_type)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self.config.get_text_config().vocab_size)

    def decoder(self, **fields: Any) -> HFDecoder:
        """Return the network; each call returns a new one with the same weights, in float32.

        Args:
            fields: Further fields of its `HFConfig`.
        """
        with quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            decoder = HFDecoder(self._described(fields), self.vocab_size)
        spread(decoder.model, self.seed)
        return decoder

    def module(self, fields: dict[str, Any] | None = None, **arguments: Any) -> MoELanguageModel:
        """Return the LightningModule with the same network as `decoder` returns.

        Args:
            fields: Further fields of the `HFConfig`.
            arguments: Further arguments of `MoELanguageModel`.
        """
        with quiet_transformers():
            module = MoELanguageModel(
                decoder=DecoderConfig(vocab_size=self.vocab_size),
                seed=self.seed,
                hugging_face=self._described(fields or {}),
                **arguments,
            )
        assert isinstance(module.decoder, HFDecoder)
        spread(module.decoder.model, self.seed)
        return module

    def tokens(self, batch: int, length: int, draw: int = 0) -> Tensor:
        """Return random ids without special tokens, shape ``(batch, length)``.

        Args:
            batch: Number of rows.
            length: Tokens per row.
            draw: Each number has other tokens.
        """
        generator = torch.Generator().manual_seed(1000 * self.seed + draw)
        return torch.randint(SPECIAL, self.vocab_size, (batch, length), generator=generator)

    def _described(self, fields: dict[str, Any]) -> HFConfig:
        return replace(HFConfig(config=copy.deepcopy(self.config.to_dict())), **fields)


@torch.no_grad()
def spread(model: nn.Module, seed: int) -> None:
    """Draw the weights of a model anew so that none of its parts is idle; in place.

    Matrices that were drawn nearly 0 get a spread of 1/8, which is 1/√width of a small model. Parameters, and saved
    buffers, of a single number are varied around it. Saved tables of whole numbers, such as experts by token, are
    drawn among the experts.

    Args:
        model: A model of transformers that was just built.
        seed: Seed of what is drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    saved = model.state_dict(keep_vars=True)
    experts = _experts(model)
    done: set[int] = set()
    for name, tensor in saved.items():
        if id(tensor) in done:  # tied
            continue
        done.add(id(tensor))
        if not tensor.is_floating_point():
            if tensor.dim() == 2 and not tensor.any():
                rows = [torch.randperm(experts, generator=generator)[: tensor.shape[1]] for _ in range(len(tensor))]
                tensor.copy_(torch.stack(rows))
        elif (tensor.numel() > 1 and tensor.std() == 0) or tensor.numel() == 1:
            noise = _BIAS if "bias" in name and tensor.shape[-1] == experts else _NOISE
            tensor.add_(noise * torch.randn(tensor.shape, generator=generator))
        elif isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and tensor.std() < _SPREAD:  # no table of decays
            tensor.mul_(_SPREAD / tensor.std())
            empty = ~tensor.any(dim=-1, keepdim=True)  # the embedding of padding, which a text may hold as well
            tensor.add_(empty * _SPREAD * torch.randn(tensor.shape, generator=generator))


def _experts(model: Any) -> int:
    config = model.config.get_text_config()
    keys = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
    return next((int(value) for key in keys if (value := getattr(config, key, None))), 1)
