"""A LightningCLI of a user's own takes checkpoints of our modules, whoever wrote them."""

import pytest
import torch
from lightning.pytorch import Trainer

import lit_moe.cli
from lit_core.cli import ProjectCLI
from lit_core.data import ResumeStream
from lit_moe import MoELanguageModel, TokenDataModule
from lit_moe.nn import DecoderConfig, MoEConfig, PenaltyRouter

SMALL = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 16, "max_seq_len": 64}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
MIXTURE = MoEConfig(n_experts=4, top_k=2, expert_width=8)
SIZES = {"sequence_length": 32, "global_batch_size": 4, "micro_batch_size": 2, "test_samples": 4}


class Plain(ProjectCLI):
    def add_arguments_to_parser(self, parser):
        parser.link_arguments("data.vocab_size", "model.decoder.vocab_size", apply_on="instantiate")


class ByClass(ProjectCLI):
    def __init__(self, *args, **options):
        super().__init__(*args, subclass_mode_model=True, subclass_mode_data=True, **options)

    def add_arguments_to_parser(self, parser):
        parser.link_arguments("data.vocab_size", "model.init_args.decoder.vocab_size", apply_on="instantiate")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, token_root):
    """Checkpoints of a mixture, written by Python and by our command line."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.chdir(folder)
        trainer = Trainer(**QUIET, max_steps=1, logger=False, callbacks=[ResumeStream()], enable_checkpointing=False)
        model = MoELanguageModel(DecoderConfig(384, **SMALL, feed_forward=MIXTURE), PenaltyRouter)
        trainer.fit(model, datamodule=TokenDataModule(str(token_root), {"austen": 1}, **SIZES))
        trainer.save_checkpoint("python.ckpt")
        args = ["fit", "--ckpt_path", "python.ckpt", "--trainer.max_steps", "2", "--run", "ours"]
        args += [f"--trainer.{key}={value}" for key, value in QUIET.items()]
        assert lit_moe.cli.main(args) == 0
    return {"python": folder / "python.ckpt", "ours": folder / "runs/moe/ours/checkpoints/last.ckpt"}


@pytest.mark.parametrize("kind", [Plain, ByClass])
@pytest.mark.parametrize("writer", ["python", "ours"])
def test_a_checkpoint_is_taken_and_what_is_typed_wins(writer, kind, checkpoints, token_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["own"])
    begin = ["--data", "TokenDataModule"] if kind is ByClass else []
    data = {"root": token_root, "sources": '{"austen": 1}', **SIZES}
    args = [*begin, *(f"--data.{key}={value}" for key, value in data.items())]
    args += [f"--trainer.{key}={value}" for key, value in (QUIET | {"logger": False}).items()]
    options = {"save_config_callback": None, "trainer_defaults": {"callbacks": [ResumeStream()]}}

    def run(command, *more):
        path = str(checkpoints[writer])
        given = [command, *args, "--ckpt_path", path, *more]
        return kind(MoELanguageModel, TokenDataModule, args=given, **options)

    with torch.random.fork_rng():
        tested = run("test")
        assert tested.model.config.moe == MIXTURE and "test/austen/loss" in tested.trainer.callback_metrics
        saved = torch.load(checkpoints[writer], weights_only=True)["state_dict"]
        assert all(torch.equal(value, saved[name]) for name, value in tested.model.state_dict().items())
        decoder = "--model.init_args.decoder" if kind is ByClass else "--model.decoder"
        resumed = run("fit", "--trainer.max_steps=3", f"{decoder}.activation_checkpointing=true")
    assert resumed.trainer.global_step == 3
    assert resumed.model.config.activation_checkpointing and resumed.model.config.moe == MIXTURE
