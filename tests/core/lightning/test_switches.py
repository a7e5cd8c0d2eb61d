"""Every argument of Lightning's Trainer and every callback of Lightning has a place in the tables of `switches`."""

import inspect
import json
import logging
import sys
from pathlib import Path

import pytest
from byte_run import ByteData, ByteModel
from lightning.pytorch import Callback, Trainer, callbacks
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from lit_core.callbacks import ReplayMixing
from lit_core.errors import UserError
from lit_core.lightning.switches import CALLBACKS, TRAINER

sys.path.append(str(Path(__file__).parents[1] / "cli"))
import small_cli


class Samples(Callback):
    """Keeps which samples each micro-batch was trained on."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(list(zip(batch["source"].tolist(), batch["index"].tolist(), strict=True)))


@pytest.fixture
def samples(make_trainer):
    """Trains on two sources for three steps of four micro-batches, and returns the samples of each."""

    def train(*more, data=ByteData, **switches):
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        seen = Samples()
        trainer = make_trainer(ReplayMixing(0.25), seen, *more, limit_val_batches=0, **switches)
        trainer.fit(ByteModel(), datamodule=data())
        return seen.seen

    return train


def test_every_argument_of_the_trainer_and_every_callback_is_placed():
    assert TRAINER.keys() == inspect.signature(Trainer).parameters.keys()
    assert CALLBACKS.keys() == set(callbacks.__all__)


class NewStreams(ByteData):
    """Makes a stream of its own for each loader."""

    def train_dataloader(self):
        self.setup("fit")
        return super().train_dataloader()


class Growing(NewStreams):
    """Has more samples each time."""

    length = 16

    def sources(self, limit):
        self.limit = getattr(self, "limit", 100) + 10
        return super().sources(self.limit)


@pytest.mark.parametrize("data", [ByteData, NewStreams])
def test_a_reloaded_loader_goes_on_in_the_stream(samples, data):
    whole = samples(max_epochs=-1)
    assert len({sample for batch in whole for sample in batch}) == 24
    reloaded = samples(max_epochs=-1, data=data, limit_train_batches=4, reload_dataloaders_every_n_epochs=1)
    assert reloaded == whole


def test_a_reloaded_loader_of_other_samples_is_refused(samples):
    with pytest.raises(UserError, match=r"source 'new' has \d+ samples, but had \d+ before"):
        samples(max_epochs=-1, data=Growing, limit_train_batches=4, reload_dataloaders_every_n_epochs=1)


def test_a_foreign_project_gets_the_refusal_too(samples):
    with pytest.raises(UserError, match=r"`trainer\.overfit_batches` is 4, but a stream goes on"):
        samples(overfit_batches=4)
    with pytest.raises(
        UserError, match=r"`trainer\.callbacks` has GradientAccumulationScheduler, but global_batch_size"
    ):
        samples(GradientAccumulationScheduler({0: 4}))


def test_loaders_that_are_given_to_fit_are_refused_too(samples, make_trainer):
    data = ByteData()
    data.trainer = trainer = make_trainer(overfit_batches=4)
    data.setup("fit")
    with pytest.raises(UserError, match=r"`trainer\.overfit_batches` is 4, but a stream goes on"):
        trainer.fit(ByteModel(), data.train_dataloader())


#: A value for each refused argument, arguments for each refused callback.
SWITCHES = {"overfit_batches": 1}
BUILT_FROM = {
    "BatchSizeFinder": {},
    "GradientAccumulationScheduler": {"scheduling": {0: 4}},
    "LearningRateFinder": {},
    "ModelPruning": {"pruning_fn": "l1_unstructured"},
    "SpikeDetection": {},
    "StochasticWeightAveraging": {"swa_lrs": 0.1},
}


def refused(table):
    return {name for name, use in table.items() if use.verdict == "refused"}


def test_each_refused_one_is_tried():
    assert (refused(TRAINER), refused(CALLBACKS)) == (SWITCHES.keys(), BUILT_FROM.keys())


@pytest.mark.parametrize("name", [*SWITCHES, *BUILT_FROM, "gradient_clip_val"])
def test_a_refused_one_is_one_sentence_before_anything_is_written(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flag = f"--trainer.{name}={SWITCHES.get(name, -1)}"
    if name in BUILT_FROM:
        callback = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": BUILT_FROM[name]}
        flag = f"--trainer.callbacks={json.dumps([callback])}"
    assert small_cli.main(["fit", "--model=small_cli.SmallModel", "--data=small_cli.SmallData", flag]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-small: ")]
    assert len(lines) == 1 and name in lines[0] and lines[0].endswith(".")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["fit", "predict"])
@pytest.mark.parametrize("name", [name for name, use in CALLBACKS.items() if use.verdict == "only a base"])
def test_a_base_alone_is_one_sentence(name, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    writes = {"write_interval": "batch"} if name == "BasePredictionWriter" else {}
    added = json.dumps([{"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": writes}])
    parts = ["--model=small_cli.SmallModel", "--data=small_cli.SmallData"]
    assert small_cli.main([command, *parts, f"--trainer.callbacks={added}"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lit-small: ")]
    assert lines == [
        f"lit-small: `trainer.callbacks` has {name}, which is only a base of callbacks; name the class of yours that "
        "is derived from it."
    ]
    assert not list(tmp_path.iterdir())


def test_a_callback_that_defines_each_hook_without_a_body_is_only_a_base():
    """Lightning marks its bases nowhere; what they leave open raises NotImplementedError."""
    open_ = {
        name
        for name in callbacks.__all__
        if any("raise NotImplementedError\n" in source(method) for method in vars(getattr(callbacks, name)).values())
    }
    assert open_ <= {name for name, use in CALLBACKS.items() if use.verdict == "only a base"} and open_


def source(method):
    return inspect.getsource(method).replace("Error()", "Error") if inspect.isfunction(method) else ""


def test_the_page_shows_the_tables():
    text = (Path(__file__).parents[3] / "docs" / "switches.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    uses = [*TRAINER.items(), *CALLBACKS.items()]
    assert rows == [f"| `{name}` | {use.verdict} | {use.how} |" for name, use in uses]
