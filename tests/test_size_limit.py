"""What a checkpoint of somebody else describes is no larger than its weights: in each command that builds a model."""

import re
from importlib import import_module

import pytest
import torch
from test_foreign_checkpoints import ROOT, last
from test_foreign_checkpoints import former as former  # a fixture
from torch import nn

from lit_core import trust
from lit_core.cli.lit_cli import LitCLI
from lit_core.errors import UserError
from lit_core.size_limit import sized_as, sized_by_itself
from lit_moe import MoELanguageModel
from lit_moe.lm import load_module
from lit_valuation import ClassifierTask
from lit_valuation.training.loading import load_task

#: By run: arguments of the model that ask for many layers, and for a large one.
BOMBS = {
    "moe/first": [{"decoder": {"n_layers": 200_000}}, {"decoder": {"vocab_size": 10**9}}],
    "valuation/first": [{"network": {"class_path": "lit_valuation.nn.MLP", "init_args": {"hidden": [10**9]}}}],
}


def bomb(run, number):
    """Write a checkpoint whose description asks for a larger model, and return its path."""
    checkpoint = torch.load(last(run), weights_only=True)
    for arguments in (checkpoint["config"]["model"]["init_args"], checkpoint["hyper_parameters"]):
        for name, value in BOMBS[run][number].items():
            arguments[name] = {**arguments[name], **value}
    torch.save(checkpoint, "bomb.ckpt")
    return "bomb.ckpt"


REFUSED = "bomb.ckpt, which was not written by you and describes a larger model than its weights fill"


@pytest.mark.slow  # prepares data
def test_each_command_of_lightning_refuses_a_model_that_the_weights_do_not_fill(former, capsys):
    main, path = import_module("lit_moe.cli").main, bomb("moe/first", 0)
    assert main(["prepare", "--config", "prepare.moe.yaml"]) == 0
    for command in [*LitCLI.subcommands(), "plan"]:
        capsys.readouterr()
        assert main([command, "--ckpt_path", path, "--run", "new"]) == 2, command
        assert REFUSED in capsys.readouterr().err, command


#: What builds a model in Python and in the verbs, by run.
LOADED = {
    "moe/first": (load_module, MoELanguageModel.load_from_checkpoint),
    "valuation/first": (load_task, ClassifierTask.load_from_checkpoint),
}


@pytest.mark.parametrize(
    ("run", "number"), [(run, number) for run, made in BOMBS.items() for number in range(len(made))]
)
def test_what_builds_a_model_refuses_it_too(run, number, former):
    path = bomb(run, number)
    for load in LOADED[run]:
        with pytest.raises(UserError, match=rf"^(--ckpt_path|checkpoint_path) is {REFUSED}, which are \d+ tensors of "):
            load(path)


def test_one_s_own_checkpoint_may_build_anything(former):
    checkpoint = {"config": {}, "state_dict": {"w": torch.zeros(1).expand(10**12)}}
    large = (lambda: torch.empty(1 << 25), lambda: nn.ModuleList([nn.Identity() for _ in range(20_000)]))
    for make in large:
        with pytest.raises(UserError, match="are 1 tensors of 4 bytes"), sized_as(checkpoint, "x.ckpt", "--ckpt_path"):
            make()
        with sized_as(checkpoint, "x.ckpt", "--ckpt_path"), sized_by_itself():
            make()
    trust.sign(checkpoint)
    for make in large:
        with sized_as(checkpoint, "x.ckpt", "--ckpt_path"):
            make()


def test_whoever_builds_what_a_checkpoint_describes_does_it_within_the_limit():
    texts = {path.relative_to(ROOT).as_posix(): path.read_text() for path in ROOT.glob("lit_*/**/*.py")}
    building = re.compile(
        r"instantiate_module\(|subclass_arguments\(LightningModule|, kind\)\.load_from_checkpoint\b"
        r"|super\(\)\.instantiate_classes\(|_without_weights\(c"
    )
    limited = {path for path, text in texts.items() if re.search(r"with .*sized_as|limited = sized_as", text)}
    inherited = {"lit_moe/commands/lightning.py"}  # from lit_core/cli/lit_cli.py
    assert limited == {path for path, text in texts.items() if building.search(text)} - inherited
