"""The training and test runs of a cell: pre-training, which many cells share, and continual pre-training from it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer
from torch.optim import AdamW

from lit_core.callbacks import BranchFrom, RunCheckpoint
from lit_core.data import ResumeStream
from lit_core.files.paths import data_root, locked_folder, make_folder, remove_torn_files
from lit_core.lightning.checkpoint import AtomicCheckpointIO, read_checkpoint_file
from lit_core.lightning.optimizers import SchedulerCallable
from lit_core.lightning.schedules import WarmupCosine
from lit_moe.callbacks import ReplayMixing, RouterBalance
from lit_moe.callbacks.router_drift import RouterDrift
from lit_moe.data import TokenDataModule
from lit_moe.module import MoELanguageModel
from lit_moe.nn import PenaltyRouter
from lit_moe.schedules import CosineInf
from lit_moe.study.options import ContinualOptions
from lit_moe.study.shift import Trace
from lit_moe.study.texts import Texts, digest

Moment = Literal["constant", "annealed"]

#: Metrics that are stored for each step of training; `raw_mri` is that of the inference routing where it differs.
TRACED = {"train/loss": "loss", "train/router/mri/mean": "mri", "train/router/raw_mri/mean": "raw_mri"}


class Runs:
    """Runs of one model on some texts.

    Args:
        seed: Seed of the weights and of the order of the texts.
        options: The model and how it is trained.
        texts: The texts.
    """

    def __init__(self, seed: int, options: ContinualOptions, texts: Texts) -> None:
        self.seed, self.options, self.recipe, self.texts = seed, options, options.recipe, texts
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # a study trains many
        for what in ("have no `val_dataloader`", "does not have many workers", "The dirpath has changed", "LeafSpec"):
            warnings.filterwarnings("ignore", message=f".*{what}.*")

    def module(self, scheduler: SchedulerCallable | None = None) -> MoELanguageModel:
        """Return the model with new weights."""
        router = PenaltyRouter if self.options.studied.router is None else self.options.studied.router.build()
        config = self.options.shape(self.data({self.texts.old[0]: 1.0}).vocab_size)
        optimizer = partial(AdamW, lr=self.recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
        return MoELanguageModel(config, router, optimizer, scheduler, seed=self.seed)

    def data(self, sources: dict[str, float], replay: Sequence[str] = (), samples: int = 1) -> TokenDataModule:
        """Return the data of a run, validated on the old and the new texts."""
        return TokenDataModule(
            str(self.texts.root),
            sources,
            dict.fromkeys(replay, 1.0),
            validation=[*self.texts.old, *self.texts.new],
            sequence_length=self.recipe.sequence_length,
            global_batch_size=self.recipe.batch_size,
            micro_batch_size=self.recipe.batch_size,
            validation_samples=samples,
            seed=self.seed,
        )

    def pretrained(self, steps: int) -> dict[Moment, Path]:
        """Return the checkpoints at the end of the constant phase and of the annealing, trained once for all cells.

        They are stored below the data root. Training that was killed is resumed.

        Args:
            steps: Optimizer steps of the whole pre-training.

        Raises:
            UserError: If another process trains the same.
        """
        recipe = self.recipe
        folder = data_root() / "moe" / "study" / f"pretrained-{digest(self._described(steps))}"
        make_folder(folder)
        scheduler = partial(
            CosineInf,
            total_steps=steps,
            const_lr=recipe.const_lr,
            min_lr=recipe.min_lr,
            warmup=recipe.warmup,
            cooldown=recipe.cooldown,
            constant=recipe.constant,
        )
        flat = sum(round(phase * steps) for phase in (recipe.warmup, recipe.cooldown, recipe.constant))
        goals: dict[Moment, int] = {"constant": flat, "annealed": steps}
        checkpoints: dict[Moment, Path] = {}
        with locked_folder(folder, f"{folder} is being trained by another process; wait for it."):
            for moment, goal in goals.items():
                last = folder / moment / "last.ckpt"
                remove_torn_files(last.parent)
                if not last.is_file() or read_checkpoint_file(last)["global_step"] < goal:
                    begun = last if last.is_file() else checkpoints.get("constant")
                    checkpoint = RunCheckpoint(max(1, steps // 8), save_top_k=0, dirpath=str(last.parent))
                    trainer = self.trainer(goal, [checkpoint, Trace(TRACED)], limit_val_batches=0)
                    data = self.data(dict.fromkeys(self.texts.old, 1.0))
                    trainer.fit(self.module(scheduler), data, ckpt_path=begun, weights_only=True)
                checkpoints[moment] = last
        return checkpoints

    def continued(
        self, start: Path, steps: int, replay: float, infinite: bool, callbacks: Sequence[Callback]
    ) -> MoELanguageModel:
        """Train on with the new texts from a checkpoint.

        Args:
            start: The checkpoint.
            steps: Optimizer steps.
            replay: Replayed fraction of the old texts, from 0 to 1.
            infinite: Whether the rate stays constant and then anneals; otherwise it is re-warmed and follows a cosine.
            callbacks: Further callbacks.
        """
        recipe = self.recipe
        scheduler: SchedulerCallable = partial(
            WarmupCosine, total_steps=steps, warmup=recipe.warmup, min_lr=recipe.min_lr
        )
        if infinite:
            scheduler = partial(
                CosineInf,
                total_steps=steps,
                const_lr=recipe.const_lr,
                min_lr=recipe.min_lr,
                warmup=0.0,
                cooldown=0.0,
                constant=recipe.flat,
            )
        trainer = self.trainer(
            steps,
            [BranchFrom(str(start)), ReplayMixing(replay), *callbacks],
            val_check_interval=max(1, steps // 8),
            check_val_every_n_epoch=None,
        )
        data = self.data(dict.fromkeys(self.texts.new, 1.0), self.texts.old, samples=max(1, self.texts.samples // 4))
        module = self.module(scheduler)
        trainer.fit(module, data)
        return module

    def retrained(self, steps: int, new: float) -> MoELanguageModel:
        """Train from scratch on the union of the old and the new texts.

        Args:
            steps: Optimizer steps.
            new: Fraction of the new texts, above 0 and below 1.
        """
        recipe = self.recipe
        scheduler = partial(WarmupCosine, total_steps=steps, warmup=recipe.warmup, min_lr=recipe.min_lr)
        weights = {name: (1 - new) / len(self.texts.old) for name in self.texts.old}
        weights |= {name: new / len(self.texts.new) for name in self.texts.new}
        module = self.module(scheduler)
        self.trainer(steps, limit_val_batches=0).fit(module, self.data(weights))
        return module

    def tested(self, module: MoELanguageModel, reference: Path | None = None) -> dict[str, float]:
        """Return the metrics of a model's test on all sources.

        Args:
            module: The model.
            reference: Checkpoint that its routing is compared with; None for none.
        """
        data = TokenDataModule(
            str(self.texts.root),
            dict.fromkeys(self.texts.names, 1.0),
            sequence_length=self.recipe.sequence_length,
            micro_batch_size=self.recipe.batch_size,
            test_samples=self.texts.samples,
        )
        trainer = self.trainer(1, [RouterDrift(str(reference))] if reference else [])
        trainer.test(module, data, verbose=False)
        return {key: float(value) for key, value in trainer.callback_metrics.items()}

    def from_checkpoint(self, path: Path) -> MoELanguageModel:
        """Return the model with the weights of a checkpoint."""
        module = self.module()
        module.load_state_dict(read_checkpoint_file(path)["state_dict"])
        return module

    def _described(self, steps: int) -> list[Any]:
        """Return what the weights after pre-training depend on, in plain values."""
        studied, options = self.options.studied, self.options
        shape = studied.feed_forward
        model: dict[str, Any] = {"feed_forward": shape if isinstance(shape, str) else asdict(shape)}
        if studied.router is not None:
            model["router"] = studied.router.description
        return [self.seed, model, options.decoder, asdict(options.recipe), str(self.texts.root), self.texts.old, steps]

    def trainer(self, steps: int, callbacks: Sequence[Callback] = (), **options: Any) -> Trainer:
        """Return a trainer on the CPU that logs each step to its callbacks."""
        saves = any(isinstance(callback, RunCheckpoint) for callback in callbacks)
        return Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator="cpu",
            devices=1,
            precision=self.recipe.precision,
            callbacks=[ResumeStream(), RouterBalance(heat_map_every=0), *callbacks],
            plugins=[AtomicCheckpointIO()],
            log_every_n_steps=1,
            logger=False,
            num_sanity_val_steps=0,
            enable_checkpointing=saves,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            **options,
        )
