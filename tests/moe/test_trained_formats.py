"""Runs in which weights are bfloat16 keep exact moments when they are resumed or begin from runs in float32."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import on_ranks

from lit_core.callbacks import BranchFrom, PresentOptimizer
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.lightning.float32_steps import LOW_BITS
from lit_moe import MoELanguageModel, ShardedStrategy
from lit_moe.nn import DecoderConfig, MoEConfig


def language_model():
    mixture = MoEConfig(n_experts=4, top_k=2, expert_width=8)
    config = DecoderConfig(vocab_size=257, n_layers=2, d_model=16, n_heads=2, d_ff=16, feed_forward=mixture)
    return MoELanguageModel(config, optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-4))


@pytest.fixture
def fit(make_trainer, byte_data, tmp_path):
    """Trains under a name in a precision; resumes or branches from the checkpoint of another one, which it returns."""

    def run(name, precision, steps, resumed=None, branched=None, **settings):
        keep = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1, save_top_k=0)
        branching = [BranchFrom(str(tmp_path / branched / "last.ckpt"))] if branched else []
        trainer = make_trainer(
            PresentOptimizer(),
            keep,
            *branching,
            name=name,
            precision=precision,
            max_steps=steps,
            enable_checkpointing=True,
            **settings,
        )
        path = tmp_path / resumed / "last.ckpt" if resumed else None
        trainer.fit(language_model(), datamodule=byte_data(replay=False), ckpt_path=path, weights_only=True)

    def both(name, precision, steps, devices=1, **given):
        if devices == 1:
            run(name, precision, steps, **given)
        else:
            on_ranks(lambda: run(name, precision, steps, devices=devices, strategy=ShardedStrategy(), **given))
        return load_checkpoint_file(tmp_path / name / "last.ckpt")

    return both


def moments(checkpoint):
    states = checkpoint["optimizer_states"][0]["state"].values()
    return {name: {state[name].dtype for state in states} for name in set().union(*states)}


IN_FLOAT32 = {"step": {torch.float32}, "exp_avg": {torch.float32}, "exp_avg_sq": {torch.float32}}
IN_BFLOAT16 = IN_FLOAT32 | dict(zip(LOW_BITS, ({torch.int8}, {torch.uint8}), strict=True))
DEVICES = [1, pytest.param(2, marks=pytest.mark.slow)]


@pytest.mark.parametrize("devices", DEVICES)
@pytest.mark.parametrize("how", ["resumed", "branched"])
def test_a_run_in_bfloat16_begins_from_one_in_float32(fit, how, devices):
    fit("exact", "32-true", 2, devices)
    low = fit("low", "bf16-true", 4, devices, **{how: "exact"})
    assert moments(low) == IN_BFLOAT16
    assert {weight.dtype for weight in low["state_dict"].values()} == {torch.bfloat16}
    exact = fit("again", "32-true", 6, devices, **{how: "low"})
    assert moments(exact) == IN_FLOAT32
    assert {weight.dtype for weight in exact["state_dict"].values()} == {torch.float32}


@pytest.mark.parametrize("devices", DEVICES)
def test_a_resumed_run_in_bfloat16_is_the_uninterrupted_one(fit, devices):
    whole = fit("whole", "bf16-true", 4, devices)
    fit("half", "bf16-true", 2, devices)
    resumed = fit("resumed", "bf16-true", 4, devices, resumed="half")
    for name, weight in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weight), name
    mine, theirs = (one["optimizer_states"][0]["state"] for one in (resumed, whole))
    assert all(torch.equal(mine[index][name], value) for index, s in theirs.items() for name, value in s.items())


@pytest.mark.slow
def test_moments_of_a_run_that_rounded_them_become_float32(fit, tmp_path):
    checkpoint = fit("before", "bf16-true", 2)
    for state in checkpoint["optimizer_states"][0]["state"].values():
        for name in LOW_BITS:
            del state[name]
        state.update({name: state[name].bfloat16() for name in ("exp_avg", "exp_avg_sq")})
    (tmp_path / "rounded").mkdir()
    torch.save(checkpoint, tmp_path / "rounded" / "last.ckpt")  # not over the file that is read
    for how in ("resumed", "branched"):
        assert moments(fit(how, "bf16-true", 4, **{how: "rounded"})) == IN_BFLOAT16
