import csv

import lightning.pytorch as pl
import pytest
import torch
from digits_data import DigitsData, DigitTags, PlainDigits, digits
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.nn import functional as F

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_valuation.callbacks import GradientMatching
from lit_valuation.data.weighted_subset import draw_by_weight
from lit_valuation.functional.pursuit import matching_pursuit
from lit_valuation.last_layer import gather_gradients
from lit_valuation.module import ClassifierTask
from lit_valuation.nn import MLP, TokenConvNet
from lit_valuation.selectors import split_budget
from lit_valuation.tagging import TaggingTask

pytestmark = pytest.mark.usefixtures("seeded")


class Witness(Callback):
    """Keeps what is trained on."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.epochs.append([])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.epochs:  # resumed in the middle of an epoch
            self.epochs.append([])
        self.epochs[-1].append(batch)


class Foreign(pl.LightningModule):
    """Somebody else's classifier: pairs, its own loss, no weights, named as they like."""

    def __init__(self, last=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        self.last = last or nn.Identity()

    def forward(self, x):
        return self.last(self.layers(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def task(**arguments):
    return ClassifierTask(lambda shape, classes: MLP(shape, classes, [16]), "0123456789", (1, 8, 8), **arguments)


def test_the_selection_is_that_of_one_pursuit_per_class(quiet):
    model, matching = task(label_smoothing=0.1), GradientMatching(40)
    pool = [digits()[0][:300], digits()[1][:300]]
    before = gather_gradients(model, [pool], label_smoothing=0.1)
    quiet(ResumeStream(), matching, max_epochs=1).fit(model, datamodule=DigitsData())
    numbers, weights = [], []
    for c, budget in sorted(split_budget(40, before.y, before.y).items()):
        target = before.gradients.take((before.y == c).nonzero()[:, 0]).sum()
        found = matching_pursuit(before.gradients, target, budget, allowed=before.y == c)
        numbers.append(found.support[found.weights > 0])
        weights.append(found.weights[found.weights > 0])
    assert torch.equal(matching.numbers, torch.cat(numbers))
    together = torch.cat(weights)
    torch.testing.assert_close(matching.weights, (together / together.mean()).float())


def test_an_epoch_is_one_pass_over_the_chosen_samples_with_their_weights(quiet):
    matching, witness = GradientMatching(48), Witness()
    quiet(ResumeStream(), matching, witness, max_epochs=3).fit(task(), datamodule=DigitsData())
    size = len(matching.numbers)
    assert size <= 48 and len(matching.numbers.unique()) == size and len(witness.epochs) == 3
    weight_of = dict(zip(matching.numbers.tolist(), matching.weights.tolist(), strict=True))
    x, y = digits()
    seen = []
    for epoch in witness.epochs:
        assert len(epoch) == -(-size // 32) * 2  # two micro-batches of 16 in a step
        for batch in epoch:
            assert torch.equal(batch["x"], x[batch["index"]]) and torch.equal(batch["y"], y[batch["index"]])
            assert batch["weight"].tolist() == pytest.approx([weight_of[number] for number in batch["index"].tolist()])
            seen += batch["index"].tolist()
    assert sorted(seen[:size]) == sorted(seen[size : 2 * size]) == sorted(weight_of)
    assert seen[:size] != seen[size : 2 * size]


def test_everything_is_trained_on_before_the_chosen_step(quiet):
    matching, witness = GradientMatching(0.1, at_step=5), Witness()
    quiet(ResumeStream(), matching, witness, max_epochs=3).fit(task(), datamodule=DigitsData())
    assert [len(epoch) for epoch in witness.epochs] == [20, 2, 2]
    assert matching._made == {"count": 1, "epoch": 1, "step": 10}


@pytest.mark.parametrize("match", ["val", "hard"])
def test_the_validation_set_or_its_mistakes_are_matched(quiet, match):
    model, matching = task(), GradientMatching(30, match=match, source="held_out")
    x, y = (part[300:503] for part in digits())
    with torch.no_grad():
        wrong = model.eval()(x).argmax(1) != y
    chosen = wrong if match == "hard" else wrong | True
    target = gather_gradients(model, [(x[chosen], y[chosen])])
    pool = gather_gradients(model, [(digits()[0][:300], digits()[1][:300])])
    quiet(ResumeStream(), matching, max_epochs=1).fit(model, datamodule=DigitsData())
    expected = []
    for c, budget in sorted(split_budget(30, pool.y, target.y).items()):
        b = target.gradients.take((target.y == c).nonzero()[:, 0]).sum()
        found = matching_pursuit(pool.gradients, b, budget, allowed=pool.y == c)
        expected += found.support[found.weights > 0].tolist()
    assert matching.numbers.tolist() == expected


def test_loaders_that_lightning_replaces_too_are_refused(quiet):
    with pytest.raises(UserError, match=r"reload_dataloaders_every_n_epochs` is 1, but GradientMatching trains on"):
        quiet(GradientMatching(60), reload_dataloaders_every_n_epochs=1).fit(Foreign(), datamodule=PlainDigits())


def test_in_a_foreign_module_samples_are_drawn_by_weight(quiet):
    matching, witness = GradientMatching(60, every_n_epochs=100), Witness()
    quiet(matching, witness, max_epochs=40).fit(Foreign(), datamodule=PlainDigits())
    x = digits()[0][:300].flatten(1)
    batches = [batch for epoch in witness.epochs for batch in epoch]
    assert all(isinstance(batch, list) and batch[0].shape == (16, 1, 8, 8) for batch in batches)
    seen = torch.cat([torch.cdist(batch[0].flatten(1), x).argmin(1) for batch in batches])
    drawn_share = torch.bincount(seen, minlength=300)[matching.numbers] / len(seen)
    wanted = matching.weights / matching.weights.sum()
    assert set(seen.tolist()) <= set(matching.numbers.tolist())
    assert (drawn_share - wanted).abs().max() < 0.005


def test_a_draw_has_each_sample_as_often_as_its_weight_rounded_up_or_down():
    weights = torch.tensor([0.0, 3.0, 1.5, 1.0, 0.1])
    counts = torch.stack(
        [torch.bincount(torch.tensor(draw_by_weight(weights, 0, epoch)), minlength=5) for epoch in range(400)]
    )
    expected = 5 * weights / weights.sum()
    assert bool(((counts >= expected.floor()) & (counts <= expected.ceil())).all())
    torch.testing.assert_close(counts.float().mean(0), expected, atol=0.06, rtol=0)


def test_a_foreign_module_without_a_data_module(quiet):
    data, matching = PlainDigits(), GradientMatching(0.2, pool=PlainDigits().selection_dataloader())
    quiet(matching).fit(Foreign(), data.train_dataloader(), data.val_dataloader())
    assert 0 < len(matching.numbers) <= 60


def test_what_it_logs(quiet, tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    callbacks = [ResumeStream(), GradientMatching(40, every_n_epochs=2)]
    quiet(*callbacks, logger=logger, log_every_n_steps=1, max_epochs=3).fit(task(), datamodule=DigitsData())
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/selection/size"]]
    assert [row["step"] for row in rows] == ["0", "4"]
    values = [{key.rpartition("/")[2]: float(row[key]) for key in row if "selection" in key} for row in rows]
    assert values[0]["overlap"] == 0 < values[1]["overlap"] < 1
    for value in values:
        assert 0 < value["relative_residual"] < 1 and value["size"] <= 40 and value["class_coverage"] == 1
        assert value["seconds"] > 0


def test_images_are_shown_only_when_asked_for(quiet, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for shown in (0, 6):
        logger = TensorBoardLogger(tmp_path / str(shown), name="", version="")
        matching = GradientMatching(40, show_samples=shown)
        quiet(ResumeStream(), matching, logger=logger, max_epochs=1).fit(task(), datamodule=DigitsData())
        tags = EventAccumulator(str(tmp_path / str(shown))).Reload().Tags()["images"]
        assert tags == (["train/selection/samples"] if shown else [])


@pytest.mark.parametrize("every", [3, 4])
def test_a_resumed_run_is_the_run_that_was_never_stopped(quiet, tmp_path, every):
    """Stopped in the middle of an epoch of 3 steps, or at its end."""

    def run(*callbacks, steps=10, path=None):
        torch.manual_seed(0)
        model, matching = task(), GradientMatching(80, every_n_epochs=2)
        arguments = {
            "max_steps": steps,
            "max_epochs": -1,
            "enable_checkpointing": bool(callbacks),
            "limit_val_batches": 0,
        }
        trainer = quiet(ResumeStream(), matching, *callbacks, **arguments)
        trainer.fit(model, datamodule=DigitsData(), ckpt_path=path, weights_only=True)
        return model, matching

    whole, selection = run()
    run(ModelCheckpoint(tmp_path, filename="stopped", every_n_train_steps=every), steps=every)
    resumed, again = run(path=tmp_path / "stopped.ckpt")
    assert torch.equal(again.numbers, selection.numbers) and torch.equal(again.weights, selection.weights)
    assert again._made == selection._made and selection._made["count"] == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


class Alternating(Foreign):
    """A module that steps its two optimizers itself: in turns, or the second one in every other batch."""

    takes_weights = True

    def __init__(self, turns):
        super().__init__()
        self.automatic_optimization, self.turns = False, turns
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def training_step(self, batch, batch_idx):
        even = int(self.batches) % 2 == 0
        self.batches += 1
        first, second = self.optimizers()
        loss = F.cross_entropy(self(batch["x"]), batch["y"], reduction="none")
        self.manual_backward((loss * batch.get("weight", 1)).mean())
        for optimizer, steps in ((first, even or not self.turns), (second, not even)):
            if steps:
                optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        return [torch.optim.SGD(self.layers[index].parameters(), lr=0.1) for index in (1, 3)]


@pytest.mark.parametrize("turns", [True, False])
def test_optimizers_that_do_not_all_step_in_each_batch(quiet, tmp_path, turns):
    """Each epoch is one pass over the selection, and a resumed run is the run that was never stopped."""

    path = tmp_path / "stopped.ckpt"

    class Save(Callback):
        def on_train_batch_end(self, trainer, pl_module, *ignored):
            if int(pl_module.batches) == 5:  # in the middle of the second epoch of three batches
                trainer.save_checkpoint(path)

    def run(*callbacks, path=None):
        torch.manual_seed(0)
        model, matching, witness = Alternating(turns), GradientMatching(80, every_n_epochs=2), Witness()
        trainer = quiet(ResumeStream(), matching, witness, *callbacks, max_epochs=4, limit_val_batches=0)
        trainer.fit(model, datamodule=DigitsData(micro_batch_size=32), ckpt_path=path, weights_only=True)
        return model, matching, [[batch["index"].tolist() for batch in epoch] for epoch in witness.epochs]

    whole, selection, seen = run(Save())
    assert [len(epoch) for epoch in seen] == [3] * 4
    size = len(selection.numbers)
    for epochs in (seen[:2], seen[2:]):
        order = [index for epoch in epochs for batch in epoch for index in batch]
        assert len(set(order[:size])) == size and sorted(order[:size]) == sorted(order[size : 2 * size])
    resumed, again, rest = run(path=path)
    assert rest == [seen[1][2:], *seen[2:]]
    assert torch.equal(again.numbers, selection.numbers) and again._made == selection._made
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.parametrize("match", ["train", "hard"])
def test_two_processes_equal_one(quiet, tmp_path, match):
    class Kept(Callback):
        def on_train_end(self, trainer, pl_module):
            if trainer.is_global_zero:
                kept = {"weights": pl_module.state_dict(), "numbers": matching.numbers, "of": matching.weights}
                torch.save(kept, tmp_path / f"{trainer.world_size}.pt")

    for devices, micro in ((1, 8), (2, 8)):
        torch.manual_seed(0)
        model, matching = task(), GradientMatching(50, match=match, every_n_epochs=2)
        arguments = {"devices": devices, "strategy": "ddp_fork" if devices > 1 else "auto", "max_epochs": 4}
        trainer = quiet(ResumeStream(), matching, Kept(), **arguments)
        trainer.fit(model, datamodule=DigitsData(micro_batch_size=micro))
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, 2))
    assert torch.equal(one["numbers"], two["numbers"])
    torch.testing.assert_close(one["of"], two["of"], atol=1e-4, rtol=1e-3)
    for name in one["weights"]:
        torch.testing.assert_close(two["weights"][name], one["weights"][name], atol=2e-5, rtol=1e-3)


def test_two_processes_share_a_foreign_loader(quiet, tmp_path):
    class Kept(Callback):
        def on_train_end(self, trainer, pl_module):
            if trainer.is_global_zero:
                torch.save(matching.numbers, tmp_path / f"{trainer.world_size}.pt")

    for devices in (1, 2):
        torch.manual_seed(0)
        matching = GradientMatching(50, match="val")
        arguments = {"devices": devices, "strategy": "ddp_fork" if devices > 1 else "auto", "max_epochs": 1}
        quiet(matching, Kept(), **arguments).fit(Foreign(), datamodule=PlainDigits())
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, 2))
    assert torch.equal(one, two)


class Perfect(DigitsData):
    """Validates on samples that any model gets right: those that this one does."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def val_dataloader(self):
        loader = super().val_dataloader()["held_out"]
        part = loader.stream.source
        with torch.no_grad():
            right = self.model.eval()(part.x).argmax(1) == part.y
        part.x, part.y = part.x[right], part.y[right]
        return loader


def nan_weights(model):
    model.network.head.weight.data[0, 0] = torch.nan
    return model


@pytest.mark.parametrize(
    ("matching", "make", "words"),
    [
        (
            lambda: GradientMatching(10),
            lambda: (Foreign(nn.LogSoftmax(1)), PlainDigits()),
            "that of its last nn.Linear",
        ),
        (lambda: GradientMatching(10), lambda: (nan_weights(task()), DigitsData()), "is not finite"),
        (
            lambda: GradientMatching(301),
            lambda: (task(), DigitsData()),
            r"budget` is 301, .* has 300 samples",
        ),
        (lambda: GradientMatching(0), None, r"budget` is 0"),
        (lambda: GradientMatching(1.5), None, r"budget` is 1.5"),
        (lambda: GradientMatching(every_n_epochs=0), None, "every_n_epochs is 0"),
        (lambda: GradientMatching(source="all"), None, "set match to val or hard"),
        (
            lambda: GradientMatching(match="val", source="held-out"),
            lambda: (task(), DigitsData()),
            'Did you mean "held_out"',
        ),
        (
            lambda: GradientMatching(10, pool=PlainDigits().part(0, 10, batch_size=4)),
            lambda: (Foreign(), PlainDigits()),
            None,
        ),
    ],
)
def test_bad_input_is_one_sentence(quiet, matching, make, words):
    def go():
        callback = matching()
        model, data = make()
        quiet(ResumeStream(), callback, max_epochs=1).fit(model, datamodule=data)

    if words is None:
        go()
    else:
        with pytest.raises(UserError, match=words):
            go()


def test_no_mistakes_on_the_validation_set_is_said(quiet):
    model = task()
    with pytest.raises(UserError, match="The model makes no mistakes on the validation set"):
        quiet(ResumeStream(), GradientMatching(10, match="hard"), max_epochs=1).fit(model, datamodule=Perfect(model))


def test_a_view_is_needed(quiet):
    data = PlainDigits()
    with pytest.raises(UserError, match="there is no selection_dataloader; define it"):
        quiet(GradientMatching(10), max_epochs=1).fit(Foreign(), data.train_dataloader(), data.val_dataloader())


@pytest.mark.parametrize("match", ["train", "hard"])
def test_texts_with_a_tag_per_token_are_chosen(match, quiet):
    matching = GradientMatching(budget=20, match=match)
    witness = Witness()
    task = TaggingTask(TokenConvNet((64,), 2, 17, width=4, hidden=(4,)), ("paper", "ink"), (64,))
    quiet(matching, witness, max_epochs=1).fit(task, datamodule=DigitTags())
    assert matching.numbers is not None and 1 <= len(matching.numbers) <= 20
    seen = {int(index) for batch in witness.epochs[0] for index in batch["index"]}
    assert seen == set(matching.numbers.tolist())
