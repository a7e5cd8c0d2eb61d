import math
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_moe.callbacks import RouterDrift
from lit_moe.nn import BiasRouter, PenaltyRouter, SinkhornRouter

#: Its pictures are drawn.
DRAWN = True


class Recorder(Callback):
    """Keeps tokens, masks and the experts that each layer of a model chose, by hooks, per evaluated batch."""

    def __init__(self):
        self.batches = []

    def setup(self, trainer, pl_module, stage):
        for block in pl_module.blocks:
            block.router.register_forward_hook(lambda module, inputs, output: self.seen.append(output.indices_Tk))

    def on_test_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.seen = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        mask = (batch["labels"] != -100).flatten()
        ids = batch["input_ids"].flatten()[mask].tolist()
        self.batches.append((dataloader_idx, ids, [indices[mask].tolist() for indices in self.seen]))


@pytest.fixture(scope="module")
def routed_model():
    """Somebody else's LightningModule that can be compared."""
    from byte_run import ByteModel

    class Routed(ByteModel):
        config = SimpleNamespace(vocab_size=256)

        def routing_step(self, batch):
            return self.nll(batch)[1]

    return Routed


@pytest.fixture(scope="module")
def before(routed_model, tmp_path_factory):
    """The path of a checkpoint of a model that has learnt a little."""
    from byte_run import ByteData

    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_steps=8, limit_val_batches=0, callbacks=[ResumeStream()], **quiet)
    trainer.fit(routed_model(), datamodule=ByteData(replay=False))
    path = tmp_path_factory.mktemp("before") / "before.ckpt"
    trainer.save_checkpoint(path)
    return str(path)


def test_a_test_compares_whole_sources_and_no_padding(routed_model, byte_data, make_trainer, before):
    models, recorders = {}, {}
    for name in ("old", "new"):
        models[name] = model = routed_model()  # the new one has learnt nothing
        if name == "old":
            model.load_state_dict(torch.load(before, weights_only=True)["state_dict"])
        recorders[name] = Recorder()
        callbacks = [recorders[name], RouterDrift(before, min_occurrences=4)]
        results = make_trainer(*callbacks).test(model, datamodule=byte_data(), verbose=False)
        logged = {key: value for source in results for key, value in source.items()}
    for number, source in enumerate(("new", "old")):
        old, new = ([batch for batch in recorders[name].batches if batch[0] == number] for name in ("old", "new"))
        ids = [token for _, batch, _ in new for token in batch]
        assert len(ids) == 30 * 16
        for layer in (0, 1):
            a, b = ([row for _, _, seen in batches for row in seen[layer]] for batches in (old, new))
            crs = math.fsum(len(set(x) & set(y)) / 2 for x, y in zip(a, b, strict=True)) / len(a)
            usual = {}
            for token in set(ids):
                load = [sum(i in a[t] for t in range(len(a)) if ids[t] == token) for i in range(4)]
                usual[token] = load.index(max(load))
            kept = [usual[token] in b[t] for t, token in enumerate(ids)]
            often = [token for token in usual if ids.count(token) >= 4]
            per_id = [[kept[t] for t, other in enumerate(ids) if other == token] for token in often]
            pairs = [
                [[sum(i in row and j in row for row in rows) for j in range(4)] for i in range(4)] for rows in (a, b)
            ]
            share = [
                sum(min(p[i][j] / p[i][i], q[i][j] / q[i][i]) for j in range(4) if j != i)
                for p, q in [pairs]
                for i in range(4)
            ]
            level = [sum(min(pairs[0][i][j] / pairs[0][i][i], 1 / 3) for j in range(4) if j != i) for i in range(4)]
            expected = {
                "crs": (crs, 0.5),
                "cvs_per_occurrence": (sum(kept) / len(kept), 0.5),
                "cvs_per_id": (math.fsum(sum(row) / len(row) for row in per_id) / len(per_id), 0.5),
                "coactivation": (sum(share) / 4, sum(level) / 4),
            }
            for name, (value, chance) in expected.items():
                key = f"test/{source}/router/{name}"
                assert logged[f"{key}/layer_{layer:02d}"] == pytest.approx(value, rel=1e-5), name
                assert logged[f"{key}_above_chance/layer_{layer:02d}"] == pytest.approx(value - chance, abs=1e-5)
            assert 0.5 < crs < 0.99
        mean = sum(logged[f"test/{source}/router/crs/layer_0{layer}"] for layer in (0, 1)) / 2
        assert logged[f"test/{source}/router/crs/mean"] == pytest.approx(mean)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("router", [PenaltyRouter, SinkhornRouter])
def test_the_same_weights_have_the_same_routing(routed_model, byte_data, make_trainer, before, router, precision):
    model = routed_model(router)
    model.load_state_dict(torch.load(before, weights_only=True)["state_dict"])
    trainer = make_trainer(RouterDrift(before), precision=precision)
    trainer.validate(model, datamodule=byte_data(), verbose=False)
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    for source in ("new", "old"):
        for name in ("crs", "coactivation"):
            assert values[f"val/{source}/router/{name}/layer_01"] == pytest.approx(1)
        assert values[f"val/{source}/router/crs_above_chance/layer_00"] == pytest.approx(0.5)


def test_a_measured_run_is_the_run_that_is_not(routed_model, byte_data, make_trainer, read_metrics, before, tmp_path):
    finals = []
    for name, callbacks in (("plain", []), ("measured", [RouterDrift(before)])):
        trainer = make_trainer(*callbacks, name=name, val_check_interval=4)
        model = routed_model()
        trainer.fit(model, datamodule=byte_data(replay=False))
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        assert len(trainer.optimizers[0].param_groups[0]["params"]) == len(list(model.parameters()))
        finals.append(torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["state_dict"])
    plain, measured = finals
    assert plain.keys() == measured.keys()
    assert all(torch.equal(measured[name], value) for name, value in plain.items())
    crs = [value for _, value in read_metrics("measured")["val/old/router/crs/layer_01"]]
    assert len(crs) == 3 and len(set(crs)) > 1


def test_validations_of_a_fit_can_be_left_out(routed_model, byte_data, make_trainer, read_metrics, before):
    callback = RouterDrift(before, during_fit=False)
    trainer, model = make_trainer(callback, val_check_interval=4), routed_model()
    trainer.fit(model, datamodule=byte_data(replay=False))
    assert not [key for key in read_metrics() if "crs" in key]
    trainer.test(model, datamodule=byte_data(), verbose=False)
    assert "test/old/router/crs/layer_00" in trainer.callback_metrics


def test_two_processes_compare_as_one(routed_model, byte_data, make_trainer, read_metrics, before):
    for name, devices in (("one", {}), ("two", {"devices": 2, "strategy": "ddp_fork"})):
        trainer = make_trainer(RouterDrift(before, min_occurrences=4), name=name, **devices)
        trainer.validate(routed_model(), datamodule=byte_data(), verbose=False)
    one, two = read_metrics("one"), read_metrics("two")
    keys = [key for key in one if "/router/" in key]
    assert len(keys) == 2 * 8 * 3
    assert {key: two[key] for key in keys} == {key: one[key] for key in keys}


def test_figures_are_drawn_for_each_source(routed_model, byte_data, make_trainer, before, tmp_path):
    pytest.importorskip("matplotlib")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path / "tb", name="", version="")
    trainer = make_trainer(RouterDrift(before), logger=logger, val_check_interval=12)
    trainer.fit(routed_model(), datamodule=byte_data(replay=False))
    images = EventAccumulator(str(tmp_path / "tb"), size_guidance={"images": 0}).Reload().Tags()["images"]
    expected = {f"val/{s}/router/{name}" for s in ("old", "new") for name in ("drift", "coactivation_change")}
    assert set(images) == expected


def test_ids_are_not_needed_and_one_expert_has_no_partners(routed_model, byte_data, make_trainer, tmp_path):
    class NoVocabulary(routed_model):
        config = None

        def __init__(self):
            super().__init__(top_k=1)

    trainer = make_trainer(max_steps=1)
    trainer.fit(NoVocabulary(), datamodule=byte_data(replay=False))
    trainer.save_checkpoint(tmp_path / "k1.ckpt")
    trainer = make_trainer(RouterDrift(str(tmp_path / "k1.ckpt")))
    trainer.test(NoVocabulary(), datamodule=byte_data(), verbose=False)
    keys = {key.split("/")[3] for key in trainer.callback_metrics if "/router/" in key}
    assert keys == {"crs", "crs_above_chance"}


def test_a_reference_of_another_kind_is_refused(routed_model, byte_model, byte_data, make_trainer, before, tmp_path):
    def run(model, path=before):
        make_trainer(RouterDrift(path)).test(model, datamodule=byte_data(), verbose=False)

    with pytest.raises(UserError, match=r"another architecture: its blocks.0.gate.weight has the shape \(4, 16\)"):
        run(routed_model(n_experts=8))
    with pytest.raises(UserError, match=r"another architecture: blocks.0.router.bias is missing"):
        run(routed_model(BiasRouter))
    with pytest.raises(UserError, match=r"reference is nowhere.ckpt, but there is no such file"):
        run(routed_model(), "nowhere.ckpt")
    (tmp_path / "torn.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        run(routed_model(), str(tmp_path / "torn.ckpt"))
    with pytest.raises(UserError, match=r"routing_step\(batch\), which ByteModel does not have"):
        run(byte_model())
    with pytest.raises(UserError, match=r"Two RouterDrift .* references .*before.ckpt and other.ckpt"):
        callbacks = RouterDrift(before), RouterDrift("other.ckpt")
        make_trainer(*callbacks).test(routed_model(), datamodule=byte_data(), verbose=False)
    with pytest.raises(UserError, match="min_occurrences"):
        RouterDrift(before, min_occurrences=0)


def test_a_model_without_mixtures_needs_no_reference(routed_model, byte_data, make_trainer):
    model = routed_model()
    model.blocks = torch.nn.ModuleList()
    trainer = make_trainer(RouterDrift("nowhere.ckpt"))
    trainer.test(model, datamodule=byte_data(), verbose=False)
    assert not [key for key in trainer.callback_metrics if "router" in key]
