"""Low-rank adapters by peft: small matrices that are trained in place of the weights of a network, LoRA."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lightning_utilities.core.imports import RequirementCache
from torch import nn

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.field_types import check_fields
from lit_core.lightning.parts import matching
from lit_core.screen import rank_zero_warn

#: Name of the network in the module around it that peft sees.
_AROUND = "network"


@dataclass
class AdapterConfig:
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685); all other weights are frozen.

    Args:
        targets: Weights that get an adapter: dotted parts of their names, such as q_proj, experts.gate_up_proj or
            mlp.gate, where a star stands for anything; stacked experts get one each.
        rank: Rank of each adapter, 1 or more.
        alpha: The product of both matrices is multiplied by alpha / rank, above 0.
    """

    targets: list[str] = field(default_factory=list)
    rank: int = 8
    alpha: float = 16.0

    def __post_init__(self) -> None:
        check_fields(self)
        check_at_least(1, rank=self.rank)
        check_above(0, alpha=self.alpha)
        if not self.targets:
            raise UserError("`adapter.targets` is empty; name the weights that get an adapter, such as q_proj.")


def add_adapters(network: nn.Module, config: AdapterConfig) -> None:
    """Add adapters to matrices and stacked experts of a network, and freeze all else; in place.

    An adapter changes nothing before it is trained. Linear layers are targets of peft as modules, other weights as
    parameters.

    Args:
        network: The network.
        config: Which weights, and how.

    Raises:
        UserError: If a target names nothing that can have an adapter, or peft is not installed.
    """
    if not RequirementCache("peft>=0.21.2"):
        raise UserError('`adapter` needs `peft>=0.21.2`; install it with `pip install "lit-shift[peft]"`.')
    from peft import LoraConfig, inject_adapter_in_model

    chosen: list[str] = []
    modules: list[str] = []
    parameters: list[str] = []
    for pattern in config.targets:
        fitting = [name for name in matching(network, pattern, "adapter.targets") if _can_have_one(network, name)]
        if not fitting:
            raise UserError(
                f"`adapter.targets` has {pattern}, but it names no matrix and no stacked experts that a loss trains; "
                "only these can have an adapter, so name others."
            )
        chosen += fitting
    _warn_of_rank(network, config.rank, list(dict.fromkeys(chosen)))
    for name in chosen:
        owner = name.rpartition(".")[0]
        is_linear = type(network.get_submodule(owner)) is nn.Linear
        (modules if is_linear else parameters).append(owner if is_linear else name)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # a factor, which need not be whole
        target_modules=sorted({f"{_AROUND}.{name}" for name in modules}),
        target_parameters=sorted({f"{_AROUND}.{name}" for name in parameters}),
    )
    # Inside another module, peft does not see whose network this is. Of some of transformers' networks it would take
    # the stacked experts in place of a dense layer or a shared expert that was named. Names are also compared as whole.
    inject_adapter_in_model(lora, nn.ModuleDict({_AROUND: network}))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_of_adapter(name))


def merge_adapters(network: nn.Module) -> None:
    """Add the adapters of a network to its weights and remove them, so that it is built as without; in place.

    Args:
        network: A network of `add_adapters`.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    while wrapped := [name for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)]:
        layer: Any = network.get_submodule(wrapped[0])  # which may hold others, that come next
        while isinstance(layer, BaseTunerLayer):  # one in another, where a module has several parameters with adapters
            layer.merge()
            layer = layer.base_layer  # type: ignore[attr-defined]
        parent, _, leaf = wrapped[0].rpartition(".")
        setattr(network.get_submodule(parent), leaf, layer)
    for parameter in network.parameters():
        parameter.requires_grad_(True)


def never_called(network: nn.Module, run: Callable[[], object]) -> list[str]:
    """Return the layers with adapters that a run does not call, whose adapters would learn nothing.

    A network calls no layer whose weight it reads instead. Experts in a list are called for some tokens only and are
    left out.

    Args:
        network: A network of `add_adapters`.
        run: Runs the network.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    kind: Any = BaseTunerLayer  # a mixin, which each of its layers combines with a module
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, kind)]
    called: set[nn.Module] = set()
    hooks = [layer.register_forward_pre_hook(lambda module, _: called.add(module)) for _, layer in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name, layer in layers if layer not in called and not re.search(r"\bexperts\.\d+\.", name)]


def without_adapters(name: str) -> str:
    """Return the name that a weight has in the network without adapters.

    Args:
        name: Name of a weight in a network of `add_adapters`, which is no part of an adapter.
    """
    return name.replace(".base_layer", "")


def is_of_adapter(name: str) -> bool:
    """Tell whether a name of a network of `add_adapters` is that of a part of an adapter."""
    return re.search(r"\.lora_[AB]\.default\.", name) is not None


def _warn_of_rank(network: nn.Module, rank: int, names: list[str]) -> None:
    smaller = {name: min(network.get_parameter(name).shape[-2:]) for name in names}
    over = [name for name in names if smaller[name] < rank]
    if over:
        rank_zero_warn(
            f"`adapter.rank` is {rank}, but {len(over)} of {len(names)} weights with an adapter have a smaller side, "
            f"such as {over[0]} with {smaller[over[0]]}; a rank above that costs memory and adds nothing."
        )


def _can_have_one(network: nn.Module, name: str) -> bool:
    path, _, leaf = name.rpartition(".")
    is_other = isinstance(network.get_submodule(path), (nn.Embedding, nn.modules.conv._ConvNd))
    weight = network.get_parameter(name)
    # What is frozen before gets no gradient, and its adapter would not get one either.
    return weight.dim() in (2, 3) and weight.requires_grad and "bias" not in leaf and not is_other
