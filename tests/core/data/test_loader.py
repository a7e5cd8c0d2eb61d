"""The loader: the same batches from any processes, a position asked for late, errors in one sentence."""

import errno
import itertools
import logging
import multiprocessing.synchronize
import os

import pytest
import tiny_run
import torch

from lit_core.data import EvalStream, ShardStream, StreamLoader, TokenWindows
from lit_core.errors import RunFailure, UserError


class Numbers:
    def __init__(self, size=30, fails_at=None, error=RunFailure):
        self.size, self.fails_at, self.error = size, fails_at, error

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index == self.fails_at:
            raise self.error("000000.tar is damaged; restore it.")
        return {"labels": torch.full((3,), index)}


def stream(source=None, **options):
    return ShardStream(source or Numbers(), "x", **{"global_batch_size": 8, "micro_batch_size": 2, **options})


def windows(folder):
    return TokenWindows(tiny_run.write_tokens(folder, tiny_run.byte_tokens(tiny_run.real_documents())[:999]), 30)


def numbers(batches, count):
    return [batch["index"].tolist() for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize(("workers", "context"), [(1, "fork"), (2, "fork"), (1, "spawn"), (2, "forkserver")])
def test_any_processes_give_the_same_batches(tmp_path, workers, context):
    expected = list(itertools.islice(stream(windows(tmp_path)), 23))
    loader = StreamLoader(stream(windows(tmp_path)), workers, multiprocessing_context=context)
    for a, b in zip(itertools.islice(loader, 23), expected, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    if context != "fork":
        return
    evaluation = EvalStream(Numbers(29), 4, 1, 2)
    here, there = (list(StreamLoader(evaluation, processes)) for processes in (0, workers))
    assert len(here) == len(there) == len(evaluation)
    for a, b in zip(here, there, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Mixed:
    """Samples of all kinds, small or beyond what goes through a pipe."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return {
            "flag": index % 2 == 0,
            "pixels": torch.arange(self.size, dtype=torch.uint8) + index,
            "labels": torch.full((3, 1), index, dtype=torch.int16),
            "text": f"sample {index}",
            "mask": torch.arange(5) == index,
            "nothing": torch.empty(0),
            "y": index / 3,
        }


@pytest.mark.parametrize("size", [7, 1 << 20])
def test_tensors_of_any_type_and_size_come_from_another_process_as_they_are(size):
    here, there = (list(StreamLoader(EvalStream(Mixed(size), 4), workers)) for workers in (0, 1))
    assert len(here) == len(there) == 3
    for a, b in zip(here, there, strict=True):
        assert list(a) == list(b) and a["text"] == b["text"]
        for key in a.keys() - {"text"}:
            assert a[key].dtype == b[key].dtype and torch.equal(a[key], b[key])
            before = {other: b[other].clone() for other in b.keys() - {"text", key}}
            b[key].zero_()
            assert all(torch.equal(b[other], value) for other, value in before.items()), "memory does not overlap"


@pytest.mark.parametrize("workers", [0, 2])
def test_the_position_is_asked_for_at_the_first_batch(workers):
    asked, loader = [], StreamLoader(stream(), workers)
    batches = iter(loader)
    loader.position = lambda: asked.append(1) or (3, {"x": 100})
    assert not asked
    assert numbers(batches, 2) == [[100, 101], [102, 103]]
    assert len(asked) == 1 and len(loader) == 4 * 4


def test_without_a_position_a_second_iterator_goes_on_after_the_last_whole_step():
    loader = StreamLoader(stream())
    assert numbers(iter(loader), 6)[-1] == [10, 11]
    assert numbers(iter(loader), 5)[0] == [8, 9]
    assert numbers(iter(loader), 1)[0] == [16, 17]


def test_loading_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    for workers in (0, 1):
        numbers(StreamLoader(stream(), workers), 3)
        list(StreamLoader(EvalStream(Numbers(4), 2), workers))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("error", [RunFailure, UserError, ZeroDivisionError])
def test_errors_arrive_as_they_were_raised_and_leave_no_process(workers, error):
    with pytest.raises(error) as raised:
        numbers(StreamLoader(stream(Numbers(fails_at=3, error=error)), workers), 99)
    assert "000000.tar is damaged; restore it." in str(raised.value)
    assert not multiprocessing.active_children()  # though the traceback still has the iterator


def test_a_reader_that_fails_leaves_no_process():
    batches = iter(StreamLoader(stream(), 2))
    next(batches)
    with pytest.raises(ZeroDivisionError):
        batches.throw(ZeroDivisionError)
    assert not multiprocessing.active_children()


def test_starting_over_is_said_once(caplog):
    with caplog.at_level(logging.WARNING):
        numbers(StreamLoader(stream()), 70)
        numbers(StreamLoader(stream(rank=1, world_size=2)), 70)
    assert [record.getMessage() for record in caplog.records] == [
        "All 30 samples of source x were seen; it starts over in another order."
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        loader = StreamLoader(stream())
        loader.position = lambda: (4, {"x": 32})
        numbers(loader, 70)
        assert not caplog.records  # it was said before the resume
        loader.position = lambda: (3, {"x": 30})
        numbers(loader, 1)
        assert len(caplog.records) == 1


def test_nothing_is_resumed_by_the_loader_itself():
    loader = StreamLoader(stream())
    assert loader.state_dict() == {}
    loader.load_state_dict({})


def test_a_batch_without_room_in_shared_memory_is_one_sentence(monkeypatch):
    """The thread that sends a batch would print a traceback, and the run would wait for the batch for ever."""

    class Large(Numbers):
        def __getitem__(self, index):
            return {"labels": torch.zeros(1 << 18, dtype=torch.int64)}

    def full(_):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(RunFailure, match="no room in the shared memory, /dev/shm"):
        next(iter(StreamLoader(stream(Large()), 1, multiprocessing_context="fork")))


def test_locks_without_room_in_shared_memory_name_the_place(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", full)
    with pytest.raises(OSError, match="No space left on device: '/dev/shm'"):
        next(iter(StreamLoader(stream(), 1, multiprocessing_context="fork")))
