"""Networks with weights divided over devices: FSDP2, and expert parallelism.

Another LightningModule calls `shard` in its ``configure_model`` and `clip_gradients` in its
``configure_gradient_clipping``, and trains with `lit_moe.ShardedStrategy`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from lit_core.errors import UserError
from lit_core.lightning.step_mean import scale_gradients
from lit_moe.nn.experts import GroupedExperts


def shard(network: Any, mesh: DeviceMesh) -> None:
    """Divide a network's weights over devices, in place, block by block (FSDP2).

    Along the mesh's second dimension, the experts of `GroupedExperts` are divided first: each device of such a group
    holds different whole experts, and tokens are sent to them. Every device has its own data. All gradients are summed,
    never averaged, so a loss that is a mean must be divided by the number of devices, as `lit_moe.ShardedStrategy`
    does.

    The network must already have the same weights on all devices; they are not sent.

    Args:
        network: An ``nn.Module`` with its blocks in ``layers``; its other weights are divided with its root. Its
            methods ``hidden`` and ``call`` may be called instead of its forward pass.
        mesh: Devices in two named dimensions: data parallel × expert parallel.

    Raises:
        UserError: If the experts can't be divided evenly, or there are none.
    """
    data, groups = (mesh[str(name)] for name in mesh.mesh_dim_names or ())
    stacks = [module for module in network.modules() if isinstance(module, GroupedExperts)]
    everyone = data
    if groups.size() > 1:
        _check_experts(stacks, groups.size())
        # a mesh of one dimension over all devices; the other one would hold each weight once per data-parallel group
        everyone = init_device_mesh(mesh.device_type, (mesh.size(),), mesh_dim_names=("world",))
        for experts in stacks:
            for name, weight in list(experts.named_parameters()):
                divided = nn.Parameter(distribute_tensor(weight.detach(), groups, [Shard(0)]))
                setattr(experts, name, divided)
            fully_shard(experts, mesh=data, shard_placement_fn=lambda weight: _placement(weight, data.size()))
    for block in network.layers:
        fully_shard(block, mesh=everyone, shard_placement_fn=lambda weight: _placement(weight, everyone.size()))
    fully_shard(network, mesh=everyone)
    for method in ("hidden", "call"):
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)
    for module in network.modules():
        if isinstance(module, FSDPModule):
            # a factor other than 1 would be applied twice where the data-parallel dimension has one device
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def is_sharded(network: nn.Module) -> bool:
    """Tell whether `shard` was applied to a network."""
    return isinstance(network, FSDPModule)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together, over all devices; all devices must call it.

    Args:
        parameters: Parameters, either all divided by `shard` or none; some may have no gradient.

    Returns:
        A scalar, the same on all devices.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    own = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    norm = nn.utils.get_total_norm(own)
    if not any(isinstance(gradient, DTensor) for gradient in gradients):
        return norm
    squares = norm.float().square()  # every part of a gradient is on one device, whatever the mesh
    dist.all_reduce(squares)
    return squares.sqrt()


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> None:
    """Scale all gradients, in place, so that their common norm is at most `max_norm`; all devices must call it.

    Args:
        parameters: Parameters; some may have no gradient.
        max_norm: Largest norm.
    """
    parameters = list(parameters)
    factor = (max_norm / (gradient_norm(parameters) + 1e-6)).clamp(max=1.0)  # as in torch.nn.utils.clip_grad_norm_
    scale_gradients(parameters, factor)


def _check_experts(stacks: list[GroupedExperts], devices: int) -> None:
    if not stacks:
        raise UserError(
            f"`expert_parallel` is {devices}, but the network has no mixture layers of lit_moe whose experts could be "
            "divided; set it to 1."
        )
    for experts in stacks:
        if experts.n_experts % devices:
            raise UserError(
                f"`expert_parallel` is {devices}, but a layer's {experts.n_experts} experts can't be divided evenly "
                f"among {devices} devices; set it to a divisor of {experts.n_experts}."
            )


def _placement(weight: Tensor, devices: int) -> Shard:
    """Divide stacked experts along their width where there are fewer of them than devices."""
    rows = weight.to_local() if isinstance(weight, DTensor) else weight
    return Shard(1) if weight.dim() == 3 and len(rows) < devices and weight.shape[1] % devices == 0 else Shard(0)
