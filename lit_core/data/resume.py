"""`ResumeStream`, a callback that resumes a stream exactly, also mid-epoch and on another number of devices."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import DoublePrecision
from lightning.pytorch.trainer.states import TrainerFn

from lit_core.data.loader import StreamLoader
from lit_core.data.order import ORDER
from lit_core.data.stream import Stream
from lit_core.errors import UserError
from lit_core.files.json_files import checked_state
from lit_core.lightning.internals import given_train_loader, set_logged_step
from lit_core.lightning.schedules import check_step
from lit_core.lightning.switches import refuse_switches_of
from lit_core.screen import rank_zero_info
from lit_core.seeds import run_seed

_COUNTERS = ("ready", "started", "processed", "completed")


class _FirstState(TypedDict):
    step: int
    consumed: dict[str, int]
    samples: dict[str, int]
    global_batch_size: int
    batches_per_step: int
    seed: int


class _State(_FirstState, total=False):
    """With what the first checkpoints did not have."""

    begun: dict[str, int]
    earlier_tokens: dict[str, int]
    sources: dict[str, dict[str, int | str | None]]
    noise_seed: int
    order: int


class ResumeStream(Callback):
    """Changes training so that a resumed run equals an uninterrupted one, bit for bit on the same layout.

    1. It counts the consumed samples at optimizer-step boundaries and saves the counts in checkpoints. A checkpoint
       written between two micro-batches of a step, as after an exception, is reset to the preceding boundary; so are
       buffers that the forward pass changes, such as those of batch norms.
    2. On resume it sets the start position of the training `StreamLoader`, and of one that Lightning reloads.
    3. Before each micro-batch it seeds torch, NumPy and Python from the seed of the run, the index of the micro-batch
       and the rank, so that dropout needs no saved state. Without `seed_everything` the stream's seed takes its place.

    With any other training loader it does nothing.

    Attributes:
        step: Optimizer steps done.
        consumed: Samples consumed by source name.
    """

    def __init__(self) -> None:
        self.step = 0
        self._given: dict[str, int] = {}  # samples consumed, as long as there is no stream
        self._stream: Stream | None = None
        self._saved: dict[str, Any] | None = None
        self._parent: Mapping[str, Any] | None = None
        self._known: dict[str, dict[str, Any]] = {}  # what is known of each source that was ever read
        self._begun: dict[str, int] | None = {}  # samples that counted as consumed when the run began, if known
        self._earlier_tokens: dict[str, int] = {}  # read by the runs that it branched from, where known
        self._noise_seed = 0  # of dropout and of whatever else draws in training
        self._first_batch = True
        self._seen = 0  # micro-batches since training began, in units of the present layout
        self._before = 0  # batches that Lightning had processed when this counter stood at 0
        self._global_step = 0
        self._buffers: dict[str, torch.Tensor] = {}  # those of the module before an unfinished step

    @property
    def consumed(self) -> dict[str, int]:
        """Samples consumed by source name."""
        return dict(self._given) if self._stream is None else self._stream.consumed(self.step)

    def branch(self, consumed: Mapping[str, int], parent: Mapping[str, Any] | None = None) -> None:
        """Begin a new run, at step 0, after the samples that another run consumed.

        1. A source of the same samples continues after them.
        2. A source of the same tokens in windows of another length continues after as many tokens.
        3. Other data by the name of a source are refused, or read from the start where the stream does not stand for
           its data by names; see `Stream`.
        4. With the same seed, the order of the samples is that of the other run, so none is lost or repeated.

        Args:
            consumed: Samples by source name; must be called before training starts.
            parent: The whole state that this callback saved in the other run; None compares nothing.
        """
        self._begin(0, consumed)
        self._parent = parent

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse switches that contradict a `StreamLoader` that was given to ``fit``, before Lightning changes it.

        In double precision it converts the module, since Lightning would do so only after it has rounded the weights of
        a checkpoint to those of the module.

        Raises:
            UserError: If there is one.
        """
        if stage == "fit" and isinstance(trainer.precision_plugin, DoublePrecision):
            trainer.precision_plugin.convert_module(pl_module)
        if stage == "fit" and isinstance(given_train_loader(trainer), StreamLoader):
            refuse_switches_of(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the start position of the training loader.

        Raises:
            UserError: If trainer and stream do not match, or the checkpoint is of another stream.
        """
        loader = trainer.train_dataloader
        if not isinstance(loader, StreamLoader) or not isinstance(loader.stream, Stream):
            return
        stream = loader.stream
        refuse_switches_of(trainer)
        _check_trainer(trainer, stream)
        seed = run_seed()
        self._noise_seed = stream.seed if seed is None else seed
        if self._saved is not None:
            _check_same_stream(stream, self._saved, "the checkpoint")
            stream.order = _order_of(self._saved)
            self._noise_seed = self._saved.get("noise_seed", stream.seed)  # the first checkpoints did not name it
            self._saved = None
        elif self._parent:
            self._given = {**self._given, **_continued(stream, self._parent, self._given)}
            if self._parent["seed"] == stream.seed:
                stream.order = _order_of(self._parent)
            self._known = _known_of(self._parent)
            self._begun, self._earlier_tokens = dict(self._given), _tokens_of(self._parent)
            self._parent = None
        elif trainer.global_step and self._stream is None:
            raise UserError(
                "The checkpoint to resume from does not say which samples were consumed, since ResumeStream was not "
                "among the callbacks; give it to --branch_from instead."
            )
        self._attach(loader, stream)
        self._seen = self.step * stream.accumulation
        progress = trainer.fit_loop.epoch_loop.batch_progress.total.state_dict()
        self._before = progress["processed"] - self._seen
        self._global_step = trainer.global_step
        self._buffers = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a reloaded loader, of the same stream or of a new one, go on where the former one ended.

        Raises:
            UserError: If the new loader reads another stream.
        """
        loader = trainer.train_dataloader
        if self._stream is None or not isinstance(loader, StreamLoader) or loader.position is not None:
            return
        stream = loader.stream
        if isinstance(stream, Stream):
            _check_trainer(trainer, stream)
            _check_same_stream(stream, self._state(self.step), "the former loader")
            stream.order = self._stream.order
            self._attach(loader, stream)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the random number generators for the micro-batch; keep the buffers as they are before a step."""
        if self._stream is None:
            return
        if self._seen % self._stream.accumulation == 0:
            self._buffers = {name: buffer.clone() for name, buffer in pl_module.named_buffers()}
        if self._first_batch:  # Lightning's own count, the x axis of its loggers, is not exact after a resume
            set_logged_step(trainer, self.step)
            if self._begun is None:
                self._begun = _begun_of(self._stream, self.step)
            self._stream.begun, self._stream.earlier_tokens = self._begun, self._earlier_tokens
            self._first_batch = False
        digest = hashlib.blake2b(f"{self._noise_seed}\0{self._seen}\0{self._stream.rank}".encode(), digest_size=8)
        seed = int.from_bytes(digest.digest(), "little")
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the micro-batch; batches that were only read ahead are not counted."""
        if self._stream is None:
            return
        self._seen += 1
        if trainer.global_step != self._global_step:
            self._global_step = trainer.global_step
            self.step = self._seen // self._stream.accumulation
            self._buffers = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the state, and reset Lightning's counters and the buffers to the last optimizer-step boundary."""
        if self._stream is None:
            return
        # the optimizer may have stepped in a batch that did not end, since another callback failed
        has_stepped = trainer.global_step != self._global_step
        step = self.step + has_stepped
        if self._buffers and not has_stepped:
            weights = checkpoint["state_dict"]
            weights.update({name: buffer for name, buffer in self._buffers.items() if name in weights})
        checkpoint["callbacks"][self.state_key] = self._state(step)
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        surplus = batches["total"]["processed"] - self._before - step * self._stream.accumulation
        for counters in (batches["total"], batches["current"]):
            counters["processed"] -= surplus
            counters["completed"] = min(counters["completed"] - max(surplus, 0), counters["processed"])

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct Lightning's counters before it reads them."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        saved = checkpoint["callbacks"].get(self.state_key)
        self._saved = None if saved is None else checked_state(_State, saved, type(self).__name__)
        if self._saved is None:
            return
        check_step(self._saved["step"], "stream")
        if not self._saved["batches_per_step"]:
            raise UserError("The stream in --ckpt_path had 0 batches in a step, but needs 1; give another checkpoint.")
        self._begin(self._saved["step"], self._saved["consumed"])
        self._known, self._begun = _known_of(self._saved), self._saved.get("begun")
        self._earlier_tokens = dict(self._saved.get("earlier_tokens", {}))
        fit_loop = checkpoint["loops"]["fit_loop"]
        batches, epochs = fit_loop["epoch_loop.batch_progress"], fit_loop["epoch_progress"]
        old, new = self._saved["batches_per_step"], trainer.accumulate_grad_batches
        for counters in (batches["total"], batches["current"]):
            incomplete = counters["processed"] - counters["completed"]
            counters["processed"] = counters["processed"] // old * new
            counters["ready"] = counters["started"] = counters["processed"]  # unfinished batches are not counted
            counters["completed"] = counters["processed"] - incomplete
        epoch_ended = epochs["total"]["processed"] == epochs["total"]["ready"]
        batch_ended = batches["total"]["processed"] == batches["total"]["completed"]
        if batches["is_last_batch"] and (epoch_ended or not batch_ended):
            # Saved at the end of an epoch, or of its last batch. If max_steps is set, Lightning takes the former for
            # the middle of the epoch; after the latter it counts epochs wrongly. Neither runs on_train_epoch_end
            # again; after a validation at the last batch, it is due and the counters are right.
            batches["is_last_batch"] = False
            batches["current"] = dict.fromkeys(_COUNTERS, 0)
            batches["total"]["completed"] = batches["total"]["processed"]
            for counters in epochs.values():
                counters["processed"] = counters["completed"] = counters["ready"]

    def _attach(self, loader: StreamLoader, stream: Stream) -> None:
        """Set the position of a loader to that of the run."""
        self._known |= {name: _facts(source) for name, source in stream.sources.items()}
        stream.start_at(self.step, self.consumed)
        self._stream = stream
        self._first_batch = True
        loader.position = lambda: (self.step, self.consumed)

    def _state(self, step: int) -> dict[str, Any]:
        """Return what a checkpoint keeps after so many optimizer steps."""
        assert self._stream is not None
        known = {} if self._begun is None else {"begun": dict(self._begun)}
        return known | {
            "step": step,
            "consumed": self._stream.consumed(step),
            "earlier_tokens": dict(self._earlier_tokens),
            "samples": {name: facts["samples"] for name, facts in self._known.items()},
            "sources": {name: dict(facts) for name, facts in self._known.items()},
            "global_batch_size": self._stream.global_batch_size,
            "batches_per_step": self._stream.accumulation,
            "seed": self._stream.seed,
            "noise_seed": self._noise_seed,
            "order": self._stream.order,
        }

    def _begin(self, step: int, consumed: Mapping[str, int]) -> None:
        self.step, self._given, self._stream = step, dict(consumed), None
        self._begun, self._earlier_tokens = dict(consumed), {}


def _check_trainer(trainer: Trainer, stream: Stream) -> None:
    if (trainer.global_rank, trainer.world_size) != (stream.rank, stream.world_size):
        raise UserError(
            f"The stream is made for rank {stream.rank} of {stream.world_size}, but this is rank {trainer.global_rank} "
            f"of {trainer.world_size}; build it in setup() or later, from the trainer's global_rank and world_size."
        )
    if trainer.accumulate_grad_batches != stream.accumulation:
        raise UserError(
            f"accumulate_grad_batches is {trainer.accumulate_grad_batches}, but a global_batch_size of "
            f"{stream.global_batch_size} on {stream.world_size} devices with a micro_batch_size of "
            f"{stream.micro_batch_size} needs {stream.accumulation}; give this number to the Trainer, or set it in the "
            "data module's setup() with `self.trainer.accumulate_grad_batches = stream.accumulation`."
        )
    short = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # set where mypy does not see it
    if trainer.num_training_batches % stream.accumulation and not short:
        raise UserError(
            f"limit_train_batches leaves {trainer.num_training_batches} micro-batches per epoch, which is not a "
            f"whole number of optimizer steps; give a multiple of {stream.accumulation}."
        )


def _order_of(saved: Mapping[str, Any]) -> int:
    """Return the version of the order that a checkpoint was trained in; the first ones did not name it."""
    version = int(saved.get("order", 1))
    if version > ORDER:
        raise UserError(
            f"The checkpoint was trained in version {version} of the order of samples, but this version of lit-shift "
            f"knows versions up to {ORDER}; install the version that wrote the checkpoint, or a later one."
        )
    return version


def _check_same_stream(stream: Stream, saved: dict[str, Any], former: str) -> None:
    for key in ("global_batch_size", "seed"):
        if saved[key] != getattr(stream, key):
            raise UserError(
                f"{key} is {getattr(stream, key)}, but {former} was trained with {saved[key]}, so samples would "
                "be lost or repeated; keep it, or start a new run with --branch_from."
            )
    known = _known_of(saved)
    for name, source in stream.sources.items():
        difference = _difference(source, known.get(name, {}))
        if difference:
            raise UserError(
                f"source {name!r} {difference}, so samples would be lost or repeated; restore it, or start a new run "
                "with --branch_from."
            )


def _facts(source: Any) -> dict[str, Any]:
    """Return what tells a source from others: the number of its samples, their tokens, and its content, if known."""
    length, content = getattr(source, "length", None), getattr(source, "content", None)
    return {
        "samples": len(source),
        "length": length if isinstance(length, int) else None,
        "content": content if isinstance(content, str) else None,
    }


def _known_of(saved: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the facts on each source in a state; the first checkpoints had the number of samples only."""
    first = {name: {"samples": samples} for name, samples in saved["samples"].items()}
    return {**first, **saved.get("sources", {})}


def _begun_of(stream: Stream, step: int) -> dict[str, int]:
    """Return the samples that counted as consumed when a run began, which the first checkpoints do not tell."""
    consumed, quotas = stream.consumed(step), stream.quotas(step)
    if sum(consumed.values()) == step * stream.global_batch_size:
        return {}  # all of them are of the run
    return {name: max(0, count - quotas.get(name, 0)) for name, count in consumed.items()}


def _tokens_of(saved: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens by name that a run and those before it read, of sources with samples of a known length."""
    begun, earlier, known = saved.get("begun", {}), saved.get("earlier_tokens", {}), _known_of(saved)
    tokens = {}
    for name, count in saved["consumed"].items():
        length, first = known.get(name, {}).get("length"), begun.get(name, 0)
        if length is not None:
            tokens[name] = earlier.get(name, first * length) + (count - first) * length
    return tokens


def _difference(source: Any, known: Mapping[str, Any]) -> str | None:
    """Return in words how a source differs from what is known of it; None if it does not."""
    facts = _facts(source)

    def differs(key: str) -> bool:
        return None not in (facts[key], known.get(key)) and facts[key] != known[key]

    if differs("samples"):
        return f"has {facts['samples']} samples, but had {known['samples']} before"
    if differs("length"):
        return f"has samples of {facts['length']} tokens, but had {known['length']} before"
    return "holds other data than before" if differs("content") else None


def _continued(stream: Stream, parent: Mapping[str, Any], consumed: Mapping[str, int]) -> dict[str, int]:
    """Return the samples of each source that count as consumed in a run that branches from another one."""
    known = _known_of(parent)
    counts = {}
    for name, source in stream.sources.items():
        count, facts, theirs = consumed.get(name, 0), _facts(source), known.get(name, {})
        difference = _difference(source, theirs)
        if not count:
            continue
        same = facts["content"] is not None and facts["content"] == theirs.get("content")
        if difference and same and None not in (facts["length"], theirs.get("length")):
            counts[name] = count * theirs["length"] // facts["length"]
            rank_zero_info(f"Source {name!r} {difference}: {count} samples count as {counts[name]} of the new ones.")
        elif difference and stream.names_data:
            raise UserError(
                f"source {name!r} {difference}, so it is not known what of it the weights have seen; restore it, or "
                "give the source another name, under which it is read from the start."
            )
        elif difference:
            counts[name] = 0
            rank_zero_info(f"Source {name!r} {difference}; it is read from the start.")
        elif parent["seed"] != stream.seed and count % len(source):
            rank_zero_info(
                f"The seed of the order is {stream.seed}, but was {parent['seed']}: samples of {name!r} that were read "
                "in this epoch may come again before others."
            )
    return counts
