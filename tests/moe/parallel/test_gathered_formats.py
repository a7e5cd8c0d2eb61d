"""Number formats in which FSDP2 gathers weights and sums gradients, on one of two devices, the other one pretended."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from lit_core.errors import UserError
from lit_moe.nn import Decoder, DecoderConfig, MoEConfig, PenaltyRouter
from lit_moe.parallel.sharding import shard, without_reduction


@pytest.fixture
def mesh():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    dist.destroy_process_group()


def formats(network, mesh, precision, ids):
    """Return the format of each weight while it is used, after a backward pass."""
    used = {}

    def look(name):
        def hook(module, *_):
            own = module.named_parameters(prefix=name, recurse=False)
            used.update({path: weight.dtype for path, weight in own if not isinstance(weight, DTensor)})

        return hook

    for name, module in network.named_modules():
        module.register_forward_hook(look(name))
    shard(network, mesh, precision)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        network.head(network.hidden(ids)).float().square().mean().backward()
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
    assert {weight.grad.dtype for weight in network.parameters() if weight.grad is not None} == {torch.float32}
    return used


def decoder(**options):
    mixture = MoEConfig(n_experts=4, top_k=2, expert_width=8, n_shared=1)
    shape = {"vocab_size": 64, "n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 16}
    return Decoder(DecoderConfig(**shape, feed_forward=mixture, **options), PenaltyRouter)


@pytest.mark.parametrize("options", [{}, {"norm": "layernorm", "qk_norm": "all", "activation_checkpointing": True}])
def test_weights_are_gathered_in_bfloat16_but_those_of_gates(mesh, options):
    used = formats(decoder(**options), mesh, "bf16-mixed", torch.arange(18).view(2, 9))
    in_float32 = {name for name, dtype in used.items() if dtype == torch.float32}
    assert in_float32 == {f"layers.{index}.feed_forward.gate.weight" for index in (0, 1)}
    assert {used[name] for name in used.keys() - in_float32} == {torch.bfloat16}


def test_float32_is_gathered_as_it_is(mesh):
    assert set(formats(decoder(), mesh, "32-true", torch.arange(18).view(2, 9)).values()) == {torch.float32}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_wait_for_the_last_micro_batch(mesh, precision):
    network = decoder()
    shard(network, mesh, precision)

    def backward():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            network(torch.arange(18).view(2, 9)).float().square().mean().backward()
        return sum(weight.grad is not None for weight in network.parameters())

    with without_reduction(network):
        assert backward() == 0 and backward() == 0
    assert backward() == len(list(network.parameters()))


@pytest.mark.slow
def test_every_family_of_transformers_keeps_what_it_computes_in_float32(mesh):
    pytest.importorskip("transformers")
    from lit_moe.doctor.families import mixture_families, small_config
    from lit_moe.doctor.specimen import Specimen

    keeping = 0
    for kind in mixture_families():
        specimen = Specimen(small_config(kind), seed=1)
        network = specimen.decoder().train()
        kept = network.exact_in(torch.bfloat16)
        try:
            used = formats(network, mesh, "bf16-mixed", specimen.tokens(2, 8))
        except UserError as error:
            assert "cannot be sharded" in str(error)
            continue
        wrong = [name for name in kept if used.get(name, torch.float32) != torch.float32]
        assert not wrong and torch.bfloat16 in used.values(), (kind, wrong)
        keeping += any(name in used for name in kept)
    assert keeping > 5
