"""Streams: the order is a function of seed and step, whoever reads it."""

import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_core.data import EvalStream, ShardStream
from lit_core.data.order import BLOCK, ORDER, ordered, permuted
from lit_core.errors import UserError


class Squares:
    """A source whose samples are recognised by their content."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert 0 <= index < self.size
        return {"value": torch.tensor([index, index**2]), "labels": np.array([index, 7])}


def shard_stream(size=23, **options):
    return ShardStream(Squares(size), "squares", **{"global_batch_size": 12, "micro_batch_size": 2, **options})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(0, 2**40), st.integers(0, 5))
def test_permutations_hit_each_element_once(size, seed, epoch):
    assert sorted(permuted(range(size), size, seed, "x", epoch)) == list(range(size))
    assert sorted(ordered(range(size), size, seed, "x", epoch)) == list(range(size))


def test_permutations_are_spread_evenly():
    """Over many epochs each place holds each element equally often, and neighbours are not kept together."""
    size, epochs = 12, 6000
    orders = np.array([permuted(range(size), size, 3, "x", epoch) for epoch in range(epochs)])
    for observed in (orders, (orders[:, 1:] - orders[:, :-1]) % size):
        expected = epochs / (size if observed is orders else size - 1)
        for column in observed.T:
            counts = np.bincount(column, minlength=size)[0 if observed is orders else 1 :]
            chi_square = ((counts - expected) ** 2 / expected).sum()
            assert chi_square < 45  # 11 degrees of freedom: 45 has a chance of 5e-6
    assert len({tuple(order) for order in orders}) == epochs


def test_permutations_differ_by_seed_name_and_epoch():
    orders = {
        tuple(permuted(range(50), 50, seed, name, epoch).tolist())
        for seed in (0, 1) for name in ("a", "b") for epoch in (0, 1)
    }  # fmt: skip
    assert len(orders) == 8


def test_permutations_of_large_sources_need_no_table():
    size = 10**15
    values = permuted(range(2000), size, 0, "x", 0).tolist()
    assert len(set(values)) == 2000 and 0 <= min(values) and max(values) < size
    assert abs(np.mean(values) / size - 0.5) < 0.04


def test_an_order_is_pinned():
    """An old checkpoint must find the order it was trained in; if this fails, the order of all streams has changed."""
    assert permuted(range(10), 10, 0, "austen", 0).tolist() == [2, 8, 1, 4, 7, 6, 3, 0, 9, 5]
    assert permuted([5, 1, 5], 10, 0, "austen", 0).tolist() == [6, 8, 6]


def test_the_order_of_new_runs_is_pinned():
    """As the former one is; another order needs a version of its own."""
    assert ORDER == 2
    assert ordered(range(10), 10, 0, "austen", 0).tolist() == [3, 7, 4, 8, 1, 2, 9, 6, 5, 0]
    assert ordered(range(10), 10, 0, "austen", 0, version=1).tolist() == [2, 8, 1, 4, 7, 6, 3, 0, 9, 5]
    size = BLOCK + 1  # many samples are not sorted
    assert ordered(range(9), size, 0, "x", 0).tolist() == permuted(range(9), size, 0, "x", 0).tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("varied", ["seed", "epoch"])
def test_all_orders_of_few_samples_come_equally_often(size, varied):
    count = 200 * math.factorial(size)
    rows = [ordered(range(size), size, *((i, "x", 0) if varied == "seed" else (0, "x", i))) for i in range(count)]
    counts = Counter(tuple(row.tolist()) for row in rows)
    freedom = math.factorial(size) - 1
    assert len(counts) == freedom + 1
    chi_square = sum((n - 200) ** 2 / 200 for n in counts.values())
    assert chi_square <= freedom + 5 * math.sqrt(2 * freedom)  # five standard deviations


def test_pairs_of_neighbours_come_equally_often():
    """For sizes of which all orders are too many to count."""
    for size in (6, 7, 9, 12, 24):
        rows = np.array([ordered(range(size), size, seed, "x", 0) for seed in range(6000)])
        for place in (0, size // 2, size - 2):
            pairs = Counter(map(tuple, rows[:, place : place + 2].tolist()))
            possible = size * (size - 1)
            expected = 6000 / possible
            chi_square = sum((n - expected) ** 2 / expected for n in pairs.values())
            chi_square += (possible - len(pairs)) * expected
            assert chi_square <= possible + 5 * math.sqrt(2 * possible), (size, place)


def test_every_sample_once_per_epoch_with_the_rest_from_the_next():
    stream = shard_stream()
    assert stream.steps_per_epoch == 2 and len(stream) == 2 * 6
    slots = [slot for step in range(23) for slot in stream.plan(step)]
    assert slots == [("squares", number) for number in range(23 * 12)]
    samples = [stream.sample_index(*slot) for slot in slots]
    for epoch in range(12):
        assert sorted(samples[epoch * 23 : (epoch + 1) * 23]) == list(range(23))
    assert samples[:23] != samples[23:46]


@pytest.mark.parametrize(("world", "micro"), [(1, 12), (1, 1), (2, 3), (3, 2), (6, 2), (12, 1), (4, 3)])
def test_any_layout_trains_on_the_same_samples(world, micro):
    reference, steps = shard_stream(), 5
    streams = [shard_stream(world_size=world, rank=rank, micro_batch_size=micro) for rank in range(world)]
    accumulation = 12 // (world * micro)
    for step in range(steps):
        assert all(stream.plan(step) == reference.plan(step) for stream in streams)
        numbers = [
            number
            for part in range(accumulation)
            for stream in streams
            for number in stream.micro_batch(step * accumulation + part)["index"].tolist()
        ]
        assert numbers == [number for _, number in reference.plan(step)]


def test_batches_hold_what_the_plan_says():
    stream = shard_stream()
    batch = stream.micro_batch(20)
    numbers = [number for _, number in stream.plan(3)[4:6]]
    samples = [stream.sample_index("squares", number) for number in numbers]
    assert batch["index"].tolist() == numbers and batch["source"].tolist() == [0, 0]
    assert batch["value"].tolist() == [[sample, sample**2] for sample in samples]
    assert batch["labels"].tolist() == [[sample, 7] for sample in samples]
    assert batch["index"].dtype == batch["source"].dtype == torch.int64


def test_the_plan_depends_on_start_state_and_step_only():
    stream, other = shard_stream(), shard_stream()
    plans = [stream.plan(step) for step in range(8)]
    for step in (7, 0, 3, 3, 6, 1):
        assert stream.plan(step) == plans[step]
    other.start_at(5, stream.consumed(5))
    assert [other.plan(step) for step in range(5, 8)] == plans[5:]
    assert other.micro_batch(7)["index"].tolist() == stream.micro_batch(5 * 6 + 7)["index"].tolist()
    assert pickle.loads(pickle.dumps(other)).plan(6) == plans[6]


def test_consumption_goes_on_from_the_start_state():
    stream = shard_stream()
    stream.start_at(3, {"squares": 100, "not here": 5})
    assert stream.consumed(3) == {"squares": 100, "not here": 5}
    assert stream.consumed(5) == {"squares": 124, "not here": 5}
    assert stream.plan(3)[0] == ("squares", 100)
    assert stream.counts(3) == {"squares": 12}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"global_batch_size": 10, "micro_batch_size": 4}, "choose a multiple of 4"),
        ({"world_size": 5}, "choose a multiple of 10"),
        ({"global_batch_size": 0}, "global_batch_size is 0"),
        ({"micro_batch_size": 0}, "micro_batch_size is 0"),
        ({"rank": 2, "world_size": 2}, "rank is 2"),
        ({"size": 0}, "has no samples"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(UserError, match=words):
        shard_stream(**options)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5))
def test_evaluation_sees_each_sample_once_in_equally_many_batches(size, batch_size, world):
    streams = [EvalStream(Squares(size), batch_size, rank, world) for rank in range(world)]
    batches = [list(stream) for stream in streams]
    assert (
        {len(stream) for stream in streams}
        == {len(of_rank) for of_rank in batches}
        == {-(-size // (batch_size * world))}
    )
    seen = Counter()
    for of_rank in batches:
        for batch in of_rank:
            assert batch["index"].shape == (batch_size,)
            for index, value, labels in zip(
                *(batch[key].tolist() for key in ("index", "value", "labels")), strict=True
            ):
                seen[index] += index >= 0
                assert labels == ([-100, -100] if index < 0 else [index, 7])
                assert index < 0 or value == [index, index**2]
    assert +seen == Counter(range(size))


def test_an_empty_evaluation_is_refused():
    with pytest.raises(UserError, match="no samples"):
        EvalStream(Squares(0), 3)
