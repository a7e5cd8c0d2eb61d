"""Mixing: exact quotas, whatever is a float."""

import itertools
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_core.data import MixtureStream
from lit_core.errors import UserError


class Numbers:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {"value": torch.tensor(index)}


def mixture(new=None, weights=None, replay=None, replay_weights=None, fraction=None, **options):
    stream = MixtureStream(
        {name: Numbers(size) for name, size in (new or {"new": 50}).items()},
        weights,
        {name: Numbers(size) for name, size in (replay or {}).items()},
        replay_weights,
        **{"global_batch_size": 8, "micro_batch_size": 2, **options},
    )
    if fraction is not None:
        stream.set_replay(fraction)
    return stream


def half_up(value):
    return math.floor(value + Fraction(1, 2))


def replayed_by_formula(fraction, batch, steps):
    """Sum fractions as written, in exact arithmetic, and round the sums."""
    total, rounded = Fraction(0), [0]
    for step in range(steps):
        total += Fraction(str(fraction(step) if callable(fraction) else fraction)) * batch
        rounded.append(half_up(total))
    return [after - before for before, after in itertools.pairwise(rounded)]


def ramp(step):
    return min(0.1 * step, 0.7)


def third(step):
    return 1 / 3


def jump(step):
    return 0.1 if step == 0 else 1.0


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.1, 0.3, 0.05, 1 / 3, 0.123456789, 1e-9, ramp, third, jump])
@pytest.mark.parametrize("batch", [1, 5, 8])
def test_quotas_are_the_formula(fraction, batch):
    stream = mixture(replay={"old": 9}, fraction=fraction, global_batch_size=batch, micro_batch_size=1)
    counts = [stream.counts(step) for step in range(3000)]
    assert [count["old"] for count in counts] == replayed_by_formula(fraction, batch, 3000)
    assert all(count["new"] + count["old"] == batch and min(count.values()) >= 0 for count in counts)


def test_fractions_do_not_drift():
    """0.1 is no binary number: summed as floats, a million steps would be off, and 0.1 x 5 rounds to either side."""
    stream = mixture(replay={"old": 9}, fraction=0.1, global_batch_size=5, micro_batch_size=5)
    for step in (1, 3, 10**6 + 1, 10**12 + 1):
        assert stream.consumed(step)["old"] == half_up(Fraction(step, 2))
    stream.set_replay(lambda step: 0.1)
    assert stream.consumed(200_001)["old"] == half_up(Fraction(200_001, 2))


def test_schedules_may_be_asked_in_any_order():
    calls = []

    def fraction(step):
        calls.append(step)
        return (step % 11) / 10 if step % 11 <= 10 else 0.0

    straight = mixture(replay={"old": 9}, fraction=lambda step: (step % 11) / 10)
    expected = [straight.counts(step) for step in range(5000)]
    jumping = mixture(replay={"old": 9}, fraction=fraction)
    for step in (4999, 0, 1023, 1024, 1025, 2048, 2047, 1, 3000, 4998):
        assert jumping.counts(step) == expected[step]
    calls.clear()
    resumed = mixture(replay={"old": 9}, fraction=fraction)
    resumed.start_at(4000, straight.consumed(4000))
    for step in range(4000, 4500):
        assert resumed.plan(step) == straight.plan(step)
    assert len(calls) < 4000 + 500 + 2 * 1024  # once per step, not once per step and step


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=5),
    st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=3),
    st.floats(0, 1),
    st.integers(1, 40),
)
def test_each_source_stays_near_its_share(new, old, fraction, batch):
    names, olds = [f"n{i}" for i in range(len(new))], [f"o{i}" for i in range(len(old))]
    stream = mixture(
        dict.fromkeys(names, 30), dict(zip(names, new, strict=True)), dict.fromkeys(olds, 20),
        dict(zip(olds, old, strict=True)), fraction, global_batch_size=batch, micro_batch_size=batch,
    )  # fmt: skip
    before = stream.consumed(0)
    for step in range(60):
        after = stream.consumed(step + 1)
        assert sum(after.values()) == (step + 1) * batch
        assert all(after[name] >= before[name] for name in stream.names)
        replayed = sum(after[name] for name in olds)
        assert abs(replayed - fraction * batch * (step + 1)) <= 0.5 + 1e-6
        for group, weights, total in ((names, new, (step + 1) * batch - replayed), (olds, old, replayed)):
            for place, (name, weight) in enumerate(zip(group, weights, strict=True), start=1):
                assert abs(after[name] - total * weight / sum(weights)) <= place / 2 + 1e-6
        before = after


def test_weights_of_none_are_the_sizes():
    stream = mixture({"a": 30, "b": 10}, replay={"c": 6, "d": 2}, fraction=0.5)
    assert stream.consumed(10) == {"a": 30, "b": 10, "c": 30, "d": 10}
    assert stream.steps_per_epoch == 5 and len(stream) == 5 * 4


def test_plans_hold_the_quotas_in_shuffled_order():
    stream = mixture({"a": 30, "b": 10}, {"a": 1, "b": 2}, {"old": 7}, fraction=0.3)
    seen = {name: [] for name in stream.names}
    patterns = set()
    for step in range(200):
        plan = stream.plan(step)
        assert {name: sum(slot[0] == name for slot in plan) for name in stream.names} == stream.counts(step)
        patterns.add(tuple(name for name, _ in plan))
        for name, number in plan:
            seen[name].append(number)
    assert len(patterns) > 100
    for name, numbers in seen.items():
        assert sorted(numbers) == list(range(len(numbers)))
        epochs = [stream.sample_index(name, number) for number in sorted(numbers)]
        size = len(stream.sources[name])
        assert len(epochs) > size
        for epoch in range(len(epochs) // size):
            assert sorted(epochs[epoch * size : (epoch + 1) * size]) == list(range(size))


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 1), (2, 2), (4, 2), (8, 1)])
def test_any_layout_trains_on_the_same_samples(world, micro):
    reference = mixture(replay={"old": 9}, fraction=ramp)
    streams = [
        mixture(replay={"old": 9}, fraction=ramp, world_size=world, rank=rank, micro_batch_size=micro)
        for rank in range(world)
    ]
    for step in range(10):
        slots = []
        for part in range(8 // (world * micro)):
            for stream in streams:
                batch = stream.micro_batch(step * stream.accumulation + part)
                slots += zip((stream.names[i] for i in batch["source"]), batch["index"].tolist(), strict=True)
        assert slots == reference.plan(step)


def test_batches_hold_what_the_plan_says():
    """Rows of several sources, read each in its own way, stand where the plan wants them."""

    class Words(Numbers):
        def __getitem__(self, index):
            return {"value": np.array([index, -index]), "word": f"{self.size}:{index}"}

    class Batched(Words):
        def batch(self, indices):
            samples = [self[index] for index in indices]
            values = torch.stack([torch.from_numpy(sample["value"]) for sample in samples])
            return {"value": values, "word": [sample["word"] for sample in samples]}

    sources = {"a": Words(30), "b": Batched(31), "c": Batched(32)}
    stream = MixtureStream(sources, global_batch_size=12, micro_batch_size=4)
    for number in range(40):
        batch = stream.micro_batch(number)
        slots = stream.plan(number // 3)[number % 3 * 4 :][:4]
        indices = [stream.sample_index(*slot) for slot in slots]
        assert batch["value"].tolist() == [[index, -index] for index in indices]
        words = [f"{len(sources[name])}:{index}" for (name, _), index in zip(slots, indices, strict=True)]
        assert batch["word"] == words
        assert [(stream.names[i], n) for i, n in zip(batch["source"], batch["index"].tolist(), strict=True)] == slots


def test_a_changed_fraction_goes_on_where_each_source_was():
    first, second = mixture(replay={"old": 9}, fraction=0.3), mixture(replay={"old": 9}, fraction=ramp)
    slots = [slot for step in range(7) for slot in first.plan(step)]
    second.start_at(7, first.consumed(7))
    slots += [slot for step in range(7, 30) for slot in second.plan(step)]
    for name in ("new", "old"):
        numbers = sorted(number for source, number in slots if source == name)
        assert numbers == list(range(len(numbers)))
    assert second.counts(20) == mixture(replay={"old": 9}, fraction=ramp).counts(20)


def test_a_source_may_come_and_go():
    stream = mixture({"b": 10, "c": 10})
    stream.start_at(4, {"a": 13, "b": 5})
    assert stream.consumed(5) == {"a": 13, "b": 9, "c": 4}


def test_streams_travel_to_other_processes():
    stream = mixture(replay={"old": 9}, fraction=ramp)
    stream.start_at(3, stream.consumed(3))
    stream.plan(2000)
    copy = pickle.loads(pickle.dumps(stream))
    assert [copy.plan(step) for step in (3, 2001)] == [stream.plan(step) for step in (3, 2001)]


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, math.inf, np.float64(2)])
def test_fractions_out_of_range_are_refused(fraction):
    stream = mixture(replay={"old": 9})
    with pytest.raises(UserError, match="from 0 to 1"):
        stream.set_replay(fraction)
    stream.set_replay(lambda step: fraction if step == 5 else 0.5)
    stream.counts(4)
    with pytest.raises(UserError, match="at step 5"):
        stream.counts(5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": {"new": 0}}, "must be positive"),
        ({"weights": {"new": math.nan}}, "must be positive"),
        ({"weights": {"new": math.inf}}, "must be positive"),
        ({"weights": {"new": 1, "nwe": 1}}, "'nwe' is in one only"),
        ({"weights": {}}, "'new' is in one only"),
        ({"replay": {"new": 9}}, "both new and replayed"),
        ({"replay": {"old": 9}, "replay_weights": {"old": -1}}, "replay_weights of 'old' is -1"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(UserError, match=words):
        mixture(**options)


def test_replay_without_a_fraction_is_refused_and_the_reverse():
    with pytest.raises(UserError, match="ReplayMixing"):
        next(iter(mixture(replay={"old": 9})))
    with pytest.raises(UserError, match="no replay sources"):
        mixture(fraction=0.5)


def test_sources_that_do_not_fit_together_are_refused():
    class Other(Numbers):
        def __getitem__(self, index):
            return {"text": "other"}

    stream = MixtureStream({"a": Numbers(5), "b": Other(5)}, global_batch_size=8, micro_batch_size=8)
    with pytest.raises(UserError, match="give other keys"):
        stream.micro_batch(0)
