"""Two processes train as one that accumulates all rows of each global batch, with all auxiliary losses."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from lit_core.files.temporary import scratch
from lit_moe.doctor.check import Finding
from lit_moe.doctor.examine import found
from lit_moe.doctor.losses import FACTORS, StepLosses
from lit_moe.doctor.routing import routed
from lit_moe.doctor.specimen import Specimen
from lit_moe.doctor.training import SpecimenData, small_trainer
from lit_moe.functional.token_nll import IGNORED
from lit_moe.nn import HFDecoder

_RATE, _STEPS, _RANKS, _SECONDS = 0.1, 2, 2, 120
#: Largest difference of weights relative to how far training moves them. Sums of another order differ by about 1e-6.
_TOLERANCE = 1e-3


def check(specimen: Specimen) -> Finding:
    """Compare the weights of two processes, after each optimizer step, with those of a loop over torch's gradients.

    The loop's loss is the mean over all scored tokens of a step, and its auxiliary losses are those of their formulas.

    Args:
        specimen: The small model.
    """
    with scratch("doctor") as home:
        finding = _train_on_ranks(specimen, home)
        if finding.verdict != "pass":
            return finding
        trained = torch.load(home / "weights.pt", weights_only=True)
    begun, *expected = _reference(specimen)
    for step, (ours, theirs) in enumerate(zip(trained, expected, strict=True), 1):
        moved = max(float((theirs[name] - begun[name]).abs().max()) for name in theirs)
        apart = {name: float((ours[name] - theirs[name]).abs().max()) for name in theirs}
        worst = max(apart, key=lambda name: apart[name])
        if apart[worst] > _TOLERANCE * moved:
            return Finding(
                "fail",
                f"After step {step}, {worst} differs by {apart[worst]:.3g}, where training moved weights by "
                f"{moved:.3g}.",
            )
    return Finding("pass")


def _sgd(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=_RATE)


def _weights(decoder: HFDecoder) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in decoder.model.named_parameters()}


def _reference(specimen: Specimen) -> list[dict[str, Tensor]]:
    """Return the weights before training and after each step, by transformers' logits, formulas and torch alone."""
    decoder = specimen.decoder().train()
    losses, optimizer, found = StepLosses(decoder), _sgd(decoder.model.parameters()), [_weights(decoder)]
    data = SpecimenData(specimen, micro_batch_size=1)
    sizes = {"global_batch_size": data.global_batch_size, "micro_batch_size": 1, "seed": specimen.seed}
    streams = [data.stream_of(rank=rank, world_size=_RANKS, **sizes) for rank in range(_RANKS)]
    each = data.global_batch_size // _RANKS
    for step in range(_STEPS):
        batches = [[stream.micro_batch(step * each + part) for stream in streams] for part in range(each)]
        scored = sum((batch["labels"] != IGNORED).sum() for batches_of_ranks in batches for batch in batches_of_ranks)
        for batches_of_ranks in batches:
            _accumulate(decoder, losses, batches_of_ranks, scored)
        optimizer.step()
        optimizer.zero_grad()
        losses.end_step()
        found.append(_weights(decoder))
    return found


def _accumulate(decoder: HFDecoder, losses: StepLosses, batches: list[dict[str, Tensor]], scored: Any) -> None:
    """Add the gradients of the rows that the ranks run at once, each divided by all scored tokens of the step."""
    nats, calls, total = [], [], torch.zeros(())
    for batch in batches:
        with routed(decoder.model, losses.gates) as seen:
            logits = decoder.model(input_ids=batch["input_ids"], use_cache=False).logits[0]
        labels = batch["labels"][0]
        nats.append(nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
        calls.append(seen)
    for batch, row_nats, auxiliary in zip(batches, nats, losses.of(calls, rows=1), strict=True):
        total = total + row_nats + auxiliary * (batch["labels"] != IGNORED).sum()
    (total / scored).backward()


class _KeptSteps(Callback):
    """Keeps the weights after each optimizer step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Keep them, where the batch was the last of a step."""
        if trainer.global_step > len(self.weights):
            self.weights.append(_weights(pl_module.decoder))


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
    factors: dict[str, Any] = dict(FACTORS) if specimen.decoder().watched else {}
    kept = _KeptSteps()
    trainer = small_trainer(home, _STEPS, kept, devices=_RANKS, strategy=strategy, enable_checkpointing=False)
    trainer.fit(specimen.module(factors, optimizer=_sgd), datamodule=SpecimenData(specimen, micro_batch_size=1))
    if trainer.is_global_zero:
        torch.save(kept.weights, home / "weights.pt")
    trainer.strategy.barrier()
    return Finding("pass")
