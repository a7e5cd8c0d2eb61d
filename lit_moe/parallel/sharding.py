"""Networks with weights divided over devices: FSDP2, and expert parallelism.

Another LightningModule calls `shard` in its ``configure_model`` and `clip_gradients` in its
``configure_gradient_clipping``, and trains with `lit_moe.ShardedStrategy`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from lit_core.errors import UserError
from lit_core.lightning.exact_buffers import ExactBuffers
from lit_core.lightning.step_mean import scale_gradients
from lit_moe.nn.added_experts import AddedExperts
from lit_moe.nn.experts import GroupedExperts
from lit_moe.nn.hf_experts import send_tokens, stacked_experts
from lit_moe.nn.router_linear import RouterLinear


def shard(network: Any, mesh: DeviceMesh, precision: str = "32-true") -> None:
    """Divide a network's weights over devices, in place, block by block (FSDP2).

    Along the mesh's second dimension, the experts of `GroupedExperts` and of transformers' mixtures are divided first:
    each device of such a group holds different whole experts, and tokens are sent to them. Every device has its own
    data. All gradients are summed, never averaged, so a loss that is a mean must be divided by the number of devices,
    as `lit_moe.ShardedStrategy` does.

    Under ``bf16-mixed`` each device keeps its part of the weights in float32 and sends it in bfloat16, the format of
    the computation, except for the weights of gates and those that the network keeps in float32. Gradients are summed
    over devices in float32 under every precision of 16 bits.

    The network must already have the same weights on all devices; they are not sent.

    Args:
        network: An ``nn.Module`` with its blocks in ``layers``; its other weights are divided with its root. Its
            methods ``hidden`` and ``call`` may be called instead of its forward pass.
        mesh: Devices in two named dimensions: data parallel × expert parallel.
        precision: Lightning's name of the number format, ``trainer.precision``.

    Raises:
        UserError: If the experts can't be divided evenly, or there are none.
    """
    data, groups = (mesh[str(name)] for name in mesh.mesh_dim_names or ())
    theirs = stacked_experts(network)
    stacks = [*(module for module in network.modules() if isinstance(module, GroupedExperts)), *theirs]
    everyone, policy = data, _policy(precision)
    if groups.size() > 1:
        _check_experts(stacks, groups.size())
        # a mesh of one dimension over all devices; the other one would hold each weight once per data-parallel group
        everyone = init_device_mesh(mesh.device_type, (mesh.size(),), mesh_dim_names=("world",))
        for experts in stacks:
            for name, weight in list(experts.named_parameters()):
                own = distribute_tensor(weight.detach(), groups, [Shard(0)], src_data_rank=None)  # nothing is sent
                setattr(experts, name, nn.Parameter(own, requires_grad=weight.requires_grad))
            if experts in theirs:
                send_tokens(experts, groups.get_group())
            fully_shard(
                experts,
                mesh=data,
                shard_placement_fn=lambda weight: _placement(weight, data.size()),
                mp_policy=policy,
            )
    if policy.param_dtype is not None:
        for module in in_float32(network):
            fully_shard(module, mesh=everyone)
    for block in network.layers:
        fully_shard(
            block,
            mesh=everyone,
            shard_placement_fn=lambda weight: _placement(weight, everyone.size()),
            mp_policy=policy,
        )
    fully_shard(network, mesh=everyone, mp_policy=policy)
    for method in ("hidden", "call"):
        if hasattr(network, method):
            register_fsdp_forward_method(network, method)
    for divided in _divided(network):
        # a factor other than 1 would be applied twice where the data-parallel dimension has one device
        divided.set_gradient_divide_factor(1.0)
        divided.set_force_sum_reduction_for_comms(True)


@contextmanager
def without_reduction(network: nn.Module) -> Iterator[None]:
    """Keep whole gradients on each device in backward passes inside this context, instead of summing them.

    The next backward pass outside of it sums all of them over the devices.

    Args:
        network: A module that holds networks divided by `shard`; another one is not changed.
    """
    modules = _divided(network)
    for module in modules:
        module.set_requires_gradient_sync(False, recurse=False)
    try:
        yield
    finally:
        for module in modules:
            module.set_requires_gradient_sync(True, recurse=False)


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


def _divided(network: nn.Module) -> list[FSDPModule]:
    return [module for module in network.modules() if isinstance(module, FSDPModule)]


def _policy(precision: str) -> MixedPrecisionPolicy:
    """Return the number formats of gathered weights and of sums of gradients; autocast chooses those of inputs."""
    if precision not in ("bf16-mixed", "bf16-true", "16-true"):
        return MixedPrecisionPolicy()
    gathered = torch.bfloat16 if precision == "bf16-mixed" else None
    return MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)


def in_float32(network: nn.Module) -> list[nn.Module]:
    """Return the modules with weights that stay in float32 under mixed precision, the inner ones first."""
    found: set[nn.Module] = {module for module in network.modules() if isinstance(module, RouterLinear)}
    for module in network.modules():
        if isinstance(module, ExactBuffers):
            exact = module.exact_in(torch.bfloat16)
            found |= {_user_of(module, name) for name, _ in module.named_parameters() if name in exact}
    return [module for module in reversed(list(network.modules())) if module in found]


def _user_of(network: nn.Module, parameter: str) -> nn.Module:
    """Return the innermost module whose forward pass reads a parameter; mixers read the weights of convolutions."""
    path = parameter.rpartition(".")[0]
    inner = network.get_submodule(path)
    return network.get_submodule(path.rpartition(".")[0]) if isinstance(inner, nn.Conv1d) else inner


def _check_experts(stacks: list[nn.Module], devices: int) -> None:
    if not stacks:
        raise UserError(
            f"`expert_parallel` is {devices}, but the network has no mixture layers of lit_moe, nor of a model for "
            "which transformers has a plan of expert parallelism, so no experts could be divided; set it to 1."
        )
    if any(isinstance(experts, AddedExperts) for experts in stacks):
        raise UserError(
            f"`expert_parallel` is {devices}, but experts that `lit-moe grow` added are not divided among devices; set "
            "it to 1, or join them with all others by `lit-moe grow --n_added 0`."
        )
    for experts in stacks:
        count = len(next(experts.parameters()))
        if count % devices:
            raise UserError(
                f"`expert_parallel` is {devices}, but a layer's {count} experts can't be divided evenly among "
                f"{devices} devices; set it to a divisor of {count}."
            )


def _placement(weight: Tensor, devices: int) -> Shard:
    """Divide stacked experts along their width where there are fewer of them than devices."""
    rows = weight.to_local() if isinstance(weight, DTensor) else weight
    return Shard(1) if weight.dim() == 3 and len(rows) < devices and weight.shape[1] % devices == 0 else Shard(0)
