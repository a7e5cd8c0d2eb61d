"""Two processes train as one that accumulates all rows of each global batch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from lit_moe.doctor.check import Finding
from lit_moe.doctor.examine import found
from lit_moe.doctor.specimen import Specimen
from lit_moe.doctor.training import SpecimenData, small_trainer
from lit_moe.functional.token_nll import IGNORED
from lit_moe.nn import HFDecoder

_RATE, _STEPS, _RANKS, _SECONDS = 0.1, 2, 2, 120
#: Largest difference of weights relative to how far training moves them. Sums of another order differ by about 1e-6.
_TOLERANCE = 1e-3


def check(specimen: Specimen) -> Finding:
    """Compare two processes with a loop over torch's gradients of the mean over all scored tokens of a step.

    Args:
        specimen: The small model.
    """
    with tempfile.TemporaryDirectory() as home:
        finding = _train_on_ranks(specimen, Path(home))
        if finding.verdict != "pass":
            return finding
        trained = torch.load(Path(home, "weights.pt"), weights_only=True)
    begun, expected = _reference(specimen)
    moved = max(float((expected[name] - begun[name]).abs().max()) for name in expected)
    apart = {name: float((trained[name] - expected[name]).abs().max()) for name in expected}
    worst = max(apart, key=lambda name: apart[name])
    if apart[worst] > _TOLERANCE * moved:
        return Finding("fail", f"{worst} differs by {apart[worst]:.3g}, where training moves weights by {moved:.3g}.")
    return Finding("pass")


def _sgd(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=_RATE)


def _reference(specimen: Specimen) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the parameters before and after training by transformers' logits and torch alone."""
    model = specimen.decoder().model
    model.train()
    begun = {name: value.detach().clone() for name, value in model.named_parameters()}
    optimizer = _sgd(model.parameters())
    for batch in _batches(specimen):
        scored = (batch["labels"] != IGNORED).sum()
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
            nats = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
            (nats / scored).backward()
        optimizer.step()
        optimizer.zero_grad()
    return begun, {name: value.detach() for name, value in model.named_parameters()}


def _batches(specimen: Specimen) -> list[dict[str, Tensor]]:
    """Return the global batch of each step."""
    data = SpecimenData(specimen)
    stream = data.stream_of(global_batch_size=4, micro_batch_size=4, rank=0, world_size=1, seed=specimen.seed)
    return [stream.micro_batch(step) for step in range(_STEPS)]


def _train_on_ranks(specimen: Specimen, home: Path) -> Finding:
    """Train in several processes, and return what the first of them that fails says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a fork starts at once; but one of a process that has used a GPU cannot work
    start = "fork" if "fork" in multiprocessing.get_all_start_methods() and not torch.cuda.is_initialized() else "spawn"
    context: Any = multiprocessing.get_context(start)
    pipe, end = context.Pipe(duplex=False)
    processes = [context.Process(target=_rank, args=(rank, port, specimen, home, end)) for rank in range(_RANKS)]
    for process in processes:
        process.start()
    end.close()
    said: dict[int, Finding] = {}
    until = time.monotonic() + _SECONDS
    try:
        while len(said) < _RANKS and pipe.poll(max(0.0, until - time.monotonic())):
            rank, finding = pipe.recv()
            said[rank] = finding
            if finding.verdict != "pass":
                return Finding(finding.verdict, finding.reason)
    except EOFError:
        return Finding("fail", "A process died.")
    finally:
        for process in processes:
            process.kill()
            process.join()
        pipe.close()
    if len(said) < _RANKS:
        return Finding("fail", f"The processes wait for each other without end, or need more than {_SECONDS} s.")
    return Finding("pass")


def _rank(rank: int, port: int, specimen: Specimen, home: Path, end: Any) -> None:
    os.environ |= {
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0"},
        **{"WORLD_SIZE": str(_RANKS), "LOCAL_RANK": str(rank)},
    }
    torch.set_num_threads(1)
    end.send((rank, found(lambda specimen: _fit(specimen, home), specimen)))
    end.close()


def _fit(specimen: Specimen, home: Path) -> Finding:
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=_SECONDS))
    module = specimen.module(optimizer=_sgd)
    trainer = small_trainer(home, _STEPS, devices=_RANKS, strategy=strategy)
    trainer.fit(module, datamodule=SpecimenData(specimen, micro_batch_size=1))
    if trainer.is_global_zero:
        assert isinstance(module.decoder, HFDecoder)
        torch.save(
            {name: value.detach() for name, value in module.decoder.model.named_parameters()}, home / "weights.pt"
        )
    trainer.strategy.barrier()
    return Finding("pass")
