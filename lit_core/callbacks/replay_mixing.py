"""Replay: a share of each training batch is drawn from earlier data, constant or by a schedule."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lit_core.data import MixtureStream, StreamLoader
from lit_core.errors import UserError, check_at_least
from lit_core.lightning.internals import logs_this_step


class ReplaySchedule:
    """Base class of schedules that give the replayed fraction as a function of the optimizer step."""

    def __call__(self, step: int) -> float:
        """Return the fraction of a global batch that is replayed, from 0 to 1.

        Args:
            step: Optimizer steps already done.
        """
        raise NotImplementedError(f"{type(self).__name__} must define __call__.")


class LinearReplay(ReplaySchedule):
    """Replayed fraction that changes linearly from `start` to `end` and stays there.

    Args:
        start: Replayed fraction at the first step, from 0 to 1.
        end: Replayed fraction after `steps` optimizer steps, from 0 to 1.
        steps: Optimizer steps of the linear change, 1 or more.
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        self.start, self.end = _checked("start", start), _checked("end", end)
        check_at_least(1, steps=steps)
        self.steps = steps

    def __call__(self, step: int) -> float:
        """Return the replayed fraction of a step, from 0 to 1."""
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


class ReplayMixing(Callback):
    """Changes training: sets which fraction of each global batch is drawn from the replayed sources.

    Works with any LightningModule whose training loader is a `StreamLoader` over a `MixtureStream` of new and replayed
    sources, for example of texts, token windows or images. Replayed samples replace new ones, so the batch size and
    the compute per step do not change. The fraction is a pure function of the optimizer step, so a resumed run draws
    the samples that an uninterrupted run would have drawn.

    ====================================  ========  ===============================================================
    key                                   unit      moment
    ====================================  ========  ===============================================================
    ``train/replay_fraction``             0 to 1    logged step; drawn share of replayed samples in its global batch
    ``train/{source}/fraction``           0 to 1    same; drawn share of each source in its global batch
    ``train/{source}/samples``            samples   same; drawn in this run, this step included
    ``train/{source}/tokens``             tokens    same; where batches have ``input_ids`` of shape ``(batch, tokens)``
    ``train/{source}/epochs``             epochs    same; passes over the source, with decimals
    ``train/{source}/lifetime_samples``   samples   same; drawn in the life of the weights
    ``train/{source}/lifetime_tokens``    tokens    same; also of sources that only earlier runs read
    ``train/{source}/lifetime_epochs``    epochs    same
    ``train/lifetime_tokens``             tokens    same; their sum
    ====================================  ========  ===============================================================

    The life of the weights is this run and those that it branched from. Samples that another run drew in windows of
    another length count as the samples of this run that hold as many tokens. Tokens of a source that is not read any
    more are NaN where the length of its samples is not known.

    Args:
        fraction: Replayed fraction of each global batch, from 0 to 1, or a schedule of it over the optimizer steps.
    """

    def __init__(self, fraction: float | ReplaySchedule) -> None:
        self.fraction = fraction if isinstance(fraction, ReplaySchedule) else _checked("fraction", fraction)
        self._stream: MixtureStream | None = None
        self._seen = self._step = 0
        self._length: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the fraction of the stream before the first batch is drawn.

        Raises:
            UserError: If the training loader is not a `StreamLoader` over a `MixtureStream`.
        """
        loader = trainer.train_dataloader
        stream = loader.stream if isinstance(loader, StreamLoader) else None
        if not isinstance(stream, MixtureStream):
            raise UserError(
                f"ReplayMixing needs a StreamLoader over a MixtureStream, but the training loader is a "
                f"{type(loader).__name__}; return one from train_dataloader or leave the callback out."
            )
        stream.set_replay(self.fraction)
        self._stream, self._seen = stream, trainer.global_step * stream.accumulation

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the fraction of a stream that was reloaded."""
        loader = trainer.train_dataloader
        if isinstance(loader, StreamLoader) and loader.stream is not self._stream:
            self.on_train_start(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the optimizer step and the length of the token windows."""
        assert self._stream is not None
        position = getattr(trainer.train_dataloader, "position", None)
        # not the global step, which counts each of several optimizers
        self._step = self._seen // self._stream.accumulation if position is None else position()[0]
        self._seen += 1
        self._length = batch["input_ids"].shape[-1] if isinstance(batch, dict) and "input_ids" in batch else None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Log how many samples of each source this optimizer step draws over all ranks."""
        stream = self._stream
        assert stream is not None
        if not logs_this_step(trainer):
            return
        counts = stream.counts(self._step)
        total = sum(counts.values())
        values: dict[str, Any] = {"train/replay_fraction": sum(counts[name] for name in stream.replay) / total}
        consumed = stream.consumed(self._step + 1)
        for name in stream.names:
            samples = consumed[name] - stream.begun.get(name, 0)
            values[f"train/{name}/fraction"] = counts[name] / total
            for prefix, drawn in (("", samples), ("lifetime_", consumed[name])):
                values[f"train/{name}/{prefix}samples"] = float(drawn)
                values[f"train/{name}/{prefix}epochs"] = drawn / len(stream.sources[name])
            if self._length is not None:
                values[f"train/{name}/tokens"] = float(samples * self._length)
        if self._length is not None:
            lifetime = self._lifetime_tokens(stream, consumed, self._length)
            values |= {f"train/{name}/lifetime_tokens": tokens for name, tokens in lifetime.items()}
            values["train/lifetime_tokens"] = sum(lifetime.values())
        pl_module.log_dict(values)

    @staticmethod
    def _lifetime_tokens(stream: MixtureStream, consumed: dict[str, int], length: int) -> dict[str, float]:
        """Return the tokens by name that this run and those that it branched from drew of all their sources."""
        tokens = {}
        for name, samples in consumed.items():
            first = stream.begun.get(name, 0)
            earlier = float(first * length if name in stream.names else math.nan if first else 0)
            tokens[name] = stream.earlier_tokens.get(name, earlier) + (samples - first) * length
        return tokens


def _checked(argument: str, fraction: float) -> float:
    if not 0 <= fraction <= 1:
        raise UserError(f"`{argument}` is {fraction}, but it is a fraction of each batch; give a number from 0 to 1.")
    return float(fraction)
