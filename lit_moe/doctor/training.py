"""Short trainings of a small model by the Trainer, as `lit-moe fit` does them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from lit_core.data import ResumeStream, ShardStream
from lit_core.data.module import StreamDataModule
from lit_moe.doctor.specimen import Specimen
from lit_moe.functional.token_nll import IGNORED


class SpecimenData(StreamDataModule):
    """Random tokens of a small model to train on: each row of another number of scored tokens.

    Args:
        specimen: The small model.
        rows: Number of rows.
        length: Tokens per row.
        global_batch_size: Rows per optimizer step, over all devices and accumulated micro-batches.
        micro_batch_size: Rows per device and forward pass.
    """

    def __init__(
        self,
        specimen: Specimen,
        rows: int = 16,
        length: int = 16,
        global_batch_size: int = 4,
        micro_batch_size: int = 2,
    ) -> None:
        super().__init__(global_batch_size, micro_batch_size, seed=specimen.seed)
        tokens = specimen.tokens(rows, length + 1)
        labels = tokens[:, 1:].clone()
        for row, scored in enumerate(labels):
            scored[: (3 * row) % (length - 1)] = IGNORED
        self.rows: list[dict[str, Tensor]] = [
            {"input_ids": ids, "labels": scored} for ids, scored in zip(tokens[:, :-1], labels, strict=True)
        ]

    def setup(self, stage: str) -> None:
        """Make the stream."""
        self.start_training(self.stream_of)

    def stream_of(self, **sizes: Any) -> ShardStream:
        """Return the stream of the rows.

        Args:
            sizes: Batch sizes, ranks and seed.
        """
        return ShardStream(self.rows, "specimen", **sizes)


def small_trainer(folder: Path, max_steps: int, *callbacks: Any, **arguments: Any) -> Trainer:
    """Return a silent trainer on the CPU.

    Args:
        folder: Folder of what it writes.
        max_steps: Optimizer steps.
        callbacks: Callbacks besides `ResumeStream`.
        arguments: Further arguments of the Trainer.
    """
    settings: dict[str, Any] = {
        **{"accelerator": "cpu", "devices": 1, "logger": False, "max_steps": max_steps, "max_epochs": -1},
        **{"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": bool(callbacks)},
        **{"num_sanity_val_steps": 0, "limit_val_batches": 0, "default_root_dir": folder},
        "callbacks": [ResumeStream(), *callbacks],
    }
    return Trainer(**{**settings, **arguments})
