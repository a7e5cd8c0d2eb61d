import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from lit_core.errors import UserError
from lit_moe.callbacks import Forgetting, ReplayMixing


def losses_of(model, data):
    """Validation losses of each source by a plain loop."""
    values = {}
    model.eval()
    for name, source in data.sources(30).items():
        rows = [source[index] for index in range(30)]
        batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        with torch.no_grad():
            values[name] = float(model.nll(batch)[0].mean())
    model.train()
    return values


class SaveAfterValidation(Callback):
    """Keeps the newest checkpoint of a validation's end."""

    def __init__(self, path):
        self.path = path

    def on_validation_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path)


def test_forgetting_is_the_loss_now_minus_before(byte_model, byte_data, make_trainer, read_metrics):
    model, data = byte_model(), byte_data()
    before = losses_of(model, data)
    callback = Forgetting(["old"], ["new"])
    make_trainer(callback, ReplayMixing(0.25), max_steps=6, val_check_interval=12).fit(model, datamodule=data)
    after = losses_of(model, data)
    metrics = read_metrics()
    assert [step for step, _ in metrics["val/old/forgetting"]] == [0, 2, 5]
    assert metrics["val/old/loss"][0][1] == pytest.approx(before["old"], rel=1e-5)
    assert metrics["val/old/forgetting"][0][1] == metrics["val/new/adaptation"][0][1] == 0
    assert metrics["val/old/forgetting"][-1][1] == pytest.approx(after["old"] - before["old"], abs=1e-5)
    assert metrics["val/new/adaptation"][-1][1] == pytest.approx(before["new"] - after["new"], abs=1e-5)
    assert metrics["val/new/adaptation"][-1][1] > 0
    assert not [key for key in metrics if "bits_per_byte" in key or key == "val/tokens"]


def test_costs_are_noted_with_each_validation(byte_model, byte_data, make_trainer, read_metrics):
    class Counting(byte_model):
        train_tokens = property(lambda self: self.trainer.global_step * 128)
        train_flops = property(lambda self: self.trainer.global_step * 1e6)

    callback = Forgetting(["old"], ["new"])
    trainer = make_trainer(callback, ReplayMixing(0.25), max_steps=6, val_check_interval=8)
    trainer.fit(Counting(), datamodule=byte_data())
    metrics = read_metrics()
    assert [value for _, value in metrics["val/tokens"]] == [0, 256, 512, 768]
    new = [value for _, value in metrics["val/new/loss"]]
    assert new[2] < new[1] < new[0]
    between = (new[1] + new[2]) / 2
    assert callback.cost_to_reach("new", between) == {"step": 4, "tokens": 512, "flops": 4e6}
    assert callback.cost_to_reach("new", new[0])["step"] == 0
    assert callback.cost_to_reach("new", 0.0) is None


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("bar", [None, TQDMProgressBar, RichProgressBar])
def test_training_is_the_same_with_and_without(byte_model, byte_data, make_trainer, read_metrics, sanity, bar):
    class Order(Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.seen.append((batch_idx, trainer.global_step, torch.rand(()).item(), batch["index"].tolist()))

    results = []
    for name, own in (("without", []), ("with", [Forgetting(["old"], ["new"])])):
        model, order = byte_model(), Order()
        if bar is RichProgressBar:
            pytest.importorskip("rich")
        callbacks = [*own, ReplayMixing(0.25), order, *([bar()] if bar else [])]
        settings = {"val_check_interval": 8, "num_sanity_val_steps": sanity, "enable_progress_bar": bar is not None}
        trainer = make_trainer(*callbacks, name=name, **settings)
        trainer.fit(model, datamodule=byte_data())
        weights = torch.cat([parameter.flatten() for parameter in model.parameters()])
        results.append((weights, order.seen, trainer.global_step, trainer.fit_loop.state_dict()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1:3] == results[1][1:3]
    assert results[0][3] == results[1][3]
    without, with_it = read_metrics("without"), read_metrics("with")
    assert with_it["val/old/loss"][1:] == without["val/old/loss"]


def test_a_resumed_run_compares_with_the_same_losses(byte_model, byte_data, make_trainer, read_metrics, tmp_path):
    def run(name, steps, *callbacks, ckpt_path=None):
        model = byte_model()
        trainer = make_trainer(
            Forgetting(["old"], ["new"]),
            ReplayMixing(0.25),
            *callbacks,
            name=name,
            max_steps=steps,
            val_check_interval=4,
        )
        trainer.fit(model, datamodule=byte_data(), ckpt_path=ckpt_path, weights_only=True)
        return model

    whole = run("whole", 6)
    run("first", 3, SaveAfterValidation(tmp_path / "stopped.ckpt"))
    resumed = run("second", 6, ckpt_path=tmp_path / "stopped.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name])
    expected, rest = read_metrics("whole"), read_metrics("second")
    for key in ("val/old/forgetting", "val/new/adaptation", "val/old/loss"):
        assert rest[key] == expected[key][-len(rest[key]) :] and len(rest[key]) == 3


def test_a_checkpoint_without_losses_before_the_shift_is_refused(byte_model, byte_data, make_trainer, tmp_path):
    trainer = make_trainer(ReplayMixing(0.25), max_steps=1, limit_val_batches=0)
    trainer.fit(byte_model(), datamodule=byte_data())
    trainer.save_checkpoint(tmp_path / "stopped.ckpt")
    again = make_trainer(ReplayMixing(0.25), Forgetting(["old"], ["new"]), name="again")
    with pytest.raises(UserError, match="branch_from"):
        again.fit(byte_model(), datamodule=byte_data(), ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)


def test_the_state_is_plain(byte_model, byte_data, make_trainer, tmp_path):
    trainer = make_trainer(ReplayMixing(0.25), Forgetting(["old"], ["new"]), max_steps=1)
    trainer.fit(byte_model(), datamodule=byte_data())
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    state = torch.load(tmp_path / "model.ckpt", weights_only=True)["callbacks"]["Forgetting"]
    assert state["baseline"].keys() == {"old/loss", "new/loss"}


def test_without_validation_it_is_refused(byte_model, byte_data, make_trainer):
    with pytest.raises(UserError, match="validation"):
        make_trainer(ReplayMixing(0.25), Forgetting(["old"], ["new"]), limit_val_batches=0).fit(
            byte_model(), datamodule=byte_data()
        )


def test_an_unknown_source_is_named(byte_model, byte_data, make_trainer):
    with pytest.raises(UserError, match=r"val/odl/loss.*Did you mean"):
        make_trainer(ReplayMixing(0.25), Forgetting(["odl"], ["new"])).fit(byte_model(), datamodule=byte_data())


@pytest.mark.parametrize(("old", "new"), [([], ["a"]), (["a"], ["a", "b"])])
def test_arguments_are_checked(old, new):
    with pytest.raises(UserError):
        Forgetting(old, new)


def test_two_processes_agree(byte_model, byte_data, make_trainer, read_metrics):
    for name, arguments in (
        ("one", {"val_check_interval": 4}),
        ("two", {"val_check_interval": 2, "devices": 2, "strategy": "ddp_fork"}),
    ):
        trainer = make_trainer(Forgetting(["old"], ["new"]), ReplayMixing(0.25), name=name, **arguments)
        trainer.fit(byte_model(), datamodule=byte_data())
    one, two = read_metrics("one"), read_metrics("two")
    for key in ("val/old/forgetting", "val/new/adaptation"):
        assert [v for _, v in two[key]] == pytest.approx([v for _, v in one[key]], abs=1e-5) and len(one[key]) == 4


def test_a_second_run_compares_with_its_own_losses(byte_model, byte_data, make_trainer):
    callback, seen = Forgetting(["old"], ["new"]), []
    for _ in range(2):
        model, data = byte_model(), byte_data()
        with torch.no_grad():
            next(model.parameters()).mul_(1 + len(seen))
        before = losses_of(model, data)
        make_trainer(callback, ReplayMixing(0.25), max_steps=2).fit(model, datamodule=data)
        assert callback.baseline["old/loss"] == pytest.approx(before["old"], rel=1e-5)
        seen.append([cost["step"] for cost in callback.costs])
    assert seen[0] == seen[1]
