"""Experts of transformers' mixtures divided over two processes train as one process does, and resume anywhere."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fit_run import assert_close_weights
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import on_ranks
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

pytest.importorskip("transformers", minversion="5.23")

from lit_core.errors import UserError
from lit_core.lightning.checkpoint import AtomicCheckpointIO, load_checkpoint_file
from lit_core.lightning.sharded_checkpoint import consolidate
from lit_moe import MoELanguageModel, RouterBalance, ShardedStrategy
from lit_moe.nn import DecoderConfig, HFConfig
from lit_moe.nn.hf_decoder import HFDecoder
from lit_moe.parallel.sharding import shard

SHAPE = dict(
    vocab_size=257, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=4, max_position_embeddings=64, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    num_experts_per_tok=2, initializer_range=0.2,
)  # fmt: skip
EXPERTS = dict(num_experts=4, moe_intermediate_size=8)
LATENT = dict(
    q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4, n_routed_experts=4,
    moe_intermediate_size=8, n_shared_experts=1, first_k_dense_replace=1, n_group=1, topk_group=1,
)  # fmt: skip
KINDS = {
    "qwen3_moe": EXPERTS | dict(head_dim=8),
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "gpt_oss": dict(num_local_experts=4, head_dim=8),
    "qwen3_next": EXPERTS
    | dict(
        head_dim=8, shared_expert_intermediate_size=8, linear_num_value_heads=4, linear_num_key_heads=2,
        linear_key_head_dim=8, linear_value_head_dim=8, layer_types=["linear_attention", "full_attention"],
    ),
}  # fmt: skip
STRATEGIES = {
    "plain": {},
    "fsdp2": {"devices": 2, "strategy": ShardedStrategy},
    "ep": {"devices": 2, "strategy": lambda: ShardedStrategy(expert_parallel=2)},
    "ep, folder": {"devices": 2, "strategy": lambda: ShardedStrategy(expert_parallel=2, checkpoint_folders=True)},
    "ep on 4": {"devices": 4, "strategy": lambda: ShardedStrategy(expert_parallel=2)},
}


def described(kind, **losses):
    return HFConfig(config={"model_type": kind, **SHAPE, **KINDS[kind]}, **losses)


@pytest.fixture
def fit(make_trainer, byte_data, tmp_path):
    """Trains under a strategy and saves under a name; goes on from a checkpoint."""

    def train(kind, how, name, steps, path):
        settings = dict(STRATEGIES[how])
        if "strategy" in settings:
            settings["strategy"] = settings["strategy"]()
        loss_free = {"selection_bias": "loss_free", "bias_rate": 0.05} if kind == "deepseek_v3" else {}
        repeated = {"activation_checkpointing": kind == "qwen3_moe"}
        losses = {"balance_weight": 0.1, "z_weight": 0.01, **repeated, **loss_free}
        model = MoELanguageModel(
            DecoderConfig(vocab_size=257),
            optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.01, eps=1e-6),
            hugging_face=described(kind, **losses),
            seed=1,
        )
        keep = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1, save_top_k=0)
        trainer = make_trainer(
            RouterBalance(),
            keep,
            name=f"{name}.logs",
            max_steps=steps,
            gradient_clip_val=0.5,
            enable_checkpointing=True,
            plugins=[AtomicCheckpointIO()],
            **settings,
        )
        trainer.fit(model, datamodule=byte_data(global_batch_size=8, replay=False), ckpt_path=path)

    def run(kind, how, name, steps, path=None):
        if "strategy" in STRATEGIES[how]:
            on_ranks(train, kind, how, name, steps, path, size=STRATEGIES[how]["devices"])
        else:
            train(kind, how, name, steps, path)
        return tmp_path / name / "last.ckpt"

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_divided_experts_train_as_on_one_process(fit, read_metrics, kind):
    one, two = (load_checkpoint_file(fit(kind, how, how, 3)) for how in ("plain", "ep"))
    expected, found = read_metrics("plain.logs"), read_metrics("ep.logs")
    del expected["train/tokens_per_second"], found["train/tokens_per_second"]
    assert found.keys() == expected.keys() and any("mri/layer" in key for key in expected)
    for key, values in expected.items():
        assert dict(found[key]) == pytest.approx(dict(values), rel=2e-5, abs=1e-6), key
    losses = [[value for _, value in metrics["train/loss"]] for metrics in (expected, found)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6, rel=0)
    assert_close_weights(two, one)


WAYS = [("ep", "plain"), ("plain", "ep"), ("ep", "ep on 4"), ("ep, folder", "fsdp2"), ("fsdp2", "ep, folder")]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), WAYS)
def test_a_run_is_resumed_on_other_devices(fit, tmp_path, first, then):
    straight = load_checkpoint_file(fit("deepseek_v3", "plain", "straight", 3))
    path = fit("deepseek_v3", first, "begun", 2)
    moved = fit("deepseek_v3", then, "moved", 3, path)
    if moved.is_dir():
        consolidate(str(moved), str(tmp_path / "file.ckpt"))
        moved = tmp_path / "file.ckpt"
    assert_close_weights(load_checkpoint_file(moved), straight)


@pytest.mark.slow
def test_a_run_is_resumed_to_the_same_bits(fit):
    straight = load_checkpoint_file(fit("qwen3_moe", "ep", "straight", 3))
    begun = fit("qwen3_moe", "ep", "begun", 2)
    resumed = load_checkpoint_file(fit("qwen3_moe", "ep", "resumed", 3, begun))
    for name, weight in straight["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weight), name


def lonely(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    whole, divided = (HFDecoder(described("gpt_oss")) for _ in range(2))
    divided.load_state_dict(whole.state_dict())
    shard(divided, init_device_mesh("cpu", (1, 2), mesh_dim_names=("data_parallel", "expert_parallel")))
    outputs = []
    for decoder in (whole, divided):
        experts = decoder.model.model.layers[0].mlp.experts
        x = torch.linspace(-1, 1, 5 * 16).view(5, 16).requires_grad_()
        weights = torch.full((5, 2), 0.5, requires_grad=True)
        output = experts(x, torch.tensor([[0, 1]] * 5), weights)  # both on the first device
        output.square().sum().backward()
        outputs.append([output, x.grad, weights.grad, experts.gate_up_proj.grad])
    (*expected, gradient), (*found, own) = outputs
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert isinstance(own, DTensor)
    torch.testing.assert_close(own.full_tensor(), 2 * gradient)  # of both devices
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_device_without_rows_takes_part(tmp_path):
    mp.spawn(lonely, (tmp_path / "store",), nprocs=2)


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("qwen3_moe", {"num_experts": 5}, r"a layer's 5 experts can't be divided evenly among 2 devices; set it to a"),
        ("llama", {}, r"no mixture layers of lit_moe, nor of a model for which transformers has a plan of expert"),
    ],
)
def test_experts_that_cannot_be_divided_are_refused(kind, changes, said):
    from torch.testing._internal.distributed.fake_pg import FakeStore

    decoder = HFDecoder(HFConfig(config={"model_type": kind, **SHAPE, **KINDS.get(kind, {}), **changes}))
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        mesh = init_device_mesh("cpu", (1, 2), mesh_dim_names=("data_parallel", "expert_parallel"))
        with pytest.raises(UserError, match=f"`expert_parallel` is 2, but .*{said}"):
            shard(decoder, mesh)
    finally:
        dist.destroy_process_group()
