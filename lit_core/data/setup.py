"""What the data modules share: gradient accumulation, loaders to evaluate with, and checks in one sentence."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lit_core.data.loader import StreamLoader
from lit_core.data.stream import EvalStream, Source, Stream
from lit_core.errors import UserError


def set_accumulation(trainer: Any, stream: Stream) -> None:
    """Let the trainer accumulate as many micro-batches as make up the stream's global batch.

    Raises:
        UserError: If the user asked for another number.
    """
    if trainer.accumulate_grad_batches not in (1, stream.accumulation):
        raise UserError(
            f"`trainer.accumulate_grad_batches` is {trainer.accumulate_grad_batches}, but a global batch of "
            f"{stream.global_batch_size} on {trainer.world_size} devices with a micro-batch of "
            f"{stream.micro_batch_size} makes {stream.accumulation}; leave it out."
        )
    trainer.accumulate_grad_batches = stream.accumulation


def evaluation_loaders(
    sources: Mapping[str, Source],
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    limit: int | None = None,
) -> dict[str, StreamLoader]:
    """Return a loader for each source, for this rank's share of its samples in their order.

    Args:
        sources: The sources by name.
        batch_size: Samples per device and forward pass.
        rank: Number of this process.
        world_size: Number of processes that evaluate.
        num_workers: Processes per loader that read.
        limit: Most samples per source, the first ones; None takes all.
    """
    return {
        name: StreamLoader(
            EvalStream(source if limit is None else First(source, limit), batch_size, rank, world_size),
            num_workers=num_workers,
        )
        for name, source in sources.items()
    }


class First:
    """The first samples of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self.source, self.limit = source, min(limit, len(source))

    def __len__(self) -> int:
        return self.limit

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return self.source[index]


def check_counts(counts: Mapping[str, int | None], num_workers: int) -> None:
    """Refuse counts below 1, and a number of workers below 0; None is not checked."""
    for argument, count in counts.items():
        if count is not None and count < 1:
            raise UserError(f"`{argument}` is {count}, but it must be at least 1; give a positive number.")
    if num_workers < 0:
        raise UserError(f"`num_workers` is {num_workers}, but it can't be negative; give 0 or more.")


def need_resume_stream(data: str, callbacks: Collection[Any]) -> None:
    """Refuse to train without `ResumeStream`, since a resumed run would repeat samples and lose others."""
    from lit_core.data.resume import ResumeStream

    if not any(isinstance(callback, ResumeStream) for callback in callbacks):
        raise UserError(
            f"{data} needs the callback lit_core.data.ResumeStream, which keeps its position in checkpoints; add it to "
            "trainer.callbacks."
        )
