"""Adapters by peft: they alone are trained, a resume is exact, and the merged export has equal logits."""

import os
import re
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from test_module import tiny_data, tiny_decoder

from lit_core.callbacks import BranchFrom
from lit_core.errors import UserError
from lit_moe.cli import main
from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen
from lit_moe.interop.exporting import export_model
from lit_moe.lm import load_module
from lit_moe.module import MoELanguageModel
from lit_moe.nn import AdapterConfig, DecoderConfig, HFConfig, PenaltyRouter
from lit_moe.nn.adapters import add_adapters, merge_adapters, without_adapters
from lit_moe.parallel.strategy import ShardedStrategy

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

SHAPE = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE |= {"num_key_value_heads": 2, "num_local_experts": 4, "head_dim": 16, "max_position_embeddings": 64}
#: Attention, stacked experts and routers of lit_moe's decoder and of two families.
NETWORKS = {
    "ours": (None, ["attention.q", "experts", "feed_forward.gate"]),
    "mixtral": ({"model_type": "mixtral", **SHAPE}, ["q_proj", "experts", "mlp.gate"]),
    "gpt_oss": ({"model_type": "gpt_oss", **SHAPE}, ["o_proj", "experts.down_proj", "router"]),
}


def module(kind, **arguments):
    config, targets = NETWORKS[kind]
    if config is None:
        shape = {"feed_forward": {"n_experts": 4, "top_k": 2, "expert_width": 16}}
        network = {"decoder": tiny_decoder(**shape), "router": partial(PenaltyRouter, balance_weight=0.01)}
    else:
        network = {"decoder": DecoderConfig(384), "hugging_face": HFConfig(config=config, balance_weight=0.01)}
    return MoELanguageModel(
        **network,
        adapter=AdapterConfig(targets, rank=4),
        seed=1,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        **arguments,
    )


def fitted(kind, token_root, make_trainer, steps, ckpt_path=None):
    network = module(kind)
    trainer = make_trainer(max_steps=steps, limit_val_batches=0)
    trainer.fit(network, datamodule=tiny_data(token_root), ckpt_path=ckpt_path, weights_only=True)
    return network, trainer


# the other networks take as long again, and show the same of other names
@pytest.mark.parametrize("kind", ["mixtral", *(pytest.param(k, marks=pytest.mark.slow) for k in ("ours", "gpt_oss"))])
def test_only_adapters_are_trained_and_resumed_exactly_and_merged(kind, token_root, make_trainer, tmp_path):
    start = module(kind).state_dict()
    whole, trainer = fitted(kind, token_root, make_trainer, 2)
    trained = {name for name, weight in whole.state_dict().items() if not torch.equal(weight, start[name])}
    assert trained == {name for name in start if "lora_" in name}
    assert len(trainer.optimizers[0].state) == len(trained)
    trainer.save_checkpoint(tmp_path / "whole.ckpt")

    _, trainer = fitted(kind, token_root, make_trainer, 1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fitted(kind, token_root, make_trainer, 2, tmp_path / "half.ckpt")
    for name, weight in resumed.state_dict().items():
        assert torch.equal(weight, whole.state_dict()[name]), name

    ids = torch.randint(4, 300, (2, 16))
    ckpt = str(tmp_path / "whole.ckpt")
    expected = whole.eval()(ids)
    assert (expected - module(kind).eval()(ids)).abs().max() > 1e-2
    export_model(ckpt, str(tmp_path / "exported"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype=torch.float32)
    torch.testing.assert_close(theirs(ids).logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(load_module(ckpt)[0].eval()(ids), expected)


def test_what_cannot_have_an_adapter_is_said():
    with pytest.raises(UserError, match=r"`adapter.targets` has router, but no parameter"):
        MoELanguageModel(tiny_decoder(), adapter=AdapterConfig(["router"]))
    with pytest.raises(UserError, match="names no matrix and no stacked experts"):
        MoELanguageModel(tiny_decoder(), adapter=AdapterConfig(["norm"]))
    sparse = Specimen(small_config("deepseek_v32"), seed=0)
    with pytest.raises(UserError, match="no stacked experts that a loss trains"):
        sparse.module(adapter=AdapterConfig(["indexer"]))  # which chooses, and gets no gradient
    trained = sparse.module(adapter=AdapterConfig(["self_attn.*"])).decoder
    assert not [name for name, weight in trained.named_parameters() if weight.requires_grad and "indexer" in name]
    read_beside = Specimen(small_config("dbrx"), seed=0)
    with pytest.raises(UserError, match=r"names weights of a DbrxForCausalLM that cannot have an adapter \(.*'v1'"):
        read_beside.module(adapter=AdapterConfig(["experts.mlp.w1"]))
    read_alone = Specimen(small_config("longcat_flash"), seed=0)
    with pytest.raises(UserError, match=r"names model.layers.0.mlp.router.classifier, but .* would not be trained"):
        read_alone.module(adapter=AdapterConfig(["q_b_proj", "router"]))
    with pytest.raises(UserError, match="targets` is empty"):
        AdapterConfig([])
    sharded = module("ours")
    sharded.trainer = Trainer(accelerator="cpu", devices=1, strategy=ShardedStrategy(), logger=False)
    sharded._device_mesh = "a mesh"
    with pytest.raises(UserError, match="`adapter` is given, but a sharded strategy"):
        sharded.configure_model()


SPARSE = {
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize("target", ["shared_expert", "shared_expert.gate_proj", "experts.down_proj", "up_proj"])
def test_adapters_are_on_the_named_weights_and_on_no_other(target):
    # peft takes stacked experts in place of dense and shared ones where it knows the network as one of transformers'
    shape = {key: value for key, value in SHAPE.items() if key != "num_local_experts"}
    config = HFConfig(config={"model_type": "qwen2_moe", "mlp_only_layers": [0], **shape, **SPARSE})
    network = MoELanguageModel(DecoderConfig(384), hugging_face=config, adapter=AdapterConfig([target], rank=2))
    adapted = {
        re.sub(r"(\.base_layer)*\.lora_\w\.default\.weight", "", name)
        for name in network.state_dict()
        if "lora_" in name
    }
    weights = [f".{without_adapters(name)}." for name in network.state_dict() if "lora_" not in name]
    named = {name.strip(".") for name in weights if f".{target}." in name}
    stacked = {name.rpartition(".")[0] for name in named if ".experts." in name}
    assert adapted == (stacked or {name.removesuffix(".weight") for name in named})


class Nested(torch.nn.Module):
    """A layer with two matrices of its own beside another layer, of which all can have adapters."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 4)
        self.first = torch.nn.Parameter(torch.randn(4, 4))
        self.second = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return self.inner(x @ self.first) @ self.second


def test_merging_leaves_no_adapter_also_where_layers_hold_layers():
    network = torch.nn.Sequential(Nested(), torch.nn.Linear(4, 4))
    names, x = set(network.state_dict()), torch.randn(3, 4)
    add_adapters(network, AdapterConfig(["*"], rank=2))
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    expected = network(x)
    merge_adapters(network)
    assert set(network.state_dict()) == names
    torch.testing.assert_close(network(x), expected)


def test_a_run_with_adapters_starts_from_weights_without(make_trainer, token_root, tmp_path):
    dense = [make_trainer(max_steps=1, limit_val_batches=0), MoELanguageModel(tiny_decoder(), seed=3)]
    dense[0].fit(dense[1], datamodule=tiny_data(token_root))
    dense[0].save_checkpoint(tmp_path / "whole.ckpt")
    adapter = AdapterConfig(["attention.q", "experts", "feed_forward.gate"], rank=2)

    def branch(path, **arguments):
        network = MoELanguageModel(tiny_decoder(), seed=4, **arguments)
        trainer = make_trainer(BranchFrom(str(tmp_path / path)), max_steps=1, limit_val_batches=0)
        trainer.fit(network, datamodule=tiny_data(token_root))
        trainer.save_checkpoint(tmp_path / "adapted.ckpt")
        return network

    adapted = branch("whole.ckpt", adapter=adapter).state_dict()
    whole = dense[1].state_dict()
    plain = {without_adapters(name): weight for name, weight in adapted.items() if "lora_" not in name}
    assert plain.keys() == whole.keys() and all(torch.equal(weight, whole[name]) for name, weight in plain.items())
    assert any(weight.any() for name, weight in adapted.items() if "lora_B" in name)
    again = branch("adapted.ckpt", adapter=adapter).state_dict()
    assert all(torch.equal(again[name], adapted[name]) for name in adapted if "lora_" not in name)
    with pytest.raises(UserError, match="whose weights have adapters, but `adapter` is null"):
        branch("adapted.ckpt")


def test_a_rank_that_a_weight_cannot_use_is_said():
    shape = {"feed_forward": {"n_experts": 4, "top_k": 2, "expert_width": 16}}
    with pytest.warns(UserWarning, match=r"`adapter.rank` is 8, but 2 of 4 weights .*\.gate\.weight with 4;"):
        MoELanguageModel(tiny_decoder(**shape), adapter=AdapterConfig(["attention.q", "feed_forward.gate"], rank=8))


@pytest.mark.slow  # a run through the command line
def test_a_run_from_the_config_trains_adapters(token_root, tmp_path, monkeypatch):
    root = os.getcwd()
    monkeypatch.chdir(tmp_path)
    base = [
        f"--config={root}/configs/moe/quickstart/hugging_face.yaml",
        f"--config={root}/configs/moe/hugging_face/lora.yaml",
    ]
    small = [f"--data.root={token_root}", "--data.sources={austen: 1.0}", "--data.sequence_length=32"]
    small += ["--data.global_batch_size=2", "--data.micro_batch_size=2", "--data.validation_samples=2"]
    steps = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--run=lora"]
    assert main(["fit", *base, *small, *steps]) == 0
    run = MoELanguageModel.load_from_checkpoint("runs/moe/lora/checkpoints/last.ckpt", weights_only=True)
    trained = {name for name, weight in run.named_parameters() if weight.requires_grad}
    assert trained == {name for name in run.state_dict() if "lora_" in name}
    assert len(trained) == 3 * 2 * 5  # queries, values, two stacks of experts and the router of three layers
