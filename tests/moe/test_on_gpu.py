"""What GPUs compute beside the same computation in another way; on a CPU, the same tests show that they can run."""

import copy
from functools import partial

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lit_moe import MoELanguageModel, ShardedStrategy
from lit_moe.nn import Decoder, DecoderConfig, GroupedExperts, PenaltyRouter

DEVICES = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
#: Relative to the largest value: sums in bfloat16 are as exact as their largest terms.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
SHAPE = {"vocab_size": 257, "n_layers": 2, "d_model": 128, "n_heads": 2, "d_ff": 128, "max_seq_len": 64}

pytestmark = pytest.mark.parametrize("device", DEVICES)


def assert_near(found, expected, tolerance):
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.double() - theirs.double()).abs().max() <= tolerance * theirs.abs().max()


def decoder(device):
    torch.manual_seed(0)
    return Decoder(DecoderConfig(**SHAPE, feed_forward="granular"), PenaltyRouter).to(device)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("n_experts", "top_k"), [(8, 1), (31, 3)])
def test_grouped_products_equal_the_loop_over_experts(device, n_experts, top_k, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 64, generator=generator).to(device, dtype).requires_grad_()
    weights = torch.rand(512, top_k, generator=generator).to(device).requires_grad_()
    indices = torch.rand(512, n_experts, generator=generator).topk(top_k).indices.to(device)
    loop = GroupedExperts(n_experts, 64, 32, backend="loop").to(device, dtype)
    grouped = GroupedExperts(n_experts, 64, 32, backend="grouped_mm").to(device, dtype)
    grouped.load_state_dict(loop.state_dict())
    found = []
    for experts in (grouped, loop):
        out = experts(x, indices, weights)
        found.append([out, *torch.autograd.grad(out.square().sum(), [x, weights, *experts.parameters()])])
    assert_near(*found, TOLERANCE[dtype])


def test_flash_attention_equals_plain_attention(device):
    network, ids = decoder(device).bfloat16(), torch.randint(257, (2, 64)).to(device)
    found = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend):
            attended = network.layers[0].attention
            x = network.embedding(ids)
            rope = (torch.ones(64, 64, device=device), torch.zeros(64, 64, device=device))
            out = attended(x, rope, None, None)
            found.append([out, *torch.autograd.grad(out.float().square().sum(), attended.parameters())])
    assert_near(*found, TOLERANCE[torch.bfloat16])


def test_fused_adamw_takes_the_steps_of_the_plain_one(device):
    ids = torch.randint(257, (2, 33)).to(device)
    batch, trained = {"input_ids": ids[:, :-1], "labels": ids[:, 1:]}, {}
    for fused in (True, False):
        torch.manual_seed(0)
        optimizer = partial(torch.optim.AdamW, lr=1e-3, eps=1e-6, weight_decay=0.1, fused=fused)
        model = MoELanguageModel(DecoderConfig(**SHAPE, feed_forward="switch"), PenaltyRouter, optimizer).to(device)
        stepped = model.configure_optimizers()
        for _ in range(3):
            model.training_step(batch, 0).backward()
            stepped.step()
            stepped.zero_grad()
        trained[fused] = [weight.detach() for weight in model.parameters()]
    assert_near(trained[True], trained[False], 1e-3)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_divided_over_one_device_train_as_whole_ones(device, precision, make_trainer, byte_data):
    accelerator = {"cpu": "cpu", "cuda": "gpu"}[device]
    losses = {}
    for name, strategy in (("whole", "auto"), ("divided", ShardedStrategy())):
        torch.manual_seed(0)
        shape = {**SHAPE, "max_seq_len": 512}
        model = MoELanguageModel(DecoderConfig(**shape, feed_forward="switch"), PenaltyRouter, torch.optim.AdamW)
        trainer = make_trainer(name=name, max_steps=4, accelerator=accelerator, strategy=strategy, precision=precision)
        trainer.fit(model, datamodule=byte_data(replay=False))
        losses[name] = float(trainer.callback_metrics["train/loss"])
    assert losses["divided"] == pytest.approx(losses["whole"], rel=1e-5 if precision == "32-true" else 1e-2)


def test_recomputed_activations_give_the_same_gradients(device):
    plain = decoder(device)
    recomputed = copy.deepcopy(plain)
    recomputed.config = copy.copy(plain.config)
    object.__setattr__(recomputed.config, "activation_checkpointing", True)
    ids = torch.randint(257, (2, 64)).to(device)
    documents = (torch.arange(64, device=device) // 20).expand(2, 64)  # in blocks on a GPU
    gradients = []
    for network in (recomputed, plain):
        network(ids, document_ids=documents).logsumexp(-1).mean().backward()
        gradients.append([weight.grad for weight in network.parameters()])
    assert_near(*gradients, TOLERANCE[torch.float32])
