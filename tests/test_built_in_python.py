"""Models that are built and trained in plain Python leave checkpoints that every command of ours loads."""

import inspect
import json
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader

import lit_detect.cli
import lit_detect.loading
import lit_moe.cli
import lit_valuation.cli
import lit_valuation.training.retrain
from lit_core.callbacks import BranchFrom
from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_core.files.paths import file_sha256
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.origin import unkept
from lit_detect import DetectorTask, TextDataModule
from lit_detect.detectors import EncoderDetector
from lit_detect.records import HUMAN, MACHINE, Record
from lit_moe import MoELanguageModel, TokenDataModule
from lit_moe.nn import DecoderConfig, MoEConfig, PenaltyRouter
from lit_valuation import ClassifierTask
from lit_valuation.data import OwnersDataModule
from lit_valuation.nn import MLP

DECODER = DecoderConfig(
    384, n_layers=1, d_model=16, n_heads=2, d_ff=16, max_seq_len=64, feed_forward=MoEConfig(4, 2, 8), qk_norm="head"
)


CLASSES = [str(number) for number in range(10)]


class Wider(ClassifierTask):
    """A user's own module, whose arguments are not those of its base; saves them as Lightning's manual says."""

    def __init__(self, width, *, rate=0.1, **others):
        super().__init__(MLP((64,), 10, [int(width)]), map(str, range(10)), (64,), partial(SGD, lr=rate), **others)
        self.save_hyperparameters()


def trained(model, data, folder, steps=2, **options):
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        **quiet, max_steps=steps, enable_checkpointing=False, limit_val_batches=0, callbacks=[ResumeStream()], **options
    )
    loaders = {"train_dataloaders" if isinstance(data, DataLoader) else "datamodule": data}
    trainer.fit(model, **loaders)
    path = str(folder / "model.ckpt")
    trainer.save_checkpoint(path)
    return path


class Unannotated(nn.Sequential):
    """A user's own network, written without types."""

    def __init__(self, shape, classes, width=8):
        super().__init__(nn.Linear(shape[0], width), nn.Linear(width, classes))


class Handed(ClassifierTask):
    """A user's own module, which hands its arguments on as they come."""

    def __init__(self, *args, scale=1.0, **others):
        super().__init__(*args, **others)
        self.scale = scale


class Hiding(ClassifierTask):
    """A user's own module, which saves all but its network, as Lightning advises."""

    def __init__(self, net: nn.Module):
        super().__init__(net, CLASSES, (64,))
        self.save_hyperparameters(ignore=["net"])


class Split(Enum):
    TRAIN = "train"


@dataclass
class Window:
    length: int
    folder: Path


class Digits(LightningDataModule):
    """A user's own data module, which saves whatever it was given, as Lightning's manual says."""

    def __init__(self, **given):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        return digits()


def tokens(root, **options):
    sizes = {"sequence_length": 32, "global_batch_size": np.int64(4), "micro_batch_size": 2}
    return TokenDataModule(Path(root), {"austen": np.float32(1)}, **sizes, test_samples=4, **options)


def digits():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 64, generator=generator), torch.randint(10, (16,), generator=generator)
    return DataLoader(list(zip(x, y, strict=True)), batch_size=8)


def run(main, *args, code=0):
    assert main([str(arg) for arg in args]) == code


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_command_of_lit_moe_loads_a_model_that_python_built(place, token_root, capsys):
    model = MoELanguageModel(DECODER, PenaltyRouter, partial(AdamW, lr=np.float64(1e-3)), partial(StepLR, step_size=1))
    path = trained(model, tokens(token_root), place)
    again = MoELanguageModel.load_from_checkpoint(path, weights_only=True)
    assert again.hparams == model.hparams and again.optimizer.keywords["lr"] == 1e-3
    main = lit_moe.cli.main
    run(main, "test", "--ckpt_path", path, "--trainer.accelerator", "cpu")
    run(main, "generate", "--ckpt_path", path, "--prompt", "The", "--max_new_tokens", 2)
    run(main, "export", "--ckpt_path", path, "--output", "exported")
    run(main, "plan", "--ckpt_path", path, "--trainer.max_steps", 4)
    run(main, "fit", "--ckpt_path", path, "--trainer.max_steps", 3, "--trainer.accelerator", "cpu")
    run(main, "upcycle", "--ckpt_path", path, "--output", "upcycled.ckpt", code=2)
    assert "a mixture of experts already" in capsys.readouterr().err


def test_what_is_typed_of_an_argument_leaves_the_rest_of_it_as_in_the_checkpoint(place, token_root):
    path = trained(MoELanguageModel(DECODER, PenaltyRouter), tokens(token_root), place)
    more = ["--trainer.max_steps", 3, "--trainer.accelerator", "cpu", "--run", "typed"]
    run(
        lit_moe.cli.main,
        "fit",
        "--ckpt_path",
        path,
        "--model.init_args.decoder.activation_checkpointing",
        "true",
        *more,
    )
    last = "runs/moe/typed/checkpoints/last.ckpt"
    assert MoELanguageModel.load_from_checkpoint(last, weights_only=True).config == replace(
        DECODER, activation_checkpointing=True
    )


def test_a_dense_model_that_python_built_is_upcycled(place, token_root):
    dense = DecoderConfig(384, n_layers=1, d_model=16, n_heads=2, d_ff=16, max_seq_len=64)
    path = trained(MoELanguageModel(dense), tokens(token_root), place)
    run(lit_moe.cli.main, "upcycle", "--ckpt_path", path, "--output", "upcycled.ckpt")


def test_each_command_of_lit_valuation_loads_a_classifier_that_python_built(place):
    main = lit_valuation.cli.main
    run(main, "divide", "--config", "configs/valuation/divide/digits.yaml", "--root", place / "data")
    data = OwnersDataModule(place / "data", batch_size=32)
    network = partial(MLP, hidden=np.array([16]))
    path = trained(ClassifierTask(network, data.classes, data.input_shape), data, place, 20, gradient_clip_val=1.0)
    assert load_checkpoint_file(path)["recipe"] == {"batch_size": 32, "gradient_clip_val": 1.0}
    run(main, "test", "--ckpt_path", path, "--trainer.accelerator", "cpu")
    own = ["--ckpt_path", path, "--data"]
    run(main, "query", *own, "data/trainer", "--to", "[alice]", "--output", "query", "--per_class=2", "--budget=8")
    answer = ["--output", "answer", "--selector", "GradientMatchingSelector", "--limit=8"]
    run(main, "select", "--query", "query", *own, "data/owners/owner_1", "--to", "trainer", *answer)
    answers = json.dumps({"alice": "answer"})
    trainings = ["--output", "ranking", "--seeds", 2, "--trainer.accelerator", "cpu"]
    run(main, "rank", "--query", "query", *own, "data/trainer", "--answers", answers, *trainings)


def test_each_command_of_lit_detect_loads_a_detector_that_python_built(place, capsys):
    texts = Path("texts.jsonl")
    words = "She walked slowly to the village and thought about the letter that had come that morning.".split()
    for number in range(12):
        rows = [(HUMAN, "human", words[number:] + words[:number]), (MACHINE, "other", sorted(words[number:]))]
        records = [Record(f"{label}{number}", " ".join(text), label, source=by) for label, by, text in rows]
        with texts.open("a") as file:
            file.writelines(json.dumps(record.to_dict()) + "\n" for record in records)
    main = lit_detect.cli.main
    source = json.dumps([{"class_path": "LitShiftJSONL", "init_args": {"path": str(texts), "name": "pairs"}}])
    run(main, "prepare", "--root", place / "texts", "--sources", source)
    data = TextDataModule(str(place / "texts"), ["pairs"], normalize=True, batch_size=4)
    detector = EncoderDetector("scratch-1x32", max_tokens=32)
    path = trained(DetectorTask(detector, optimizer=partial(AdamW, lr=1e-3), min_tokens=1), data, place)
    judge = lit_detect.loading.load_checkpoint(path)
    assert judge.detector.detector, "the texts are normalised as in training"
    cpu = ["--trainer.accelerator", "cpu"]
    run(main, "test", "--ckpt_path", path, *cpu)
    run(main, "predict", "--ckpt_path", path, "--data.predict", texts, *cpu)
    human = Path("human.jsonl")
    human.write_text("".join(line + "\n" for line in texts.read_text().splitlines() if '"human"' in line))
    run(main, "calibrate", "--ckpt_path", path, "--human", human, "--fpr", 0.25)
    attack = {"class_path": "TextFooler", "init_args": {"max_queries": 1, "threshold": 1e9}}
    attack["init_args"]["detector"] = {"class_path": "lit_detect.loading.load_detector", "init_args": {}}
    attack["init_args"]["detector"]["init_args"]["ckpt_path"] = path
    given = ["--input", texts, "--limit", 1, "--output", "attacked.jsonl"]
    run(main, "attack", "--attack", json.dumps(attack), *given, *cpu)
    run(main, "report", "--detectors", json.dumps({"mine": path}), "--texts", "[texts]", "--resamples", 10, *cpu)


def test_a_module_of_a_users_own_is_built_again_with_its_own_arguments(place):
    path = trained(Wider(np.int64(8), label_smoothing=0.1), digits(), place)
    for kind in (Wider, ClassifierTask):
        again = kind.load_from_checkpoint(path, weights_only=True)
        assert isinstance(again, Wider) and again.label_smoothing == 0.1 and again.optimizer.keywords == {"lr": 0.1}
        assert again.network.head.in_features == 8
    assert isinstance(lit_valuation.training.loading.load_task(path), Wider)


def test_arguments_that_a_subclass_hands_on_by_position_are_kept(place):
    path = trained(Handed(partial(MLP, hidden=[8]), CLASSES, (64,), partial(SGD, lr=0.2), scale=2.0), digits(), place)
    again = Handed.load_from_checkpoint(path, weights_only=True)
    assert again.scale == 2.0 and again.optimizer.keywords["lr"] == 0.2 and again.network.head.in_features == 8


@pytest.mark.parametrize("network", [Unannotated, partial(Unannotated, width=4)])
def test_a_network_without_annotations_is_built_again(place, network):
    task = ClassifierTask(network, CLASSES, (64,))
    again = ClassifierTask.load_from_checkpoint(trained(task, digits(), place), weights_only=True)
    assert torch.equal(again.network[1].weight, task.network[1].weight)


def test_every_argument_that_is_given_to_a_checkpoint_is_kept_by_the_next_one(place):
    built = {"network": partial(MLP, hidden=[8]), "classes": CLASSES, "input_shape": (64,)}
    path = trained(ClassifierTask(**built), digits(), place)
    given = {"optimizer": partial(SGD, lr=0.2), "scheduler": partial(StepLR, step_size=1), "label_smoothing": 0.1}
    given |= {"hard_classes": ["1"], "seed": 3}
    kept = {*given, *built, "augmentation"}  # a module, whose like the next test has: it is named or given again
    assert kept == inspect.signature(ClassifierTask).parameters.keys()
    first = ClassifierTask.load_from_checkpoint(path, weights_only=True, **given)
    again = ClassifierTask.load_from_checkpoint(trained(first, digits(), place), weights_only=True)
    built = ClassifierTask(**built, **given)
    assert again.hparams == first.hparams == built.hparams
    assert again.optimizer.keywords["lr"] == 0.2


def test_arguments_that_a_class_does_not_take_or_lacks_are_named(place):
    path = trained(ClassifierTask(MLP, CLASSES, (64,)), digits(), place)
    with pytest.raises(UserError, match=r'^netwrk is not an argument of ClassifierTask. Did you mean "network"\?$'):
        ClassifierTask.load_from_checkpoint(path, weights_only=True, netwrk=MLP)
    with pytest.raises(UserError, match=r"holds a .*ClassifierTask, and that is no MoELanguageModel"):
        MoELanguageModel.load_from_checkpoint(path, weights_only=True)
    path = trained(Hiding(nn.Sequential(nn.Linear(64, 10))), digits(), place)
    with pytest.raises(UserError, match="does not hold `net`, an argument of Hiding; give it"):
        Hiding.load_from_checkpoint(path, weights_only=True)
    checkpoint = torch.load(path)
    checkpoint["hyper_parameters"]["net"] = 3
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"whose arguments build no Hiding \(net is 3, but must be a Module"):
        Hiding.load_from_checkpoint(path, weights_only=True)
    with pytest.raises(UserError, match=r"classes is \[0, 1\], but must be names"):
        ClassifierTask(MLP, range(2), (64,))


#: What data modules are built with, and what a checkpoint keeps of it.
GIVEN = {
    "number": (8, 8),
    "dtype": (torch.float32, torch.float32),
    "path": (Path("data"), "data"),
    "array": (np.arange(3), [0, 1, 2]),
    "enum": (Split.TRAIN, "TRAIN"),
    "dataclass": (Window(8, Path("data")), {"length": 8, "folder": "data"}),
    "nested": ({"paths": [Path("a"), Path("b")]}, {"paths": ["a", "b"]}),
    "function": (lambda sample: sample, {"not_kept": "a lambda"}),
    "module": (nn.Linear(1, 1), {"not_kept": "a Linear that was built before"}),
}


def test_whatever_a_users_data_module_saves_the_checkpoint_is_plain_data(place):
    task = ClassifierTask(MLP, list("0123456789"), (64,))
    data = Digits(**{name: given for name, (given, _) in GIVEN.items()})
    path = trained(task, data, place)
    kept = load_checkpoint_file(path)["datamodule_hyper_parameters"]
    assert {name: kept[name] for name in GIVEN} == {name: expected for name, (_, expected) in GIVEN.items()}
    assert data.hparams["path"] == Path("data"), "the data module itself keeps what it was given"
    ClassifierTask.load_from_checkpoint(path, weights_only=True)


def test_what_is_no_plain_data_in_a_checkpoint_is_named(place, capsys):
    path = place / "foreign.ckpt"
    torch.save({"state_dict": {}, "global_step": 1, "callbacks": {"mine": Path("data")}}, path)
    run(lit_moe.cli.main, "show", path, code=2)
    assert "it holds pathlib.PosixPath, " in capsys.readouterr().err


def test_what_cannot_be_kept_is_said_where_it_is_needed(place, capsys):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    task = ClassifierTask(network, [str(number) for number in range(10)], [64], lambda params: SGD(params, lr=0.1))
    assert dict(unkept(dict(task.hparams))) == {
        "network": "a Sequential that was built before",
        "optimizer": "a lambda",
    }
    path = trained(task, digits(), place)
    with pytest.raises(UserError, match=r"how to build `network`.*load_from_checkpoint\(path, network=\.\.\.\)"):
        ClassifierTask.load_from_checkpoint(path, weights_only=True)
    with pytest.raises(UserError, match=r"--ckpt_path is .*how to build `network`"):
        lit_valuation.training.loading.load_task(path)
    run(lit_valuation.cli.main, "test", "--ckpt_path", path, code=2)
    assert "how to build `network`" in capsys.readouterr().err
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    again = ClassifierTask.load_from_checkpoint(path, weights_only=True, network=fresh)
    assert torch.equal(again.network[1].weight, network[1].weight)
    with pytest.raises(UserError, match="how to build `optimizer`, which was a lambda"):
        again.configure_optimizers()
    assert again.hparams.optimizer == task.hparams.optimizer
    given = ClassifierTask.load_from_checkpoint(path, weights_only=True, network=fresh, optimizer=SGD)
    assert isinstance(given.configure_optimizers(), SGD)


def shown(main, capsys, *paths):
    capsys.readouterr()
    run(main, "show", *paths, "--json")
    return json.loads(capsys.readouterr().out)


def test_what_python_trained_can_be_told(place, token_root, capsys, monkeypatch):
    """Of a run, a resume of it, a branch, and a module that Python has loaded and trained further."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)  # of another test in this process
    monkeypatch.setenv("MY_TOKEN", "s3cret-of-mine")
    monkeypatch.setattr("sys.argv", ["train.py", "--key", "s3cret-of-mine"])
    main = lit_moe.cli.main

    def train(name, model, steps, *callbacks, path=None):
        quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(
            **quiet,
            max_steps=steps,
            limit_val_batches=0,
            enable_checkpointing=False,
            callbacks=[ResumeStream(), *callbacks],
        )
        trainer.fit(model, datamodule=tokens(token_root, seed=5), ckpt_path=path, weights_only=True)
        trainer.save_checkpoint(name)
        return shown(main, capsys, name)

    first = train("first.ckpt", MoELanguageModel(DECODER, PenaltyRouter, seed=3), 2)
    assert first["versions"]["torch"] == torch.__version__ and first["devices"]["precision"] == "32-true"
    assert first["seeds"] == {"model.init_args.seed": 3, "data.init_args.seed": 5}
    assert first["config"]["model"]["class_path"] == "lit_moe.MoELanguageModel"
    assert first["config"]["model"]["init_args"]["decoder"]["d_model"] == 16
    # what earlier tests have read since their last training is there too
    shards = [one["path"] for one in first["inputs"] if len(one.get("index_sha256", "")) == 64]
    assert [Path(path).parts[-2:] for path in shards] == [("austen", "train"), ("austen", "val")]
    [session] = first["sessions"]
    assert session["command"] == "train.py --key '${oc.env:MY_TOKEN}'" and first["parent"] is None
    assert (session["from_step"], session["step"], first["step"]) == (0, 2, 2)

    resumed = train("resumed.ckpt", MoELanguageModel(DECODER, PenaltyRouter), 3, path="first.ckpt")
    assert [one["step"] for one in resumed["sessions"]] == [2, 3] and resumed["sessions"][1]["from_step"] == 2
    assert resumed["parent"] is None
    branch = train("branch.ckpt", MoELanguageModel(DECODER, PenaltyRouter), 1, BranchFrom("resumed.ckpt"))
    loaded = train("loaded.ckpt", MoELanguageModel.load_from_checkpoint("resumed.ckpt", weights_only=True), 1)
    for made in (branch, loaded):
        assert made["parent"]["path"] == "resumed.ckpt" and made["parent"]["step"] == 3
        assert made["parent"]["sha256"] == file_sha256(Path("resumed.ckpt"))
        assert made["parent"]["sessions"] == resumed["sessions"] and len(made["sessions"]) == 1
    again = train("again.ckpt", MoELanguageModel.load_from_checkpoint("branch.ckpt", weights_only=True), 1)
    assert again["parent"]["parent"]["path"] == "resumed.ckpt"
    assert shown(main, capsys, "first.ckpt", "again.ckpt")
    run(
        main,
        "fit",
        "--ckpt_path",
        "again.ckpt",
        "--trainer.max_steps",
        2,
        "--trainer.accelerator",
        "cpu",
        "--run",
        "on",
    )
    told = shown(main, capsys, "runs/moe/on")
    assert len(told["sessions"]) == 2 and told["parent"]["path"] == "branch.ckpt"


def test_a_checkpoint_without_a_record_tells_its_arguments(place, capsys):
    path = trained(Wider(8), digits(), place)
    saved = torch.load(path, weights_only=True)
    assert saved.pop("record")["sessions"][0]["step"] == 2
    torch.save(saved, path)
    assert shown(lit_valuation.cli.main, capsys, path)["config"]["model"]["init_args"]["width"] == 8
