"""Adapters by peft: they alone are trained, a resume is exact, and the merged export has equal logits."""

import os
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from test_module import tiny_data, tiny_decoder

from lit_core.errors import UserError
from lit_moe.cli import main
from lit_moe.interop.exporting import export_model
from lit_moe.lm import load_module
from lit_moe.module import MoELanguageModel
from lit_moe.nn import AdapterConfig, HFConfig, PenaltyRouter
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
    return MoELanguageModel(
        tiny_decoder(feed_forward={"n_experts": 4, "top_k": 2, "expert_width": 16}),
        router=partial(PenaltyRouter, balance_weight=0.01),
        hugging_face=None if config is None else HFConfig(config=config, balance_weight=0.01),
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
    with pytest.raises(UserError, match="targets` is empty"):
        AdapterConfig([])
    sharded = module("ours")
    sharded.trainer = Trainer(accelerator="cpu", devices=1, strategy=ShardedStrategy(), logger=False)
    sharded._device_mesh = "a mesh"
    with pytest.raises(UserError, match="`adapter` is given, but a sharded strategy"):
        sharded.configure_model()


@pytest.mark.slow  # a run through the command line
def test_a_run_from_the_config_trains_adapters(token_root, tmp_path, monkeypatch):
    root = os.getcwd()
    monkeypatch.chdir(tmp_path)
    base = [
        f"--config={root}/configs/moe/hugging_face/base.yaml",
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
