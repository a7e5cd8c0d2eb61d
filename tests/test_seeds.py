"""One seed for a run: each part takes it unless it has one of its own, and what is drawn depends on it."""

import importlib
import inspect
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from kinds import PACKAGES, modules_of
from torch import nn
from verbs import own_verbs

import lit_moe.cli
from lit_core.data import MixtureStream, ShardStream
from lit_core.data.module import StreamDataModule
from lit_core.errors import UserError
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.seeds import part_seed, seeds_of
from lit_detect.attacks import Whitespace
from lit_detect.callbacks import AdversarialTraining, RobustnessMonitor
from lit_detect.data.module import TextDataModule
from lit_detect.detectors import DistilFAST, EncoderDetector, FASTDetector, GroverDetector
from lit_moe import MoELanguageModel, TokenDataModule
from lit_moe.callbacks import SampleText
from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen
from lit_moe.lm import DecoderLM
from lit_moe.nn import DecoderConfig
from lit_valuation import ClassifierTask, MultiLabelTask, RegressionTask, TaggingTask
from lit_valuation.callbacks import GradientMatching
from lit_valuation.data.module import OwnersDataModule
from lit_valuation.nn import MLP, TokenConvNet

TINY = {"vocab_size": 257, "n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 16}
ROWS = {"one": [{"x": row} for row in range(8)]}
BATCHES = {"global_batch_size": 4, "micro_batch_size": 2}


def byte_lm():
    from lit_core.lm.tokenizer import Tokenizer

    return DecoderLM(MoELanguageModel(DecoderConfig(**TINY), seed=0).decoder, Tokenizer.bytes())


#: How to build each class that has a seed, by ``seed`` alone.
MAKE = {
    ShardStream: lambda **seed: ShardStream(ROWS["one"], "train", **BATCHES, **seed),
    MixtureStream: lambda **seed: MixtureStream(ROWS, **BATCHES, **seed),
    StreamDataModule: lambda **seed: StreamDataModule(4, **seed),
    MoELanguageModel: lambda **seed: MoELanguageModel(DecoderConfig(**TINY), **seed),
    Specimen: lambda **seed: Specimen(small_config("mixtral"), **seed),
    TokenDataModule: lambda **seed: TokenDataModule("tokens", {"austen": 1.0}, **seed),
    SampleText: lambda **seed: SampleText([""], **seed),
    ClassifierTask: lambda **seed: ClassifierTask(lambda shape, n: MLP(shape, n), ["a", "b"], [4], **seed),
    MultiLabelTask: lambda **seed: MultiLabelTask(lambda shape, n: MLP(shape, n), ["a", "b"], [4], **seed),
    RegressionTask: lambda **seed: RegressionTask(
        lambda shape, n: MLP(shape, n), ["a"], [4], target_mean=[0.0], target_scale=[1.0], **seed
    ),
    TaggingTask: lambda **seed: TaggingTask(lambda shape, n: TokenConvNet(shape, n, 8), ["a", "b"], [4], **seed),
    GradientMatching: GradientMatching,
    OwnersDataModule: lambda **seed: OwnersDataModule("owners", **seed),
    TextDataModule: lambda **seed: TextDataModule("texts", **seed),
    EncoderDetector: lambda **seed: EncoderDetector("scratch-1x64", 16, **seed),
    FASTDetector: lambda **seed: FASTDetector("scratch-1x64", 16, **seed),
    DistilFAST: lambda **seed: DistilFAST("scratch-1x64", 16, **seed),
    GroverDetector: lambda **seed: GroverDetector(byte_lm(), 16, **seed),
    RobustnessMonitor: lambda **seed: RobustnessMonitor([Whitespace()], **seed),
    AdversarialTraining: lambda **seed: AdversarialTraining([Whitespace()], **seed),
}
#: Verbs whose seed belongs to the data that they write, so it is the same whatever a run's seed is.
OF_THE_DATA = {
    *("lit_core.prepare", "lit_detect.data.prepare"),
    *("lit_valuation.commands.divide", "lit_valuation.commands.prepare"),
}


def modules():
    yield from (importlib.import_module(package) for package in PACKAGES)
    for package in PACKAGES:
        yield from modules_of(package)


def own(kind):
    """What the modules of all packages define, each once."""
    found = {}
    for module in modules():
        found |= {part: None for part in vars(module).values() if kind(part) and part.__module__ == module.__name__}
    return list(found)


def seed_parameter(function):
    parameter = inspect.signature(function).parameters.get("seed")
    return None if parameter is None or parameter.default is parameter.empty else parameter


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Folders that the data modules look for."""
    monkeypatch.chdir(tmp_path)
    for folder in ("tokens/austen", "owners/trainer/train", "texts/train"):
        Path(folder).mkdir(parents=True)
    Path("texts/index.json").write_text("{}")


def drawn(part):
    """What a part has drawn, or will draw by: its weights, or the seeds in it."""
    if isinstance(part, nn.Module):
        return torch.cat([value.flatten().double() for value in part.state_dict().values()]).tolist()
    return [*seeds_in(part)]


def seeds_in(node):
    for name, value in (node if isinstance(node, dict) else vars(node)).items():
        if name == "seed":
            yield value
        elif (isinstance(value, dict) or hasattr(value, "__dict__")) and name in ("options", "attacks"):
            yield from seeds_in(value)


def test_every_class_with_a_seed_is_tested_here():
    classes = [part for part in own(inspect.isclass) if not inspect.isabstract(part)]
    seeded = {part for part in classes if inspect.isfunction(part.__init__) and seed_parameter(part.__init__)}
    assert seeded == set(MAKE)


@pytest.mark.parametrize("part", MAKE, ids=lambda part: part.__name__)
def test_a_part_takes_the_seed_of_the_run_unless_it_has_its_own(part):
    make = MAKE[part]
    pl.seed_everything(3, verbose=False)
    third, own = drawn(make()), drawn(make(seed=4))
    assert third and third == drawn(make())
    pl.seed_everything(4, verbose=False)
    assert own == drawn(make()) != third == drawn(make(seed=3))
    for seed in (-1, 2**32):
        with pytest.raises(UserError, match=f"seed is {seed}, but must be 0 or more and below"):
            make(seed=seed)


def test_no_default_of_a_seed_hides_the_seed_of_the_run():
    functions = own(inspect.isfunction)
    functions += [
        method for part in own(inspect.isclass) for method in vars(part).values() if inspect.isfunction(method)
    ]
    fixed = [
        f"{function.__module__}.{function.__qualname__}"
        for function in functions
        if (parameter := seed_parameter(function)) is not None
        and parameter.default is not None
        and function.__module__ not in OF_THE_DATA
    ]
    # pure functions that draw the intervals of a result, whose callers give the seed
    assert sorted(fixed) == [
        "lit_detect.functional.bootstrap.bootstrap_many",
        "lit_detect.functional.shape.character_scores",
        "lit_detect.report.quality.quality",
    ]


def test_without_a_run_the_seed_is_0(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert (part_seed(), part_seed(7)) == (0, 7)


@pytest.fixture
def fit(token_root):
    """Starts two steps of a tiny model and returns the checkpoint, or that of a command after it."""
    described = {
        "data": {
            "class_path": "lit_moe.TokenDataModule",
            "init_args": {"root": str(token_root), "sources": {"austen": 1}, "sequence_length": 8, **BATCHES},
        },
        "model": {"class_path": "lit_moe.MoELanguageModel", "init_args": {"decoder": dict(TINY)}},
        "trainer": {
            **{"accelerator": "cpu", "devices": 1, "max_steps": 1, "limit_val_batches": 0, "logger": False},
            **{"enable_progress_bar": False, "enable_model_summary": False, "limit_test_batches": 1},
        },
    }
    described["model"]["init_args"]["decoder"].pop("vocab_size")
    described["data"]["init_args"] |= {"test_samples": 2, "validation_samples": 2}
    Path("tiny.yaml").write_text(yaml.safe_dump(described))

    def run(name, *args, code=0):
        assert lit_moe.cli.main(["fit", "--config", "tiny.yaml", "--run", name, *args]) == code
        return load_checkpoint_file(f"runs/moe/{name}/checkpoints/last.ckpt") if code == 0 else None

    return run


def weights(checkpoint):
    return checkpoint["state_dict"]["decoder.embedding.weight"]


def test_a_sweep_over_seeds_trains_different_models_and_says_which_seed_held(fit):
    first, again, second = (fit(name, "--seed_everything", seed) for name, seed in (("a", "1"), ("b", "1"), ("c", "2")))
    assert torch.equal(weights(first), weights(again)) and not torch.equal(weights(first), weights(second))
    assert first["callbacks"]["ResumeStream"]["seed"] == 1
    assert first["config"]["seed_everything"] == 1
    assert first["config"]["model"]["init_args"]["seed"] is first["config"]["data"]["init_args"]["seed"] is None
    held = {"seed_everything": 1, "model.init_args.seed": 1, "data.init_args.seed": 1}
    assert seeds_of(first["config"]) == held
    lines = Path("runs/moe/a/config.yaml").read_text().splitlines()
    assert lines[-4:] == ["# Seeds that hold, those of the parts by key:", *(f"#   {k}: {v}" for k, v in held.items())]
    part = fit("d", "--seed_everything", "2", "--model.init_args.seed", "1")
    assert seeds_of(part["config"]) == held | {"seed_everything": 2, "data.init_args.seed": 2}
    lit_moe.cli.main(["fit", "--config", "runs/moe/a/config.yaml", "--run", "e"])
    assert torch.equal(weights(load_checkpoint_file("runs/moe/e/checkpoints/last.ckpt")), weights(first))


def test_a_checkpoint_keeps_its_seed_in_a_test_and_a_resume_and_a_branch_takes_its_own(fit, capsys):
    fit("a", "--seed_everything", "5")
    last = "runs/moe/a/checkpoints/last.ckpt"

    def kept(name):
        return yaml.safe_load(Path(f"runs/moe/{name}.yaml").read_text())["seed_everything"]

    test = ["test", "--ckpt_path", last, "--trainer.limit_test_batches", "1", "--trainer.logger", "false"]
    assert lit_moe.cli.main(test) == 0 and kept("a/config.test") == 5
    assert lit_moe.cli.main([*test, "--seed_everything", "6"]) == 0 and kept("a/config.test") == 6
    assert lit_moe.cli.main(["fit", "--ckpt_path", last, "--trainer.max_steps", "2"]) == 0 and kept("a/config") == 5
    assert load_checkpoint_file(last)["callbacks"]["ResumeStream"]["seed"] == 5
    for key in seeds_of(load_checkpoint_file(last)["config"]):
        capsys.readouterr()
        assert lit_moe.cli.main(["fit", "--ckpt_path", last, "--trainer.max_steps", "3", f"--{key}", "6"]) == 2
        assert f"`{key}` is 6, but the run began with 5" in capsys.readouterr().err
    assert fit("b", "--branch_from", last, "--seed_everything", "7")["callbacks"]["ResumeStream"]["seed"] == 7


def test_what_is_drawn_in_training_follows_the_seed_of_the_run(fit):
    """Dropout and jitter too, also where weights and order have seeds of their own; a resume goes on with it."""
    own = ["--model.init_args.seed", "1", "--data.init_args.seed", "2"]
    own += ["--model.decoder.feed_forward", "switch", "--model.router", "lit_moe.nn.PenaltyRouter"]
    own += ["--model.router.jitter", "0.5"]
    first, again, second = (
        fit(name, *own, "--seed_everything", seed) for name, seed in (("a", "3"), ("b", "3"), ("c", "4"))
    )
    assert torch.equal(weights(first), weights(again)) and not torch.equal(weights(first), weights(second))
    whole = fit("d", *own, "--seed_everything", "3", "--trainer.max_steps", "2")
    last = "runs/moe/a/checkpoints/last.ckpt"
    assert lit_moe.cli.main(["fit", "--ckpt_path", last, "--trainer.max_steps", "2"]) == 0
    assert torch.equal(weights(load_checkpoint_file(last)), weights(whole))


def test_a_seed_that_is_drawn_is_kept_and_false_leaves_the_generators_alone(fit, monkeypatch, capsys):
    first, second = fit("a", "--seed_everything", "true"), fit("b", "--seed_everything", "true")
    one, other = first["config"]["seed_everything"], second["config"]["seed_everything"]
    assert one != other and not isinstance(one, bool)
    assert first["callbacks"]["ResumeStream"]["seed"] == one
    none = fit("c", "--seed_everything", "false")  # after one that was seeded, in the same process
    assert none["config"]["seed_everything"] is False and seeds_of(none["config"])["model.init_args.seed"] == 0
    assert none["callbacks"]["ResumeStream"]["seed"] == 0
    fit("d", "--seed_everything", "-1", code=2)
    assert "--seed_everything is -1, but must be 0 or more" in capsys.readouterr().err
    monkeypatch.setenv("SLURM_PROCID", "0")
    fit("e", "--seed_everything", "true", code=2)
    assert "give a number" in capsys.readouterr().err


def test_the_seed_of_a_verb_is_that_of_its_parts_and_of_the_global_generators(capsys):
    seen = []

    def verb(part: Whitespace, seed: int | None = None) -> None:
        """Draw.

        Args:
            part: A part.
            seed: Seed.
        """
        seen.append((part_seed(), seed, torch.rand(1).item()))

    def run(*args):
        from lit_core.cli import run as command

        return command("lit-x", lambda args: None, {"verb": verb}, ["verb", "--part", "Whitespace", *args])

    assert [run("--seed", "3"), run("--seed", "3"), run("--seed", "4"), run()] == [0] * 4
    assert [row[:2] for row in seen] == [(3, 3), (3, 3), (4, 4), (0, None)]
    assert seen[0] == seen[1] and len({row[2] for row in seen}) == 3
    assert run("--seed", "-2") == 2
    assert "seed is -2, but must be 0 or more" in capsys.readouterr().err


def test_every_verb_that_draws_has_a_seed():
    """Verbs without one only change, read or list what is there; a study gives each cell its seed."""
    without = {
        package: {name for name, verb in verbs.items() if seed_of_verb(verb) is None}
        for package, verbs in own_verbs().items()
    }
    assert without == {
        "lit_moe": {"import", "export", "consolidate", "fingerprint", "drift", "study", "configs", "show", "board"},
        "lit_valuation": {"study", "configs", "show", "board"},
        "lit_detect": {"calibrate", "explain", "serve", "study", "configs", "show", "board"},
    }


def seed_of_verb(verb):
    return inspect.signature(verb).parameters.get("seed")
