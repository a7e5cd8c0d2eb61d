"""What transformers keeps in float32 stays so in 16 bits: when a model is converted, trained, saved and resumed."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

pytest.importorskip("transformers")

from lit_core.errors import UserError
from lit_moe.doctor.checks.float32 import check
from lit_moe.doctor.families import small_config
from lit_moe.doctor.specimen import Specimen


@pytest.mark.parametrize("kind", ["ernie4_5_moe", "zaya"])
def test_a_conversion_keeps_what_transformers_keeps(kind):
    assert check(Specimen(small_config(kind), seed=1)).verdict == "pass"


@pytest.fixture
def specimen():
    return Specimen(small_config("flint"), seed=1)  # which keeps parameters


def fitted(specimen, folder, steps, ckpt_path=None):
    module = specimen.module()
    ids = specimen.tokens(2, 8)
    loader = DataLoader([{"input_ids": row, "labels": row} for row in [*ids, *ids]], batch_size=2)  # equal batches
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        precision="bf16-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader, ckpt_path=ckpt_path, weights_only=True)
    trainer.save_checkpoint(folder / f"{steps}.ckpt")
    return module


def test_training_and_resuming_keep_it(specimen, tmp_path):
    whole = fitted(specimen, tmp_path, 2)
    fitted(specimen, tmp_path, 1)
    resumed = fitted(specimen, tmp_path, 2, tmp_path / "1.ckpt")
    kept = [name for name, weight in whole.named_parameters() if weight.dtype == torch.float32]
    assert kept == [name for name, _ in whole.named_parameters() if name.endswith(("sinks", "gate.weight"))]
    saved = torch.load(tmp_path / "2.ckpt", weights_only=True)["state_dict"]
    for name, weight in whole.state_dict().items():
        assert saved[name].dtype == weight.dtype
        assert torch.equal(resumed.state_dict()[name], weight)
    start = specimen.module().state_dict()
    assert all(not torch.equal(saved[name], start[name].bfloat16().float()) for name in kept)


def test_a_sharded_layer_with_two_formats_is_refused(specimen):
    decoder = specimen.decoder()
    decoder.check_sharded("bf16-mixed")
    with pytest.raises(UserError, match=r"keeps 10 of its weights in float32, such as .*sinks.*bf16-mixed"):
        decoder.check_sharded("bf16-true")
