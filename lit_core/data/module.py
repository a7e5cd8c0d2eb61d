"""Base of the data modules: a training stream, loaders of the evaluated sources, checks of sizes and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from lit_core.data.loader import StreamLoader
from lit_core.data.stream import EvalStream, SampleSource, Stream
from lit_core.errors import UserError, check_at_least
from lit_core.lightning.checkpoint_module import content_to_build
from lit_core.lightning.hyperparameters import KeepsHyperparameters
from lit_core.lightning.internals import unwrapped
from lit_core.lightning.switches import refuse_switches_of
from lit_core.seeds import part_seed


class StreamDataModule(KeepsHyperparameters, LightningDataModule):
    """Base of the data modules, which train on a stream and evaluate on named sources.

    1. In ``setup("fit")`` a subclass calls `start_training`, which makes the stream for this rank and derives the
       gradient accumulation from its batch sizes.
    2. ``train_dataloader`` reads that stream. `ResumeStream` sets its position, so that a resumed run skips what was
       consumed; without that callback training is refused.
    3. In ``val_dataloader`` and ``test_dataloader`` a subclass calls `evaluation_loaders`, which read this rank's share
       of each source in order.

    Without a trainer the data module reads as the only rank.

    Args:
        global_batch_size: Samples per optimizer step, over all devices and accumulated micro-batches.
        micro_batch_size: Samples per device and forward pass; None divides global_batch_size by the number of devices.
        num_workers: Processes per loader that read data; 0 reads in the training process.
        seed: Seed of the order of the training data, 0 or more; None takes that of the run.
    """

    def __init__(
        self, global_batch_size: int, micro_batch_size: int | None = None, num_workers: int = 0, seed: int | None = None
    ) -> None:
        super().__init__()
        check_at_least(0, num_workers=num_workers)
        self.global_batch_size, self.micro_batch_size = global_batch_size, micro_batch_size
        self.num_workers, self.seed = num_workers, part_seed(seed)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Any:
        """Rebuild a data module from a checkpoint as Lightning does.

        Args:
            checkpoint_path: The file.
            args: Those of Lightning's method.
            options: Those of Lightning's method, and arguments that replace the checkpoint's.

        Raises:
            UserError: If the checkpoint names a class that must be trusted first.
        """
        content_to_build(cls, checkpoint_path, options)
        return unwrapped(super().load_from_checkpoint)(cls, checkpoint_path, *args, **options)

    @property
    def ranks(self) -> dict[str, int]:
        """This process's ``rank`` and the ``world_size``."""
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    @property
    def samples_per_pass(self) -> int:
        """Samples per device and forward pass."""
        return self.micro_batch_size or max(1, self.global_batch_size // self.ranks["world_size"])

    def start_training(self, make_stream: Callable[..., Stream]) -> None:
        """Make the training stream of this rank and set the trainer's gradient accumulation.

        Args:
            make_stream: Makes the stream from its batch sizes, ranks and seed, which are keyword arguments.

        Raises:
            UserError: If `ResumeStream` is missing, the user asked for another gradient accumulation, or a switch or
                callback of the trainer contradicts a stream.
        """
        trainer = self.trainer
        assert trainer is not None
        need_resume_stream(type(self).__name__, trainer.callbacks)  # type: ignore[attr-defined]
        refuse_switches_of(trainer)
        self.stream = make_stream(
            global_batch_size=self.global_batch_size,
            micro_batch_size=self.samples_per_pass,
            seed=self.seed,
            **self.ranks,
        )
        set_accumulation(trainer, self.stream)

    def train_dataloader(self) -> StreamLoader:
        """Return the loader of the training stream."""
        return StreamLoader(self.stream, num_workers=self.num_workers)

    def evaluation_loaders(
        self, sources: Mapping[str, SampleSource], limit: int | None = None
    ) -> dict[str, StreamLoader]:
        """Return a loader for each source, which reads this rank's share of its samples in order.

        Args:
            sources: The sources by name.
            limit: Maximum number of samples per source, the first ones; None takes all.
        """
        parts = {
            name: source if limit is None else SourceSubset(source, range(min(limit, len(source))))
            for name, source in sources.items()
        }
        return {
            name: StreamLoader(EvalStream(part, self.samples_per_pass, **self.ranks), num_workers=self.num_workers)
            for name, part in parts.items()
        }


def set_accumulation(trainer: Any, stream: Stream) -> None:
    """Set the trainer's gradient accumulation to the stream's micro-batches per optimizer step and device.

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


class SourceSubset:
    """A subset of the samples of a source.

    Args:
        source: The source.
        indices: Indices of the samples in it.
    """

    def __init__(self, source: SampleSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return self.source[self.indices[index]]


def need_resume_stream(data: str, callbacks: Collection[Any]) -> None:
    """Refuse to train without `ResumeStream`, since a resumed run would repeat samples and lose others."""
    from lit_core.data.resume import ResumeStream

    if not any(isinstance(callback, ResumeStream) for callback in callbacks):
        raise UserError(
            f"{data} needs the callback lit_core.data.ResumeStream, which keeps its position in checkpoints; add it to "
            "trainer.callbacks."
        )
