"""The progress bar of a run: a process that shows none trains as the one that does."""

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel

from lit_core.callbacks import run_progress


@pytest.mark.parametrize("shown", [True, False])
def test_a_rank_that_shows_no_bar_goes_on(shown, tmp_path):
    bar, data = run_progress.RunProgress(), BoringDataModule()
    data.global_batch_size = 2
    if not shown:
        bar.disable()  # as Lightning does on all ranks but the first
    trainer = Trainer(
        accelerator="cpu", max_steps=2, accumulate_grad_batches=2, limit_val_batches=1, callbacks=[bar], logger=False,
        enable_checkpointing=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(BoringModel(), datamodule=data)
    assert trainer.global_step == 2
