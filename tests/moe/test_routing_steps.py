"""Routers that learn from whole optimizer steps, under Lightning: on two devices, saved, and in every precision."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_core.errors import UserError
from lit_moe.callbacks import RouterBalance
from lit_moe.nn import BiasRouter, PenaltyRouter, step_routers


def bias(n_experts, top_k):
    return BiasRouter(n_experts, top_k, update_rate=0.05)


def penalty(n_experts, top_k):
    return PenaltyRouter(n_experts, top_k, balance_weight=0.5, scope="global_batch")


class Choices(Callback):
    """Keeps the experts that each router chose in training, by hooks, without looking at its counts."""

    def __init__(self):
        self.steps = []

    def setup(self, trainer, pl_module, stage):
        for layer, block in enumerate(pl_module.blocks):
            block.router.register_forward_hook(lambda module, inputs, output, layer=layer: self.note(layer, output))

    def note(self, layer, output):
        self.micro[layer].append(output.indices_Tk)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.micro = ([], [])
            self.steps.append(self.micro)


class KeepWeights(Callback):
    """Writes the weights of the trained model, from the first device."""

    def __init__(self, path):
        self.path = path

    def on_train_end(self, trainer, pl_module):
        if trainer.is_global_zero:
            torch.save(pl_module.state_dict(), self.path)


@pytest.fixture
def stepping(byte_model):
    """Somebody else's LightningModule that ends the steps of its routers."""

    class Stepping(byte_model):
        def on_before_optimizer_step(self, optimizer):
            step_routers(self)

    return Stepping


def test_a_bias_moves_once_per_step_by_its_whole_batch(stepping, byte_data, make_trainer):
    choices, model = Choices(), stepping(bias)
    make_trainer(choices, max_steps=5).fit(model, datamodule=byte_data(replay=False))  # 4 micro-batches per step
    assert len(choices.steps) == 5
    for layer, block in enumerate(model.blocks):
        expected = [0.0] * 4
        for step in choices.steps:
            assert len(step[layer]) == 4
            load = [sum(int((indices == i).sum()) for indices in step[layer]) for i in range(4)]
            mean = sum(load) / 4
            expected = [b + 0.05 * ((mean > c) - (mean < c)) for b, c in zip(expected, load, strict=True)]
            expected = [b - sum(expected) / 4 for b in expected]
        assert block.router.bias.tolist() == pytest.approx(expected, abs=1e-6) and max(expected) > 0.02


# The penalty counts an accumulated step only so far, so there two devices equal one with all in one micro-batch.
@pytest.mark.parametrize(("router", "one", "two"), [(bias, (8, 2), (8, 2)), (penalty, (4, 4), (4, 2))])
def test_two_devices_are_one(stepping, byte_data, make_trainer, read_metrics, tmp_path, router, one, two):
    for name, (batch, micro), arguments in (("one", one, {}), ("two", two, {"devices": 2, "strategy": "ddp_fork"})):
        trainer = make_trainer(RouterBalance(), KeepWeights(tmp_path / f"{name}.pt"), name=name, **arguments)
        trainer.fit(stepping(router), datamodule=byte_data(batch, micro, replay=False))
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
    key = "blocks.1.router.bias"
    assert (key not in one) or (one[key].any() and torch.equal(one[key], two[key]))
    one, two = read_metrics("one"), read_metrics("two")
    for key in ("train/router/raw_balance_loss/layer_00", "train/router/mri/layer_01"):
        assert [value for _, value in two[key]] == pytest.approx([value for _, value in one[key]], rel=1e-5)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_bias_is_saved_and_goes_on_from_there(stepping, byte_data, make_trainer, tmp_path, precision):
    finals = []
    for name, stops in (("through", [6]), ("resumed", [3, 6])):
        path = None
        for stop in stops:
            model = stepping(bias)
            keep = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1)
            trainer = make_trainer(keep, name=name, max_steps=stop, precision=precision, enable_checkpointing=True)
            trainer.fit(model, datamodule=byte_data(replay=False), ckpt_path=path, weights_only=True)
            path = tmp_path / name / "last.ckpt"
        saved = torch.load(path, weights_only=True)["state_dict"]["blocks.0.router.bias"]
        assert saved.dtype == torch.float32 and torch.equal(saved, model.blocks[0].router.bias) and saved.any()
        # multiples of a quarter of the rate, which bfloat16 can't hold
        assert torch.allclose(saved / 0.0125, (saved / 0.0125).round(), atol=1e-4)
        finals.append(model.state_dict())
    assert all(torch.equal(value, finals[1][name]) for name, value in finals[0].items())


def test_a_module_that_never_ends_its_steps_is_told_so(byte_model, byte_data, make_trainer):
    with pytest.raises(UserError, match=r"step_routers\(self\) in on_before_optimizer_step"):
        make_trainer(max_steps=3).fit(byte_model(bias), datamodule=byte_data(replay=False))
