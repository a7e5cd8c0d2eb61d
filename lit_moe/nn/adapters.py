"""Low-rank adapters by peft: small matrices that are trained in place of the weights of a network, LoRA."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning_utilities.core.imports import RequirementCache
from torch import nn

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.field_types import check_fields
from lit_core.lightning.parts import matching


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

    modules: list[str] = []
    parameters: list[str] = []
    for pattern in config.targets:
        fitting = [name for name in matching(network, pattern, "adapter.targets") if _can_have_one(network, name)]
        if not fitting:
            raise UserError(
                f"`adapter.targets` has {pattern}, but it names no matrix and no stacked experts, which alone can have "
                "an adapter; name others."
            )
        for name in fitting:
            owner = name.rpartition(".")[0]
            is_linear = type(network.get_submodule(owner)) is nn.Linear
            (modules if is_linear else parameters).append(owner if is_linear else name)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # a factor, which need not be whole
        target_modules=sorted(set(modules)),
        target_parameters=sorted(set(parameters)),
    )
    inject_adapter_in_model(lora, network)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merge_adapters(network: nn.Module) -> None:
    """Add the adapters of a network to its weights and remove them, so that it is built as without; in place.

    Args:
        network: A network of `add_adapters`.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrapped = [name for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)]
    outermost = [name for name in wrapped if not any(name.startswith(f"{other}.") for other in wrapped)]
    for name in outermost:
        layer: Any = network.get_submodule(name)
        while isinstance(layer, BaseTunerLayer):  # one in another, where a module has several parameters with adapters
            layer.merge()
            layer = layer.base_layer  # type: ignore[attr-defined]
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, layer)
    if hasattr(network, "peft_config"):
        del network.peft_config
    for parameter in network.parameters():
        parameter.requires_grad_(True)


def _can_have_one(network: nn.Module, name: str) -> bool:
    path, _, leaf = name.rpartition(".")
    is_other = isinstance(network.get_submodule(path), (nn.Embedding, nn.modules.conv._ConvNd))
    return network.get_parameter(name).dim() in (2, 3) and "bias" not in leaf and not is_other
