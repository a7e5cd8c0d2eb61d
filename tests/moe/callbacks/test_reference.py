"""A checkpoint of the command line as the reference of `RouterDrift`."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.callbacks.reference import load_reference
from lit_moe.cli import main
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, MoEConfig

CONFIG = """
data: {class_path: lit_moe.TokenDataModule, init_args: {root: %s, sources: {stdlib: 1},
  validation: [austen, stdlib], sequence_length: 32, global_batch_size: 4, micro_batch_size: 2, validation_samples: 4}}
model:
  class_path: lit_moe.MoELanguageModel
  init_args:
    decoder: {feed_forward: {n_experts: 8, top_k: 2, expert_width: 8}, n_layers: 2, d_model: 16, n_heads: 2}
    router: {class_path: lit_moe.nn.BiasRouter}
trainer: {accelerator: cpu, max_steps: 2, enable_progress_bar: false, enable_model_summary: false,
  val_check_interval: 4, check_val_every_n_epoch: null}
"""
LAST = "runs/moe/{}/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def place(token_root, tmp_path_factory):
    """A folder with a finished run."""
    folder = tmp_path_factory.mktemp("reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("before.yaml").write_text(CONFIG % token_root)
        assert main(["fit", "--config", "before.yaml", "--run", "before"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_place(place, monkeypatch):
    monkeypatch.chdir(place)


def make(n_layers=2, n_experts=8, top_k=2, vocab_size=384):
    mixture = MoEConfig(n_experts=n_experts, top_k=top_k, expert_width=8)
    return MoELanguageModel(DecoderConfig(vocab_size, n_layers, 16, 2, feed_forward=mixture))


def test_the_reference_is_the_model_of_the_checkpoint_frozen():
    saved = torch.load(LAST.format("before"), weights_only=True)["state_dict"]
    state = torch.get_rng_state()
    model = load_reference(LAST.format("before"), make(), None)  # the module's own router is another
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in saved.items())
    assert model.state_dict()["decoder.layers.0.feed_forward.router.bias"].any()
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("other", "shape"),
    [
        (dict(n_layers=3), "3 mixture layers of 8 experts, 2 per token, with 384 token ids"),
        (dict(n_experts=6), "2 mixture layers of 6 experts, 2 per token, with 384 token ids"),
        (dict(top_k=3), "2 mixture layers of 8 experts, 3 per token, with 384 token ids"),
        (dict(vocab_size=400), "2 mixture layers of 8 experts, 2 per token, with 400 token ids"),
    ],
    ids=str,
)
def test_another_shape_is_refused(other, shape):
    with pytest.raises(UserError, match=rf"before/.*ckpt, a model of 2 mixture .*384 token ids, .* is of {shape};"):
        load_reference(LAST.format("before"), make(**other), None)


def test_another_tokenizer_is_refused():
    with pytest.raises(UserError, match="token ids can't be compared"):
        load_reference(LAST.format("before"), make(), Tokenizer.bytes())


def test_a_continued_run_is_compared_with_the_one_before(capsys):
    """Nothing has moved when it begins, where Forgetting validates; the packaged config measures the same."""
    config = yaml.safe_load(Path("before.yaml").read_text())
    config["trainer"]["callbacks"] = [
        {"class_path": "lit_moe.RouterDrift", "init_args": {"reference": LAST.format("before")}},
        {"class_path": "lit_moe.Forgetting", "init_args": {"old": ["austen"], "new": ["stdlib"]}},
    ]
    Path("branch.yaml").write_text(yaml.safe_dump(config))
    branch = ["fit", "--config", "branch.yaml", "--branch_from", LAST.format("before"), "--run", "after"]
    assert main(branch) == 0
    with open("runs/moe/after/metrics.csv", newline="") as file:
        values = [row["val/austen/router/crs/mean"] for row in csv.DictReader(file)]
    first, last = [float(value) for value in values if value]
    assert first == 1 and 0.25 < last < 1

    packaged = ["--config", "configs/moe/callbacks/router_drift.yaml"]
    test = ["test", "--ckpt_path", LAST.format("before"), *packaged, "--data.init_args.test_samples", "4"]
    assert main(test) == 2
    assert "reference is runs/moe/quickstart-pretrain/checkpoints/last.ckpt, but there is no" in capsys.readouterr().err
    Path("runs/moe/quickstart-pretrain").symlink_to("before")
    assert main(test) == 0
    with open("runs/moe/before/metrics.csv", newline="") as file:
        assert float(list(csv.DictReader(file))[-1]["test/stdlib/router/crs/layer_01"]) == 1
