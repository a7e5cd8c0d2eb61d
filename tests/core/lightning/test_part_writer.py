"""Checkpoint folders are written while training goes on; a kill or a failure leaves the former one."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import remove_torn_files
from lit_core.lightning.part_writer import PartWriter
from lit_core.lightning.sharded_checkpoint import Snapshot, load_checkpoint_parts


def on_two(function, folder):
    """Run a function in two processes with a group; return their exit codes."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_rank, args=(rank, function, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def _rank(rank, function, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    function(rank, folder)
    dist.destroy_process_group()


def checkpoint(step, value):
    mesh = init_device_mesh("cpu", (2,))
    weight = distribute_tensor(torch.arange(10.0).view(5, 2) + value, mesh, [Shard(0)])
    return {"global_step": step, "state_dict": {"weight": weight, "buffer": torch.full((3,), float(value))}}


def value_of(path):
    state = load_checkpoint_parts(path)["state_dict"]
    whole = state["weight"].whole()
    assert torch.equal(whole, torch.arange(10.0).view(5, 2) + state["buffer"][0])
    return float(state["buffer"][0])


class Held:
    """Makes each write wait, before its end, until it is let go."""

    def __init__(self):
        self.go, self._write = threading.Event(), Snapshot.write
        Snapshot.write = lambda snapshot, *args: (self._write(snapshot, *args), self.go.wait(60))


def goes_on(rank, folder):
    held, writer, last = Held(), PartWriter(rank, 2), folder / "last.ckpt"
    first = checkpoint(1, 1)
    writer.save(first, folder / "step=1.ckpt")
    writer.save({**first, "global_step": 1}, last)  # of the same weights: the copy serves again
    copies = writer._snapshot
    first["state_dict"]["weight"].to_local().add_(100)  # as the next steps do
    first["state_dict"]["buffer"].add_(100)
    assert not last.exists()
    held.go.set()
    writer.wait()
    assert value_of(folder / "step=1.ckpt") == value_of(last) == 1
    held.go.clear()
    assert copies is not None and writer._snapshot is None
    writer.save(checkpoint(2, 2), last)
    writer.after_writing(lambda: (folder / "removed").touch())
    time.sleep(0.2)
    assert value_of(last) == 1 and not (folder / "removed").exists()
    held.go.set()
    writer.wait()
    assert value_of(last) == 2 and (folder / "removed").exists()


def fails(rank, folder):
    writer, last = PartWriter(rank, 2), folder / "last.ckpt"
    writer.save(checkpoint(1, 1), last)
    writer.wait()
    if rank == 1:
        Snapshot.write = lambda *args: (_ for _ in ()).throw(OSError("no space left"))
    writer.save(checkpoint(2, 2), last)
    writer.after_writing(lambda: (folder / "removed").touch())
    with pytest.raises(RunFailure, match=r"last\.ckpt was not written, since rank 1 failed: no space left"):
        writer.wait()
    assert value_of(last) == 1 and not (folder / "removed").exists()


def killed(rank, folder):
    writer = PartWriter(rank, 2)
    writer.save(checkpoint(1, 1), folder / "last.ckpt")
    writer.wait()
    Held()
    writer.save(checkpoint(2, 2), folder / "last.ckpt")
    while not list(folder.glob(f".*/part_0000{rank}.pt")):
        time.sleep(0.01)
    dist.barrier()
    os.kill(os.getpid(), signal.SIGKILL)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    assert on_two(goes_on, tmp_path) == [0, 0]


def test_a_device_that_fails_leaves_the_former_checkpoint_and_all_tell(tmp_path):
    assert on_two(fails, tmp_path) == [0, 0]
    assert not list(tmp_path.glob(".*"))


def test_a_kill_leaves_the_former_checkpoint_and_what_cannot_be_taken_for_one(tmp_path):
    assert on_two(killed, tmp_path) == [-signal.SIGKILL] * 2
    assert value_of(tmp_path / "last.ckpt") == 1
    (torn,) = tmp_path.glob(".*")
    torn = Path(torn).rename(tmp_path / "torn.ckpt")  # as nobody does
    (torn / "part_00001.pt").unlink()
    with pytest.raises(UserError, match=r"lacks some of its 2 parts|missing or damaged"):
        load_checkpoint_parts(torn)
    torn.rename(tmp_path / ".torn")
    remove_torn_files(tmp_path)
    assert value_of(tmp_path / "last.ckpt") == 1


def both(rank, folder):
    writer = PartWriter(rank, 2)
    for step, value in ((1, 1), (2, 2)):
        writer.save(checkpoint(step, value), folder / f"step={step}.ckpt")
    writer.save(checkpoint(2, 3), folder / "other.ckpt")
    writer.wait()


@pytest.mark.parametrize(
    ("other", "said"), [("step=1.ckpt", "of step 1, not 2"), ("other.ckpt", "of another checkpoint of its step")]
)
def test_a_part_of_another_checkpoint_is_refused(tmp_path, other, said):
    assert on_two(both, tmp_path) == [0, 0]
    (tmp_path / other / "part_00001.pt").replace(tmp_path / "step=2.ckpt" / "part_00001.pt")
    with pytest.raises(UserError, match=rf"whose part_00001.pt is {said}, so its parts do not belong together; copy"):
        load_checkpoint_parts(tmp_path / "step=2.ckpt")
