"""The exchange of tokens between devices: what the host waits for, and what a recomputation repeats."""

import os

import pytest
import torch
import torch.distributed as dist
from ranks import on_ranks
from torch.distributed.device_mesh import init_device_mesh

from lit_moe.nn import Decoder, DecoderConfig, MoEConfig, PenaltyRouter
from lit_moe.parallel import shard

N_LAYERS = 2
READS = ("tolist", "item", "__int__", "__bool__", "nonzero")


def decoder(recomputed):
    torch.manual_seed(0)
    mixture = MoEConfig(n_experts=4, top_k=2, expert_width=8, backend="grouped_mm")
    shape = {"vocab_size": 50, "n_layers": N_LAYERS, "d_model": 16, "n_heads": 2, "d_ff": 16}
    return Decoder(DecoderConfig(**shape, feed_forward=mixture, activation_checkpointing=recomputed), PenaltyRouter)


def count_calls(owner, name, calls):
    original = getattr(owner, name)

    def counted(*args, **kwargs):
        calls[name] = calls.get(name, 0) + 1
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def train(path, recomputed):
    """Save the gradients of two texts whose forward passes both come first, and what was called for them."""
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", rank=rank, world_size=2)
    network = decoder(recomputed)
    shard(network, init_device_mesh("cpu", (1, 2), mesh_dim_names=("data_parallel", "tensor_parallel")))
    ids = torch.randint(50, (2, 2, 9), generator=torch.Generator().manual_seed(1))
    calls = {}
    count_calls(dist, "all_to_all_single", calls)
    for name in READS:
        count_calls(torch.Tensor, name, calls)
    losses = [network(row[None]).logsumexp(-1).mean() for row in ids[:, rank]]
    forward = dict(calls)
    sum(losses).backward()
    gradients = {name: weight.grad.full_tensor() for name, weight in network.named_parameters()}
    if rank == 0:
        torch.save({"gradients": gradients, "forward": forward, "both": calls}, path)


@pytest.mark.slow
def test_a_layer_reads_from_the_host_once_and_its_recomputation_never(tmp_path):
    found = {}
    for recomputed in (False, True):
        on_ranks(train, tmp_path / str(recomputed), recomputed)
        found[recomputed] = torch.load(tmp_path / str(recomputed), weights_only=True)
    layers = 2 * N_LAYERS  # of two texts
    for run in found.values():
        assert run["forward"] == {"tolist": layers, "all_to_all_single": 4 * layers}  # counts, tokens, weights, results
        assert {name: run["both"].get(name) for name in READS} == {name: run["forward"].get(name) for name in READS}
    exchanges = {recomputed: run["both"]["all_to_all_single"] for recomputed, run in found.items()}
    # The backward pass sends three gradients, the recomputation three times rows; what nothing needs is not repeated.
    assert exchanges[False] == 7 * layers and exchanges[True] <= 10 * layers
    torch.testing.assert_close(found[True]["gradients"], found[False]["gradients"], rtol=0, atol=0)
