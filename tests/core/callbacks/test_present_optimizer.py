from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from lit_core.callbacks import PresentOptimizer, RunCheckpoint
from lit_core.lightning.optimizers import build_optimizers
from lit_core.lightning.schedules import WarmupCosine


class Model(BoringModel):
    def __init__(self, schedule, lr, weight_decay):
        super().__init__()
        self.schedule, self.arguments = schedule, {"lr": lr, "weight_decay": weight_decay}

    def configure_optimizers(self):
        return build_optimizers(self, partial(torch.optim.AdamW, **self.arguments), self.schedule)


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        groups = optimizer.param_groups
        self.seen.append((groups[0]["lr"], [group["weight_decay"] for group in groups]))


def fit(folder, schedule, steps, lr=0.1, weight_decay=0.1, resume=False):
    torch.manual_seed(0)
    rates = Rates()
    trainer = Trainer(
        default_root_dir=folder, logger=False, max_steps=steps, accelerator="cpu", limit_val_batches=0,
        callbacks=[PresentOptimizer(), RunCheckpoint(), rates], enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(
        Model(schedule, lr, weight_decay),
        BoringDataModule(),
        ckpt_path=folder / "checkpoints" / "last.ckpt" if resume else None,
    )
    return rates.seen


COSINE = partial(WarmupCosine, total_steps=6, warmup=0.34)


@pytest.mark.parametrize("schedule", [None, COSINE], ids=["constant", "cosine"])
def test_what_is_given_now_wins_from_the_first_resumed_step_on(tmp_path, schedule):
    fit(tmp_path, schedule, 3)
    seen = fit(tmp_path, schedule, 6, lr=0.001, weight_decay=0.5, resume=True)
    whole = fit(tmp_path / "other", schedule, 6, lr=0.001, weight_decay=0.5)
    assert seen == whole[3:] and seen[0][1] == [0.5, 0.0]


@pytest.mark.parametrize("schedule", [None, COSINE], ids=["constant", "cosine"])
def test_without_a_change_it_changes_nothing(tmp_path, schedule):
    first = fit(tmp_path / "a", schedule, 3)
    rest = fit(tmp_path / "a", schedule, 6, resume=True)
    whole = fit(tmp_path / "b", schedule, 6)
    assert first + rest == whole


def test_a_schedule_of_torchs_keeps_its_rates(tmp_path):
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    fit(tmp_path, schedule, 3)
    seen = fit(tmp_path, schedule, 6, lr=0.001, resume=True)
    assert [rate for rate, _ in seen] == [0.05, 0.025, 0.025]
