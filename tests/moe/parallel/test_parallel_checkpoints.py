"""Checkpoints of divided weights: read by any number of devices, made one file, refused where they can't be read."""

import shutil

import pytest
import torch
from fit_run import assert_close_weights
from lightning.pytorch.callbacks import ModelCheckpoint
from ranks import on_ranks

from lit_core.callbacks import BranchFrom
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import AtomicCheckpointIO, load_checkpoint_file
from lit_core.lightning.sharded_checkpoint import consolidate, load_checkpoint_parts
from lit_moe import MoELanguageModel, ShardedStrategy
from lit_moe.nn import BiasRouter, DecoderConfig, MoEConfig

STRATEGIES = {
    "plain": {},
    "ddp": {"devices": 2, "strategy": lambda: "ddp"},
    "fsdp2": {"devices": 2, "strategy": ShardedStrategy},
    "ep": {"devices": 2, "strategy": lambda: ShardedStrategy(expert_parallel=2)},
    "ep, folder": {"devices": 2, "strategy": lambda: ShardedStrategy(expert_parallel=2, checkpoint_folders=True)},
    "fsdp2, folder": {"devices": 2, "strategy": lambda: ShardedStrategy(checkpoint_folders=True)},
    "alone, folder": {"strategy": lambda: ShardedStrategy(checkpoint_folders=True)},
}


def language_model():
    config = DecoderConfig(
        vocab_size=256, n_layers=2, d_model=16, n_heads=2, d_ff=16, feed_forward=MoEConfig(3 + 1, 2, 8)
    )
    router = lambda n, k: BiasRouter(n, k, update_rate=0.05)  # noqa: E731  # with a buffer that is not divided
    return MoELanguageModel(config, router, lambda groups: torch.optim.AdamW(groups, lr=0.02, weight_decay=0.1))


@pytest.fixture
def fit(make_trainer, byte_data, tmp_path):
    """Trains under a strategy and saves under a name; goes on from a checkpoint, or branches from it."""

    def train(kind, name, steps, path=None, branch=None):
        settings = dict(STRATEGIES[kind])
        if "strategy" in settings:
            settings["strategy"] = settings["strategy"]()
        keep = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1, save_top_k=0)
        branching = [BranchFrom(str(branch))] if branch else []
        trainer = make_trainer(
            keep,
            *branching,
            name=f"{name}.logs",
            max_steps=steps,
            gradient_clip_val=0.5,
            enable_checkpointing=True,
            plugins=[AtomicCheckpointIO()],
            **settings,
        )
        trainer.fit(language_model(), datamodule=byte_data(replay=False), ckpt_path=path)

    def run(kind, name, steps, **options):
        if "strategy" in STRATEGIES[kind]:
            on_ranks(train, kind, name, steps, *options.values(), size=STRATEGIES[kind].get("devices", 1))
        else:
            train(kind, name, steps, **options)
        return tmp_path / name / "last.ckpt"

    return run


def whole(path, tmp_path):
    """Return a checkpoint as a plain file."""
    if path.is_dir():
        shutil.rmtree(tmp_path / "file", ignore_errors=True)
        (tmp_path / "file").mkdir()
        consolidate(str(path), str(tmp_path / "file" / "one.ckpt"))
        path = tmp_path / "file" / "one.ckpt"
    return load_checkpoint_file(path)


def assert_close_states(mine, theirs):
    assert_close_weights(mine, theirs)
    assert mine["optimizer_param_names"] == theirs["optimizer_param_names"]
    for state, expected in zip(mine["optimizer_states"], theirs["optimizer_states"], strict=True):
        assert state["param_groups"] == expected["param_groups"]
        for number, moments in expected["state"].items():
            for name, value in moments.items():
                torch.testing.assert_close(state["state"][number][name], value, rtol=1e-4, atol=1e-6)


WAYS = [("ep, folder", "alone, folder"), ("fsdp2", "plain"), ("plain", "ep"), ("ep", "ddp"), ("plain", "fsdp2")]
WAYS += [("ep, folder", "fsdp2"), ("fsdp2, folder", "ep, folder"), ("alone, folder", "ep"), ("ddp", "fsdp2, folder")]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), WAYS)
def test_a_run_goes_on_on_other_devices(fit, tmp_path, first, then):
    straight = load_checkpoint_file(fit("plain", "straight", 4))
    path = fit(first, "begun", 2)
    assert path.is_dir() == first.endswith("folder")
    moved = whole(fit(then, "moved", 4, path=path), tmp_path)
    assert_close_states(moved, straight)
    assert moved["state_dict"]["decoder.layers.0.feed_forward.router.bias"].any()
    resumed, expected = (state["callbacks"]["ResumeStream"] for state in (moved, straight))
    assert resumed["step"] == expected["step"] == 4 and resumed["consumed"] == expected["consumed"]


def test_a_folder_is_resumed_to_the_same_bits_and_refused_where_it_cannot_be_read(fit, tmp_path, make_trainer):
    straight = whole(fit("ep, folder", "straight", 3), tmp_path)
    path = fit("ep, folder", "begun", 2)
    assert sorted(file.name for file in path.iterdir()) == ["meta.pt", "part_00000.pt", "part_00001.pt"]
    with pytest.raises(UserError, match=r"begun/last\.ckpt, a checkpoint folder, which only a sharded strategy reads"):
        fit("plain", "plain", 3, path=path)
    resumed = whole(fit("ep, folder", "begun", 3, path=path), tmp_path)
    for name, weight in straight["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], weight), name
    assert [file.name for file in (tmp_path / "begun").iterdir()] == ["last.ckpt"]

    output = str(tmp_path / "file" / "one.ckpt")
    with pytest.raises(UserError, match="which exists already"):
        consolidate(str(path), output)
    with pytest.raises(UserError, match="a checkpoint that is a file needs no consolidation"):
        consolidate(output, str(tmp_path / "two.ckpt"))
    (path / "part_00001.pt").write_bytes((path / "part_00001.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"part_00001\.pt is missing or damaged"):
        load_checkpoint_parts(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fsdp2", "ep"])
def test_a_branch_takes_weights_and_moments(fit, tmp_path, kind):
    """In both directions: from one device to two, and from two to one."""
    alone, divided = fit("plain", "alone", 3), fit(kind, "divided", 3)
    expected = load_checkpoint_file(fit("plain", "branch", 2, path=None, branch=alone))
    assert_close_states(load_checkpoint_file(fit(kind, "one_to_two", 2, path=None, branch=alone)), expected)
    assert_close_states(load_checkpoint_file(fit("plain", "two_to_one", 2, path=None, branch=divided)), expected)
