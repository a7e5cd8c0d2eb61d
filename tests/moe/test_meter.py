import math

import pytest
import torch
from lightning.pytorch import Callback
from ranks import on_ranks
from torch.utils.data import DataLoader

from lit_moe import MoELanguageModel
from lit_moe.meter import TrainingMeter
from lit_moe.nn import DecoderConfig


def micro_batch(meter, loss, tokens=10, flops=100.0):
    for part in (meter.window.scored, meter.window.auxiliary, meter.window.nats, meter.window.text_bytes):
        part.append(torch.tensor(loss))
    meter.window.tokens += tokens
    meter.window.flops += flops


def test_a_step_counts_once_it_is_finished():
    meter = TrainingMeter()
    for step in range(3):
        micro_batch(meter, 1.0)
        micro_batch(meter, 2.0)
        assert meter.tokens(step) == step * 40
        window = meter.close(step, lambda counts: 2 * counts)
        assert window.sums().tolist() == [3, 3, 3, 3]
        assert (meter.tokens(step), meter.flops(step)) == (step * 40, step * 400.0)  # about to be taken
        assert (meter.tokens(step + 1), meter.flops(step + 1)) == ((step + 1) * 40, (step + 1) * 400.0)


@pytest.mark.parametrize("finished", [1, 2])
def test_a_checkpoint_around_an_optimizer_step_holds_the_steps_of_its_weights(finished):
    meter = TrainingMeter()
    for step in range(2):
        micro_batch(meter, 1.0)
        meter.close(step)
    state = meter.state_dict(finished)
    assert state == {"tokens": finished * 10, "flops": finished * 100.0}

    resumed = TrainingMeter()
    micro_batch(resumed, 5.0)
    resumed.load_state_dict(state)
    micro_batch(resumed, 1.0)
    assert resumed.close(finished).sums().tolist() == [1, 1, 1, 1]
    assert resumed.tokens(finished + 1) == (finished + 1) * 10


@pytest.mark.parametrize("saved", [None, float("nan")])
def test_unknown_operations_are_still_unknown_after_a_resume(saved):
    meter = TrainingMeter()
    micro_batch(meter, 5.0)
    meter.window.flops = float("nan")
    meter.close(0)
    state = meter.state_dict(1)
    assert state == {"tokens": 10, "flops": None}
    resumed = TrainingMeter()
    resumed.load_state_dict({**state, "flops": saved})
    assert resumed.tokens(1) == 10 and math.isnan(resumed.flops(1)) and resumed.state_dict(1) == state


def test_what_comes_between_pause_and_resume_takes_no_time(monkeypatch):
    now = 0.0
    monkeypatch.setattr("lit_moe.meter.time.perf_counter", lambda: now)
    meter = TrainingMeter()
    meter.start_clock(0)
    now = 2.0
    meter.pause_clock()
    now = 50.0
    meter.resume_clock()
    now = 52.0
    assert meter.lap(tokens=400) == pytest.approx(100.0)
    now = 53.0
    assert meter.lap(tokens=450) == pytest.approx(50.0)


class Counts(Callback):
    """Writes down what each rank counts after each step, and what a checkpoint of it holds."""

    def __init__(self, folder):
        self.folder, self.rows = folder, []

    def on_train_batch_end(self, trainer, pl_module, *ignored):
        saved = {"global_step": trainer.global_step}
        pl_module.on_save_checkpoint(saved)
        self.rows.append((pl_module.train_tokens, pl_module.train_flops, saved["training_meter"]))

    def on_train_end(self, trainer, pl_module):
        torch.save(self.rows, self.folder / f"{trainer.global_rank}.pt")


def test_ranks_that_read_different_numbers_of_tokens_are_summed(make_trainer, read_metrics, tmp_path):
    shapes = [[(2, 8), (1, 4)], [(3, 8), (2, 8)], [(2, 5), (4, 3)]]  # (batch, length) of each rank in each step

    def model():
        return MoELanguageModel(DecoderConfig(32, n_layers=1, d_model=8, n_heads=1, d_ff=8))

    def fit():
        counts = Counts(tmp_path)
        settings = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False, "limit_val_batches": 0}
        trainer = make_trainer(counts, log_every_n_steps=2, **settings)
        ids = [torch.zeros(step[trainer.global_rank], dtype=torch.int64) for step in shapes]
        trainer.fit(model(), DataLoader([{"input_ids": row, "labels": row} for row in ids], batch_size=None))

    on_ranks(fit)
    cost = model().decoder.flops_per_token
    tokens = [sum(batch * length for batch, length in step) for step in shapes]
    flops = [sum(3.0 * batch * length * cost(length) for batch, length in step) for step in shapes]
    expected = [(sum(tokens[:n]), sum(flops[:n])) for n in (1, 2, 3)]
    for rank in (0, 1):
        rows = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert rows == [(*counts, {"tokens": counts[0], "flops": counts[1]}) for counts in expected]
    assert read_metrics()["train/tokens"] == [(1, expected[1][0])]
    assert read_metrics()["train/flops"] == [(1, expected[1][1])]
