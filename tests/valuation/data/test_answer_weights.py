"""`fit` with owners' answers that get a chosen share of the loss: as a naive loop, on two processes, and resumed."""

import json

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_valuation.callbacks import GradientMatching
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.data.module import OwnersDataModule
from lit_valuation.functional.mass import sample_weights
from lit_valuation.module import ClassifierTask
from lit_valuation.nn import MLP
from lit_valuation.samples import merge_samples
from lit_valuation.sources import Digits

pytestmark = pytest.mark.usefixtures("seeded")
GIVEN = {"first": [1.0, 2.0, 0.5, 0.0], "second": [1e300, 3e300]}


def write_answer(folder, samples, weights):
    write_labelled(folder, samples, source="", split="", licence="", origin="")
    manifest = {"format": "litshift-exchange", "version": 1, "keys": list(samples.keys), "weights": weights}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weighed") / "root"
    digits = Digits().samples()
    for split, rows in (("train", range(60)), ("val", range(60, 90))):
        write_labelled(folder / split, digits.take(rows), source="", split="", licence="", origin="")
    write_answer(folder.parent / "first", digits.take(range(90, 94)), GIVEN["first"])
    write_answer(folder.parent / "second", digits.take(range(94, 96)), GIVEN["second"])
    return folder


def data(root, **changes):
    given = {"extra": [str(root.parent / name) for name in GIVEN], "mass": 0.3, "weights": "manifest"}
    return OwnersDataModule(str(root), batch_size=32, **given | changes)


def task(kind=ClassifierTask):
    return kind(lambda shape, n: MLP(shape, n, hidden=[8]), "0123456789", (1, 8, 8), optimizer=sgd, seed=0)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def wanted():
    """The weights by hand: those of each answer with a mean of 1, and three tenths of the loss for both."""
    first = [weight / (3.5 / 4) for weight in GIVEN["first"]]
    return sample_weights(60, 0.3, torch.tensor([*first, 0.5, 1.5]))


def test_training_equals_a_naive_weighted_loss(root, quiet):
    model, module = task(), data(root)
    quiet(ResumeStream(), max_steps=4, max_epochs=-1, limit_val_batches=0).fit(model, datamodule=module)
    plain, weights = task(), wanted()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    everything = {key: value for key, value in module._train.batch(range(66)).items()}
    torch.testing.assert_close(everything["weight"], weights)
    assert float(weights[60:].sum() / weights.sum()) == pytest.approx(0.3)
    for step in range(4):
        rows = [module.stream.sample_index("train", n) for n in range(step * 32, step * 32 + 32)]
        losses = F.cross_entropy(plain(everything["x"][rows]), everything["y"][rows], reduction="none")
        optimizer.zero_grad()
        (sum(weights[row] * one for row, one in zip(rows, losses, strict=True)) / 32).backward()
        optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


class Kept(ClassifierTask):
    """Keeps its weights, whatever the processes."""

    path = None

    def on_train_end(self):
        if self.trainer.is_global_zero:
            torch.save(self.state_dict(), self.path / f"{self.trainer.world_size}.pt")


def test_two_processes_equal_one(root, quiet, tmp_path):
    Kept.path = tmp_path
    for devices in (1, 2):
        where = {"devices": devices, "strategy": "ddp_fork" if devices > 1 else "auto", "limit_val_batches": 0}
        quiet(ResumeStream(), max_steps=4, max_epochs=-1, **where).fit(task(Kept), datamodule=data(root))
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, 2))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-5, rtol=1e-4)


def test_a_resumed_run_ends_as_one_that_never_stopped(root, quiet, tmp_path):
    steps = {"max_epochs": -1, "limit_val_batches": 0}
    never = task()
    quiet(ResumeStream(), max_steps=6, **steps).fit(never, datamodule=data(root))
    saved = ModelCheckpoint(tmp_path, filename="model", every_n_train_steps=3, save_top_k=1)
    quiet(ResumeStream(), saved, max_steps=3, enable_checkpointing=True, **steps).fit(task(), datamodule=data(root))
    resumed = task()
    quiet(ResumeStream(), max_steps=6, **steps).fit(resumed, datamodule=data(root), ckpt_path=tmp_path / "model.ckpt")
    for ours, theirs in zip(resumed.parameters(), never.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_equal_weights_without_a_mass_leave_batches_as_they_were(root):
    plain = data(root, mass=None, weights="equal")
    assert set(plain._train.batch([0, 65])) == {"x", "y", "index"}
    assert plain._train.content != data(root)._train.content
    by_number = data(root, mass=None)._train.weights
    torch.testing.assert_close(by_number[:60], torch.ones(60))
    torch.testing.assert_close(by_number[64:], torch.tensor([0.5, 1.5]))


def test_evaluation_has_no_weights(root):
    module = data(root)
    module.setup("validate")
    assert "weight" not in next(iter(module.val_dataloader()["all"]))


class Deaf(ClassifierTask):
    """Does not say that it takes weights."""

    takes_weights = False


def test_what_would_be_ignored_is_refused(root, quiet):
    fit = quiet(ResumeStream(), max_steps=1, max_epochs=-1, limit_val_batches=0).fit
    with pytest.raises(UserError, match="`mass` weighs samples, but Deaf does not say that it takes weights"):
        fit(task(Deaf), datamodule=data(root))
    with pytest.raises(UserError, match=r"`mass` is 0\.3, but `extra` names no answers"):
        fit(task(), datamodule=OwnersDataModule(str(root), mass=0.3))
    with pytest.raises(UserError, match="`weights` is manifest, but `extra` names no answers"):
        fit(task(), datamodule=OwnersDataModule(str(root), weights="manifest"))
    choosing = quiet(ResumeStream(), GradientMatching(0.5), max_steps=1, max_epochs=-1, limit_val_batches=0)
    with pytest.raises(UserError, match="GradientMatching chooses others; leave out `mass` and `weights`"):
        choosing.fit(task(), datamodule=data(root))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": [1.0] * 3}, "does not have one weight per sample"),
        ({"weights": [1.0, 1.0, 1.0, -1.0]}, "has a negative weight"),
        ({"weights": [0.0] * 4}, "gives each of its samples a weight of 0"),
        ({"keys": ["a", "b", "c", "d"]}, "names other samples than it holds"),
        ({"weights": [1.0, 1.0, 1.0, "1"]}, r"weights\[\] is a text, but must be a number"),
        ({"version": 99}, "of version 99 of litshift-exchange"),
        (None, "has no manifest.json, so it is not an answer"),
    ],
)
def test_an_answer_whose_manifest_contradicts_itself_is_refused_by_name(root, tmp_path, change, words):
    samples = LabelledSet(root.parent / "first").load()
    write_answer(tmp_path / "odd", samples, GIVEN["first"])
    path = tmp_path / "odd/manifest.json"
    if change is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=f"odd.*{words}"):
        data(root, extra=[str(tmp_path / "odd")])._train  # noqa: B018


@pytest.mark.parametrize("weights", ["equal", "manifest"])
def test_copies_of_evaluation_samples_in_an_answer_are_not_trained_on(root, quiet, weights):
    digits = Digits().samples()
    write_labelled(root.parent / "own/train", digits.take(range(60)), source="", split="", licence="", origin="")
    for split, rows in (("val", range(60, 90)), ("test", range(90, 120))):
        write_labelled(root.parent / "own" / split, digits.take(rows), source="", split="", licence="", origin="")
    honest, taken = digits.take([200, 201]), digits.take([61, 95])
    mixed = merge_samples([taken.take([0]), honest, taken.take([1])])
    write_answer(root.parent / "mixed", mixed, [9.0, 1.0, 3.0, 9.0])
    write_answer(root.parent / "copies", taken, [1.0, 1.0])
    module = OwnersDataModule(str(root.parent / "own"), extra=[str(root.parent / "mixed")], mass=0.5, weights=weights)
    with pytest.warns(UserWarning, match=r"2 of the 4 samples of .*mixed are in your val or test \(2 equal, 0"):
        train = module._train
    batch = train.batch([0, 60, 61])
    assert len(train) == 62 and torch.equal(batch["x"][1:], honest.inputs()) and torch.equal(batch["y"][1:], honest.y)
    expected = sample_weights(60, 0.5, torch.tensor([1.0, 1.0] if weights == "equal" else [0.5, 1.5]))
    torch.testing.assert_close(train.weights, expected)
    with pytest.raises(UserError, match="hold all 2 of its samples"):
        _ = OwnersDataModule(str(root.parent / "own"), extra=[str(root.parent / "copies")])._train
