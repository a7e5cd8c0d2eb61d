"""Which files `RunCheckpoint` keeps."""

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lit_core.callbacks import RunCheckpoint


@pytest.mark.parametrize(("keep", "left"), [(1, {4}), (-1, {2, 4})])
def test_the_file_from_which_a_run_is_resumed_is_kept_no_longer_than_that_of_another_step(keep, left, tmp_path):
    folder, resumed = tmp_path / "checkpoints", None
    for steps in (2, 4):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
        callbacks = [RunCheckpoint(every_n_train_steps=2, save_top_k=keep)]
        trainer = Trainer(default_root_dir=tmp_path, max_steps=steps, limit_val_batches=0, callbacks=callbacks, **quiet)
        trainer.fit(BoringModel(), ckpt_path=resumed, weights_only=True)
        resumed = folder / "step=2.ckpt"
    assert {path.name for path in folder.iterdir()} == {"last.ckpt", *(f"step={step}.ckpt" for step in left)}
