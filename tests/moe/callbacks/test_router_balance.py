import math

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.data import DataLoader

from lit_core.errors import UserError
from lit_moe.callbacks import ReplayMixing, RouterBalance
from lit_moe.nn import PenaltyRouter, SinkhornRouter, TopKRouter

#: Its pictures are drawn.
DRAWN = True


class Recorder(Callback):
    """Keeps what each router really got and chose, by hooks, without looking at its statistics."""

    def __init__(self):
        self.batches = []  # per batch: per layer (logits, chosen experts, mask)

    def setup(self, trainer, pl_module, stage):
        self.seen = []
        for block in pl_module.blocks:
            block.router.register_forward_hook(
                lambda module, inputs, output: self.seen.append((inputs[0].detach(), output.indices_Tk, inputs[1]))
            )

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(self.seen)

    def on_test_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.seen = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.batches.append((dataloader_idx, self.seen))


def naive(windows, n_experts=4):
    """MRI, normalised entropy, dead experts, max and min over mean, counted expert by expert."""
    tokens = sum(len(indices) for indices in windows)
    counts = [sum(int((indices == expert).any(1).sum()) for indices in windows) for expert in range(n_experts)]
    total, mean = sum(counts), sum(counts) / n_experts
    return {
        "mri": max(counts) / tokens,
        "load_entropy": -sum(c / total * math.log(c / total) for c in counts if c) / math.log(n_experts),
        "dead_experts": sum(c == 0 for c in counts),
        "max_load": max(counts) / mean,
        "min_load": min(counts) / mean,
    }


@pytest.mark.parametrize("router", [PenaltyRouter, SinkhornRouter])
def test_each_logged_step_is_the_whole_accumulated_batch(byte_model, byte_data, make_trainer, read_metrics, router):
    recorder = Recorder()
    trainer = make_trainer(RouterBalance(), ReplayMixing(0.25), recorder, max_steps=6, log_every_n_steps=2)
    trainer.fit(byte_model(router), datamodule=byte_data())  # 4 micro-batches per step

    metrics = read_metrics()
    assert [step for step, _ in metrics["train/router/mri/layer_00"]] == [1, 3, 5]
    for step in (1, 3, 5):
        window = recorder.batches[4 * step : 4 * step + 4]
        for layer in (0, 1):
            for name, value in naive([micro[layer][1] for micro in window]).items():
                logged = dict(metrics[f"train/router/{name}/layer_{layer:02d}"])[step]
                assert logged == pytest.approx(value, rel=1e-6), name
            z = [float(micro[layer][0].logsumexp(-1).square().mean()) for micro in window]
            raw_z = dict(metrics[f"train/router/raw_z_loss/layer_{layer:02d}"])[step]
            assert raw_z == pytest.approx(sum(z) / 4, rel=1e-5)
    both = [dict(metrics[f"train/router/mri/layer_{layer:02d}"])[3] for layer in (0, 1)]
    assert dict(metrics["train/router/mri/mean"])[3] == pytest.approx(sum(both) / 2)
    assert metrics["train/router/mri_floor"][0][1] == 0.5


def test_losses_are_logged_raw_and_scaled(byte_model, byte_data, make_trainer, read_metrics):
    model = byte_model(lambda e, k: PenaltyRouter(e, k, balance_weight=0.5, z_weight=0.25))
    make_trainer(RouterBalance(), max_steps=1).fit(model, datamodule=byte_data(replay=False))
    metrics = read_metrics()
    for name, weight in (("balance_loss", 0.5), ("z_loss", 0.25)):
        ((_, scaled),) = metrics[f"train/router/{name}/layer_01"]
        ((_, raw),) = metrics[f"train/router/raw_{name}/layer_01"]
        assert scaled == pytest.approx(weight * raw, rel=1e-6) and raw > 0


def test_a_router_without_losses_logs_only_raw_ones(byte_model, byte_data, make_trainer, read_metrics):
    make_trainer(RouterBalance(), max_steps=1).fit(byte_model(TopKRouter), datamodule=byte_data(replay=False))
    metrics = read_metrics()
    assert "train/router/raw_balance_loss/layer_00" in metrics
    assert not {"train/router/balance_loss/layer_00", "train/router/raw_mri/layer_00"} & metrics.keys()


def test_sinkhorn_logs_its_inference_routing_beside_the_balanced_one(byte_model, byte_data, make_trainer, read_metrics):
    recorder = Recorder()
    trainer = make_trainer(RouterBalance(), recorder, max_steps=2)
    trainer.fit(byte_model(SinkhornRouter), datamodule=byte_data(replay=False))
    window = recorder.batches[4:8]
    inference = [micro[0][0].topk(2).indices for micro in window]
    metrics = read_metrics()
    assert dict(metrics["train/router/raw_mri/layer_00"])[1] == pytest.approx(naive(inference)["mri"])
    assert dict(metrics["train/router/raw_mri/mean"])[1] > dict(metrics["train/router/mri/mean"])[1]


def test_a_short_last_window_counts_what_it_holds(byte_model, byte_data, make_trainer, read_metrics):
    recorder = Recorder()
    source = byte_data().sources(22)["new"]
    loader = DataLoader([source[index] for index in range(22)], batch_size=2)  # 11 batches: windows of 4, 4 and 3
    trainer = make_trainer(RouterBalance(), recorder, max_steps=-1, max_epochs=1, accumulate_grad_batches=4)
    trainer.fit(byte_model(), loader)
    logged = [value for _, value in read_metrics()["train/router/mri/layer_01"]]
    windows = [recorder.batches[0:4], recorder.batches[4:8], recorder.batches[8:11]]
    assert logged == pytest.approx([naive([micro[1][1] for micro in window])["mri"] for window in windows])


def test_a_validation_between_micro_batches_changes_nothing(byte_model, byte_data, make_trainer, read_metrics):
    for name, limit in (("without", 0), ("with", 1.0)):
        trainer = make_trainer(RouterBalance(), name=name, val_check_interval=3, limit_val_batches=limit)
        trainer.fit(byte_model(), datamodule=byte_data(replay=False))
    without, with_validation = read_metrics("without"), read_metrics("with")
    keys = [key for key in without if key.startswith("train/")]
    assert len(keys) > 10
    assert {key: with_validation[key] for key in keys} == {key: without[key] for key in keys}
    assert "val/old/router/mri/layer_01" in with_validation


def test_a_test_measures_each_whole_source_and_no_padding(byte_model, byte_data, make_trainer, read_metrics):
    recorder = Recorder()
    trainer = make_trainer(RouterBalance(), recorder)
    (results,) = trainer.test(byte_model(SinkhornRouter), datamodule=byte_data(), verbose=False)[:1]
    assert len(recorder.batches) == 16  # 2 sources of 30 rows in batches of 4: the last batch has 2 rows of padding
    for number, source in enumerate(("new", "old")):
        layers = [layers for index, layers in recorder.batches if index == number]
        indices = [seen[1][1][seen[1][2]] for seen in layers]
        assert sum(map(len, indices)) == 30 * 16
        for name, value in naive(indices).items():
            assert results[f"test/{source}/router/{name}/layer_01"] == pytest.approx(value, rel=1e-6)
    assert results["test/router/mri_floor"] == 0.5


def test_activation_checkpointing_does_not_count_twice(byte_model, byte_data, make_trainer, read_metrics):
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(byte_model):
        def run(self, block, x, mask):
            return checkpoint(block, x, mask, use_reentrant=False)

    for name, kind in (("plain", byte_model), ("checkpointed", Checkpointed)):
        trainer = make_trainer(RouterBalance(), name=name)
        trainer.fit(kind(), datamodule=byte_data(replay=False))
    assert read_metrics("plain") == read_metrics("checkpointed")


@pytest.mark.parametrize("router", [PenaltyRouter, SinkhornRouter])
def test_two_processes_equal_one_that_accumulates(byte_model, byte_data, make_trainer, read_metrics, router):
    one_device = {"val_check_interval": 4}
    two_devices = {"val_check_interval": 2, "devices": 2, "strategy": "ddp_fork"}
    for name, arguments in (("one", one_device), ("two", two_devices)):
        trainer = make_trainer(RouterBalance(), ReplayMixing(0.25), name=name, **arguments)
        trainer.fit(byte_model(router), datamodule=byte_data())
    one, two = read_metrics("one"), read_metrics("two")
    assert one.keys() == two.keys() and "val/old/router/mri/layer_01" in one and "train/new/fraction" in one
    for key in one:
        assert [step for step, _ in two[key]] == [step for step, _ in one[key]]
        assert [value for _, value in two[key]] == pytest.approx([value for _, value in one[key]], rel=1e-4), key


def test_a_model_without_mixtures_logs_nothing(byte_data, make_trainer, read_metrics, byte_model):
    class Dense(byte_model):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList()

        def on_train_batch_end(self, *args):
            self.log("train/alive", 1.0)

    make_trainer(RouterBalance()).fit(Dense(), datamodule=byte_data(replay=False))
    assert "train/alive" in read_metrics() and not [key for key in read_metrics() if "router" in key]


def test_heat_maps_come_every_n_logged_steps_and_with_each_validation(byte_model, byte_data, make_trainer, tmp_path):
    pytest.importorskip("matplotlib")
    logger = TensorBoardLogger(tmp_path / "tb", name="", version="")
    trainer = make_trainer(
        RouterBalance(heat_map_every=2), logger=logger, max_steps=8, log_every_n_steps=2, val_check_interval=16
    )
    trainer.fit(byte_model(), datamodule=byte_data(replay=False))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb"), size_guidance={"images": 0}).Reload()
    assert [image.step for image in events.Images("train/router/load")] == [3, 7]
    assert len(events.Images("val/old/router/load")) == 2
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_a_layer_that_saw_no_token_is_blank(byte_model, byte_data, make_trainer, tmp_path, monkeypatch):
    """In the heat map, as it is left out of the keys: a share of 0 would be a dead expert."""
    pytest.importorskip("matplotlib")

    class Unused(byte_model):
        def run(self, block, x, mask):
            return x if block is self.blocks[0] else super().run(block, x, mask)

    drawn = {}
    module = "lit_moe.callbacks.router_balance.add_figure"
    monkeypatch.setattr(module, lambda trainer, key, figure, step: drawn.setdefault(key, figure))
    logger = TensorBoardLogger(tmp_path / "tb", name="", version="")
    trainer = make_trainer(RouterBalance(heat_map_every=1), logger=logger, max_steps=1, val_check_interval=4)
    trainer.fit(Unused(), datamodule=byte_data(replay=False))
    assert "train/router/load" in drawn and len(drawn) > 1
    for figure in drawn.values():
        blank, used = figure.axes[0].images[0].get_array().mask
        assert blank.all() and not used.any()
    assert "train/router/mri/layer_00" not in trainer.callback_metrics
    assert 0.5 <= float(trainer.callback_metrics["train/router/mri/layer_01"]) <= 1


def test_arguments_are_checked():
    with pytest.raises(UserError, match="heat_map_every"):
        RouterBalance(heat_map_every=-1)
