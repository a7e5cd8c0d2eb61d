from functools import partial

import pytest
import torch
from digits_data import DigitsData, digits
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_core.lightning.schedules import WarmupCosine
from lit_valuation.module import ClassifierTask
from lit_valuation.nn import ConvNet

NAMES = "0123456789"
pytestmark = pytest.mark.usefixtures("seeded")


def task(**arguments):
    return ClassifierTask(lambda shape, classes: ConvNet(shape, classes, [4], 16), NAMES, (1, 8, 8), **arguments)


def test_the_loss_is_weighted_and_smoothed():
    model, (x, y) = task(label_smoothing=0.2), (part[:12] for part in digits())
    weight = torch.rand(12) * 2
    each = F.cross_entropy(model(x), y, label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(model.training_step({"x": x, "y": y, "weight": weight}, 0), (each * weight).mean())
    torch.testing.assert_close(model.training_step((x, y), 0), each.mean())


def test_the_weights_come_from_the_seed_and_leave_the_global_rng_alone():
    state = torch.random.get_rng_state()
    first, again, other = (task(seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["network.head.weight"], other["network.head.weight"])


def test_images_in_bytes_are_scaled():
    model, x = task(), (digits()[0][:3] * 255).to(torch.uint8)
    torch.testing.assert_close(model(x), model(x / 255))


def test_weights_of_16_bits_train_and_learn(quiet):
    model = task(optimizer=partial(torch.optim.AdamW, lr=1e-2))
    trainer = quiet(ResumeStream(), precision="bf16-true", max_epochs=10)
    before = trainer.validate(model, datamodule=DigitsData(), verbose=False)[0]
    trainer.fit(model, datamodule=DigitsData())
    assert model.network.head.weight.dtype == torch.bfloat16
    after = trainer.validate(model, datamodule=DigitsData(), verbose=False)[0]
    assert after["val/held_out/loss"] < 0.9 * before["val/held_out/loss"]


def test_validation_counts_each_sample_once(quiet):
    model, data = task(hard_classes=["8"]), DigitsData()
    [values] = quiet(ResumeStream()).validate(model, datamodule=data, verbose=False)
    x, y = (part[300:503] for part in digits())
    with torch.no_grad():
        logits = model(x)
    right = logits.argmax(1) == y
    expected = {
        "val/held_out/loss": float(F.cross_entropy(logits, y)),
        "val/held_out/accuracy": float(right.float().mean()),
        "val/held_out/hard_accuracy": float(right[y == 8].float().mean()),
        "val/held_out/recall/8": float(right[y == 8].float().mean()),
    }
    assert values == pytest.approx(expected, rel=1e-5)


def test_momentum_and_a_schedule_with_warm_up(quiet):
    rates = []

    class Watched(ClassifierTask):
        def on_before_optimizer_step(self, optimizer):
            rates.append(optimizer.param_groups[0]["lr"])
            super().on_before_optimizer_step(optimizer)

    model = Watched(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        NAMES,
        (1, 8, 8),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.4, momentum=0.9),
        scheduler=lambda optimizer: WarmupCosine(optimizer, 8, warmup=0.25),
    )
    quiet(ResumeStream(), max_steps=8, max_epochs=-1).fit(model, datamodule=DigitsData())
    assert rates[:3] == pytest.approx([0, 0.2, 0.4]) and rates[2:] == sorted(rates[2:], reverse=True)


def test_two_processes_equal_one_that_accumulates(quiet, tmp_path):
    class Kept(ClassifierTask):
        def on_train_end(self):
            if self.trainer.is_global_zero:
                metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
                kept = {"weights": self.state_dict(), "metrics": metrics}
                torch.save(kept, tmp_path / f"{self.trainer.world_size}.pt")

    for devices in (1, 2):
        model = Kept(lambda shape, classes: ConvNet(shape, classes, [4], 16), NAMES, (1, 8, 8), hard_classes=["3"])
        arguments = {"devices": devices, "strategy": "ddp_fork" if devices > 1 else "auto", "log_every_n_steps": 1}
        quiet(ResumeStream(), logger=True, max_epochs=1, **arguments).fit(model, datamodule=DigitsData())
    one, two = (torch.load(tmp_path / f"{devices}.pt", weights_only=True) for devices in (1, 2))
    assert "val/held_out/recall/3" in one["metrics"] and "train/accuracy" in one["metrics"]
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    for name, weight in one["weights"].items():
        torch.testing.assert_close(two["weights"][name], weight, atol=2e-5, rtol=1e-4)


def test_the_checkpoint_is_plain_and_of_its_classes_only(quiet, tmp_path):
    saved = ModelCheckpoint(tmp_path, filename="model", every_n_train_steps=2)
    trainer = quiet(ResumeStream(), saved, enable_checkpointing=True, max_steps=2, max_epochs=-1)
    trainer.fit(task(), datamodule=DigitsData())
    path = tmp_path / "model.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert (checkpoint["classes"], checkpoint["input_shape"]) == (list(NAMES), [1, 8, 8])
    assert "network.head.weight" in checkpoint["optimizer_param_names"][0]
    other = ClassifierTask(lambda shape, classes: ConvNet(shape, classes, [4], 16), "abcdefghij", (1, 8, 8))
    with pytest.raises(UserError, match="checkpoint was trained on the classes 0, 1"):
        quiet().test(other, datamodule=DigitsData(names="abcdefghij"), ckpt_path=path, weights_only=True)
    with pytest.raises(UserError, match="The data have the classes a, b"):
        quiet().test(task(), datamodule=DigitsData(names="abcdefghij"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing` is 1.0"),
        ({"hard_classes": ["ten"]}, "hard_classes` names 'ten'"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        task(**arguments)
