"""`fit` with a sharded strategy from pretrained weights: the same losses as on one device, and no process holds all."""

from pathlib import Path

import pytest
import torch
import yaml
from fit_run import assert_close_rows, assert_close_weights, checkpoint, rows, run
from test_hugging_face_runs import RUN, SHAPE

from lit_core.lm.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", minversion="5.23")
LAST = "runs/moe/{}/checkpoints/last.ckpt"
TWO = ["--config", "configs/moe/trainer/fsdp2_cpu2.yaml"]


@pytest.fixture
def place(token_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**SHAPE)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained("model", max_shard_size="10KB")
    assert len(list(Path("model").glob("*.safetensors"))) > 3
    Tokenizer.load(str(token_root)).save("model")
    config = yaml.safe_load(RUN % token_root)
    witness = {"class_path": "fit_run.WeightsAtSetup", "init_args": {"path": str(tmp_path / "weights")}}
    config["trainer"]["callbacks"][1:] = [witness]
    Path("run.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def came_later():
    """Tell, for each rank of each command so far, whether its model was built without weights."""
    return [file.read_text().split() for file in sorted(Path().glob("weights.*"))]


@pytest.mark.slow
def test_a_folder_is_trained_in_parts_as_on_one_device(place):
    run("fit", "--config", "run.yaml", "--run", "one")
    run(
        "fit", "--config", "run.yaml", *TWO, "--run", "two", "--trainer.val_check_interval", 2, "--trainer.max_steps", 2
    )
    run("fit", "--ckpt_path", LAST.format("two"), "--trainer.max_steps", 3)
    assert came_later() == [["False", "True", "True"], ["True", "True"]]
    assert_close_rows(rows("two"), rows("one"))
    assert_close_weights(checkpoint("two"), checkpoint("one"))


@pytest.mark.slow
def test_our_decoder_imported_from_a_folder_is_branched_from_in_parts(place):
    run("import", "--model", "model", "--output", "imported.ckpt")
    config = yaml.safe_load(Path("run.yaml").read_text())
    config["model"]["init_args"] = {}
    Path("run.yaml").write_text(yaml.safe_dump(config))
    branch = ["fit", "--config", "run.yaml", "--branch_from", "imported.ckpt"]
    run(*branch, "--run", "one")
    run(*branch, *TWO, "--run", "two", "--trainer.val_check_interval", 2)
    assert came_later() == [["False", "True"], ["True"]]
    assert_close_rows(rows("two"), rows("one"))
    assert_close_weights(checkpoint("two"), checkpoint("one"))
