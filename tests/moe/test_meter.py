import pytest
import torch

from lit_moe.meter import TrainingMeter


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
        window = meter.close(step, world_size=2)
        assert window.sums().tolist() == [3, 3, 3, 3]
        assert (meter.tokens(step), meter.flops(step)) == (step * 40, step * 400.0)  # about to be taken
        assert (meter.tokens(step + 1), meter.flops(step + 1)) == ((step + 1) * 40, (step + 1) * 400.0)


@pytest.mark.parametrize("finished", [1, 2])
def test_a_checkpoint_around_an_optimizer_step_holds_the_steps_of_its_weights(finished):
    meter = TrainingMeter()
    for step in range(2):
        micro_batch(meter, 1.0)
        meter.close(step, world_size=1)
    state = meter.state_dict(finished)
    assert state == {"tokens": finished * 10, "flops": finished * 100.0}

    resumed = TrainingMeter()
    micro_batch(resumed, 5.0)
    resumed.load_state_dict(state)
    micro_batch(resumed, 1.0)
    assert resumed.close(finished, world_size=1).sums().tolist() == [1, 1, 1, 1]
    assert resumed.tokens(finished + 1) == (finished + 1) * 10


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
