"""An export has the number format in which the weights were trained, each of its own, with the same bits."""

import json

import pytest
import torch
from lightning.pytorch import Trainer
from test_adapters import SHAPE
from test_module import tiny_data, tiny_decoder

from lit_core.data import ResumeStream
from lit_moe.doctor.families import small_config
from lit_moe.interop.exporting import export_model
from lit_moe.lm import load_module
from lit_moe.module import MoELanguageModel
from lit_moe.nn import AdapterConfig, DecoderConfig, HFConfig, TopKRouter

transformers = pytest.importorskip("transformers")
FORMATS = {"bf16-true": torch.bfloat16, "bf16-mixed": torch.float32}


def trained(path, root, precision, **arguments):
    """Train a step, and return the weights that the checkpoint keeps."""
    torch.manual_seed(0)
    module = MoELanguageModel(**arguments)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_val_batches": 0}
    quiet |= {"enable_checkpointing": False, "callbacks": [ResumeStream()]}
    trainer = Trainer(accelerator="cpu", precision=precision, max_steps=1, **quiet)
    trainer.fit(module, datamodule=tiny_data(root))
    trainer.save_checkpoint(path / "model.ckpt")
    return torch.load(path / "model.ckpt", weights_only=True)["state_dict"]


def exported(path):
    export_model(str(path / "model.ckpt"), str(path / "exported"))
    config = json.loads((path / "exported" / "config.json").read_text())
    return transformers.AutoModelForCausalLM.from_pretrained(path / "exported", dtype="auto"), config["dtype"]


@pytest.mark.parametrize("precision", ["bf16-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_a_model_of_transformers_is_exported_as_it_was_trained(precision, token_root, tmp_path):
    config = small_config("deepseek_v3").to_dict() | {"vocab_size": 384}
    arguments = {"decoder": DecoderConfig(384), "hugging_face": HFConfig(config=config)}
    state = trained(tmp_path, token_root, precision, **arguments)
    model, said = exported(tmp_path)
    assert said == str(FORMATS[precision]).removeprefix("torch.")
    kept = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    assert kept == {FORMATS[precision], torch.float32}  # its selection biases
    for name, tensor in model.state_dict().items():
        expected = state[f"decoder.model.{name}"]
        assert tensor.dtype == expected.dtype and torch.equal(tensor, expected), name


@pytest.mark.parametrize("theirs", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_merged_adapters_keep_the_format_of_the_weights(theirs, token_root, tmp_path):
    pytest.importorskip("peft")
    mixture = {"n_experts": 4, "top_k": 2, "expert_width": 16}
    decoder = DecoderConfig(384) if theirs else tiny_decoder(feed_forward=mixture)
    targets = ["q_proj", "experts"] if theirs else ["attention.q", "experts"]
    arguments = {"hugging_face": HFConfig(config={**SHAPE, "model_type": "mixtral"})} if theirs else {}
    arguments |= {} if theirs else {"router": TopKRouter}
    trained(tmp_path, token_root, "bf16-true", decoder=decoder, adapter=AdapterConfig(targets), **arguments)
    model, said = exported(tmp_path)
    assert said == "bfloat16" and {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    module, _ = load_module(tmp_path / "model.ckpt")
    ids = torch.randint(4, 300, (2, 12))
    torch.testing.assert_close(model.float()(ids).logits, module.eval()(ids), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("kind", ["gpt_oss", pytest.param("qwen3_next", marks=pytest.mark.slow), "gemma2"])
def test_an_export_reads_weights_from_the_file_and_holds_no_model_beside(kind, tmp_path, monkeypatch):
    """Also those that two modules share."""
    config = small_config(kind).to_dict() | {"eos_token_id": None}
    module = MoELanguageModel(DecoderConfig(config["vocab_size"]), hugging_face=HFConfig(config=config))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module.trainer = trainer
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    monkeypatch.setattr("lit_moe.interop.exporting._merged", None)
    model, _ = exported(tmp_path)
    state = module.state_dict()
    assert model.state_dict().keys() == {name.removeprefix("decoder.model.") for name in state}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[f"decoder.model.{name}"]), name
