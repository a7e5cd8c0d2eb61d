"""What Lightning and our callbacks cost: the same training steps in a bare loop and through a trainer.

    python benchmarks/loop_overhead.py --output loop_overhead.json

All begin with the same weights in each round and read the same batches with the same loader, in this process. Times
are taken where a batch is handed out, so that setting up a trainer does not count. Losses are compared over all steps
before the timing. Validation, checkpoints and texts are no overhead of the loop and are left out.
"""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from data_stream import Stdlib
from layers import Mismatch
from side_by_side import (
    Contender,
    OtherWork,
    arguments,
    cell,
    finish,
    markdown,
    measure,
    new_result,
    progress,
    ratios,
)
from torch import Tensor

from lit_core.callbacks import FiniteLoss, GracefulStop, RunRecord
from lit_core.corpora import Austen
from lit_core.data import MixtureStream, ResumeStream, StreamLoader, TokenWindows
from lit_core.lightning.loggers import run_loggers
from lit_core.lightning.optimizers import build_optimizers
from lit_core.prepare import prepare
from lit_moe.callbacks import ReplayMixing, RouterBalance
from lit_moe.functional.token_nll import token_nll
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, PenaltyRouter, auxiliary_losses
from lit_moe.schedules import CosineInf

BARE, TRAINER, RUN = "bare loop", "trainer", "whole run"
REPLAY, CLIP, LOG_EVERY = 0.3, 1.0, 5
WARM_UP = 2  # steps of a round that are not timed


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        n_layers: Decoder layers.
        d_model: Width of the residual stream.
        d_ff: Hidden width of the dense layer of which the granular mixture has the FLOPs.
        sequences: Sequences per step.
        length: Tokens per sequence.
        steps: Timed steps per round; a multiple of the steps between two that are logged.
    """

    n_layers: int
    d_model: int
    d_ff: int
    sequences: int
    length: int
    steps: int


def cases(quick: bool) -> list[Case]:
    """Return the rows of the table."""
    if quick:
        return [Case(2, 64, 128, 2, 32, 5)]
    return [Case(4, 256, 704, 1, 128, 20), Case(4, 256, 704, 8, 128, 10), Case(4, 512, 1408, 8, 128, 5)]


class TimedLoader(StreamLoader):
    """A loader that notes when each batch is asked for.

    Attributes:
        asked: Those times.
    """

    def __init__(self, stream: MixtureStream) -> None:
        super().__init__(stream)
        self.asked: list[float] = []

    def __iter__(self) -> Iterator[Any]:
        batches = super().__iter__()
        while True:
            self.asked.append(time.perf_counter())
            yield next(batches)


class RecordedModel(MoELanguageModel):
    """The model as a trainer gets it; keeps its losses.

    Attributes:
        losses: Loss of each step, auxiliary losses included.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.losses: list[Tensor] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss


@dataclass
class Training:
    """What a round trains.

    Attributes:
        model: The model, with its first weights.
        loader: The data, from the begin.
        steps: Optimizer steps to take: those that warm up, those that are timed, and one that ends the last of them.
    """

    model: RecordedModel
    loader: TimedLoader
    steps: int

    def seconds(self) -> float:
        """Return what the timed steps took."""
        return self.loader.asked[self.steps - 1] - self.loader.asked[WARM_UP]


def build(case: Case, root: Path) -> Training:
    """Make the model and its data anew.

    Args:
        case: Shape of both.
        root: Folder of the prepared sources.
    """
    sources = {name: TokenWindows(root / name / "train", case.length) for name in ("packages", "austen")}
    stream = MixtureStream(
        {"packages": sources["packages"]},
        replay={"austen": sources["austen"]},
        global_batch_size=case.sequences,
        micro_batch_size=case.sequences,
    )
    stream.set_replay(REPLAY)
    steps = WARM_UP + case.steps + 1
    vocab_size = sources["packages"].vocab_size
    assert vocab_size is not None
    config = DecoderConfig(
        vocab_size,
        n_layers=case.n_layers,
        d_model=case.d_model,
        n_heads=case.d_model // 64,
        d_ff=case.d_ff,
        max_seq_len=case.length,
        feed_forward="granular",
    )
    optimizer = partial(torch.optim.AdamW, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    scheduler = partial(
        CosineInf, total_steps=steps, const_lr=2e-4, min_lr=1e-4, warmup=0.2, cooldown=0.3, constant=0.3
    )
    return Training(RecordedModel(config, PenaltyRouter, optimizer, scheduler), TimedLoader(stream), steps)


def bare(training: Training) -> None:
    """Train in a plain loop: forward, loss, backward, clipping, optimizer, schedule."""
    model = training.model
    decoder = model.decoder.train()
    made = build_optimizers(model, model.optimizer, model.scheduler)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for _, batch in zip(range(training.steps), training.loader, strict=False):
        hidden_BSD = decoder.hidden(batch["input_ids"])
        nll_BS = token_nll(hidden_BSD, batch["labels"], decoder.head, decoder.config.vocab_size)
        loss = nll_BS.mean() + auxiliary_losses(decoder)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
        model.losses.append(loss.detach())


def fit(training: Training, **options: Any) -> None:
    """Train with a trainer, without validation and checkpoints."""
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=training.steps,
        gradient_clip_val=CLIP,
        log_every_n_steps=LOG_EVERY,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(training.model, train_dataloaders=training.loader)


def by_trainer(training: Training) -> None:
    """Train with a trainer and nothing else."""
    fit(training, logger=False, enable_progress_bar=False)


def as_run(training: Training) -> None:
    """Train with what a run of `lit-moe fit` has: its loggers, progress bar and callbacks, and those of quickstart."""
    callbacks = [ResumeStream(), FiniteLoss(), GracefulStop(), RunRecord({}), RouterBalance(), ReplayMixing(REPLAY)]
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        fit(training, logger=run_loggers(Path(name), None), callbacks=callbacks)


WAYS: dict[str, Callable[[Training], None]] = {BARE: bare, TRAINER: by_trainer, RUN: as_run}


def check(losses: dict[str, list[Tensor]], steps: int) -> None:
    """See that all ways train alike.

    Args:
        losses: Losses of each way.
        steps: How many there should be.

    Raises:
        Mismatch: If not.
    """
    for name, found in losses.items():
        if len(found) != steps:
            raise Mismatch(f"{name} took {len(found)} steps, not {steps}.")
        for step, (mine, wanted) in enumerate(zip(found, losses[BARE], strict=True)):
            if not abs(mine - wanted) < 1e-5 * wanted:
                raise Mismatch(f"The loss of {name} in step {step} is {mine}, that of the bare loop {wanted}.")


def train(case: Case, root: Path, way: str) -> Training:
    """Train from the begin in one way."""
    training = build(case, root)
    WAYS[way](training)
    return training


def run(case: Case, root: Path, rounds: int, warm_up: int) -> dict[str, Any]:
    """Check and time one case; return its ratios and what else belongs in the table."""
    trained = {way: train(case, root, way) for way in WAYS}
    check({way: training.model.losses for way, training in trained.items()}, WARM_UP + case.steps + 1)
    parameters = trained[BARE].model.decoder.parameter_counts()._asdict()
    del trained

    def timed(way: str, training: Training) -> float:
        WAYS[way](training)
        return training.seconds() / case.steps

    def fresh() -> Training:
        gc.collect()  # a trainer and its model hold each other, and all that the optimizer keeps
        return build(case, root)

    contenders = [Contender(way, partial(timed, way), fresh) for way in WAYS]
    others = OtherWork()
    seconds = measure(contenders, rounds, warm_up)
    return {
        **vars(case),
        "parameters": parameters,
        "ratios": ratios(seconds, BARE),
        "seconds": seconds,
        "cores_busy_with_others": others.cores(),
    }


def overhead(case: dict[str, Any], way: str) -> float:
    """Return the milliseconds that a way adds to a step: the median of the rounds' differences.

    Args:
        case: A case of the result.
        way: A way to train.
    """
    pairs = zip(case["seconds"][way], case["seconds"][BARE], strict=True)
    return 1000 * statistics.median(mine - base for mine, base in pairs)


def table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a result."""
    ways, rows = (TRAINER, RUN), []
    for case in result["cases"]:
        measured = case["ratios"]
        row = [f"{case['n_layers']}, {case['d_model']}, {case['d_ff']}", f"{case['parameters']['total'] / 1e6:.1f} M"]
        row += [f"{case['sequences']} × {case['length']}", f"{measured[BARE]['milliseconds']:.4g}"]
        for way in ways:
            row += [cell(measured[way], bold=way == TRAINER), f"{overhead(case, way):+.2f}"]
        rows.append(row)
    header = ["layers, d_model, d_ff", "parameters", "tokens", f"{BARE} ms"]
    return markdown([*header, *(name for way in ways for name in (way, f"{way}, added ms"))], rows)


@contextlib.contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from telling of each trainer what it has found."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)


def main() -> None:
    """Prepare the text, time all cases, print the table and write the numbers."""
    options = arguments(__doc__)
    result, todo = new_result("loop_overhead", options, ("torch", "lightning")), cases(options.quick)
    with tempfile.TemporaryDirectory() as name, quiet_lightning():
        with contextlib.redirect_stdout(None):
            files, size = (20, 40_000) if options.quick else (50, 200_000)
            prepare(name, [Stdlib("packages", files), Austen()], tokenizer="bytes", max_bytes=size)
        for index, case in enumerate(todo, start=1):
            progress(f"[{index}/{len(todo)}] d_model {case.d_model}, {case.sequences} × {case.length} tokens")
            result["cases"].append(run(case, Path(name), result["rounds"], result["warm_up"]))
    finish(result, options.output)
    print(table(result))


if __name__ == "__main__":
    main()
