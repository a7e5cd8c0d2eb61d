"""`lit-moe` on a model of transformers that stands in a folder."""

import shutil
from functools import partial
from pathlib import Path

import fit_run
import pytest
import torch
import yaml
from bad_input import said

from lit_core.lm.tokenizer import Tokenizer
from lit_core.screen import on_screen
from lit_core.trust import sign
from lit_moe.callbacks import RouterBalance
from lit_moe.cli import main
from lit_moe.data import TokenDataModule
from lit_moe.module import MoELanguageModel
from lit_moe.nn import DecoderConfig, HFConfig, moe_layers

transformers = pytest.importorskip("transformers")
CONFIGS = Path(__file__).parents[2] / "configs" / "moe" / "hugging_face"
SHAPE = dict(
    model_type="olmoe", vocab_size=384, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2, max_position_embeddings=128,
    bos_token_id=None, eos_token_id=256, pad_token_id=None,
)  # fmt: skip
RUN = """
data:
  class_path: lit_moe.TokenDataModule
  init_args: {root: %s, sources: {stdlib: 1}, validation: [austen, stdlib], sequence_length: 32, global_batch_size: 4,
    micro_batch_size: 2, validation_samples: 3, test_samples: 3, document_mask: true}
model:
  class_path: lit_moe.MoELanguageModel
  init_args: {hugging_face: {model: model, balance_weight: 0.1}}
trainer:
  accelerator: cpu
  max_steps: 3
  log_every_n_steps: 1
  val_check_interval: 4
  check_val_every_n_epoch: null
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - {class_path: lit_moe.RouterBalance, init_args: {heat_map_every: 0}}
    - {class_path: lit_moe.callbacks.SampleText, init_args: {prompts: [The], max_new_tokens: 3}}
"""


def save_model(root, **changes):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**SHAPE | changes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained("model")
    Tokenizer.load(str(root)).save("model")


@pytest.fixture
def place(token_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_model(token_root)
    Path("run.yaml").write_text(RUN % token_root)
    return tmp_path


def test_a_folder_is_trained_tested_compared_and_written_with(place, token_root, capsys):
    assert main(["fit", "--config", "run.yaml", "--run", "hf"]) == 0
    last = "runs/moe/hf/checkpoints/last.ckpt"
    drift = ["--trainer.callbacks", "lit_moe.RouterDrift", "--trainer.callbacks.reference", last]
    assert main(["test", "--ckpt_path", last, *drift]) == 0
    logged = {key: float(value) for row in fit_run.rows("hf") for key, value in row.items()}
    assert logged["train/auxiliary_loss"] == pytest.approx(
        sum(logged[f"train/router/balance_loss/layer_0{layer}"] for layer in (0, 1)), rel=1e-5
    )
    assert 0.1 < logged["train/auxiliary_loss"] < 0.8
    assert 0.5 <= logged["val/austen/router/mri/layer_01"] <= 1 and logged["val/router/mri_floor"] == 0.5
    assert logged["test/stdlib/router/crs/layer_00"] == logged["test/stdlib/router/crs/layer_01"] == 1

    checkpoint = torch.load(last, weights_only=True)
    state = {
        name.removeprefix("decoder.model."): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("decoder.model.")
    }
    trained = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**SHAPE)).eval()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    trained.load_state_dict(state)
    assert state.keys() == before.keys()

    shutil.rmtree("model")  # a checkpoint is all that is needed
    capsys.readouterr()
    assert (
        main(["generate", "--ckpt_path", last, "--prompt", "It is a", "--max_new_tokens", "8", "--temperature", "0"])
        == 0
    )
    tokenizer = Tokenizer.load(str(token_root))
    prompt = torch.tensor([tokenizer.encode("It is a")])
    expected = trained.generate(prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :].tolist()
    expected = expected[: expected.index(256)] if 256 in expected else expected
    assert capsys.readouterr().out == on_screen("It is a" + tokenizer.decode(expected)) + "\n"
    assert main(["upcycle", "--ckpt_path", last, "--output", "moe.ckpt"]) == 2
    assert (
        "is a model of transformers; `lit-moe export` it" in capsys.readouterr().err and not Path("moe.ckpt").exists()
    )


def test_two_processes_equal_one_that_accumulates(place, token_root, make_trainer, read_metrics):
    class Kept(MoELanguageModel):
        def on_train_end(self):
            if self.trainer.is_global_zero:
                torch.save(self.state_dict(), f"{self.trainer.default_root_dir}/weights.pt")

    one_device = {"val_check_interval": 4}
    two_devices = {"val_check_interval": 2, "devices": 2, "strategy": "ddp_fork"}
    sizes = {"sequence_length": 32, "global_batch_size": 8, "micro_batch_size": 2, "validation_samples": 5}
    for name, arguments in (("one", one_device), ("two", two_devices)):
        model = Kept(DecoderConfig(384), hugging_face=HFConfig("model", balance_weight=0.1))
        data = TokenDataModule(str(token_root), {"austen": 1.0}, **sizes)
        make_trainer(RouterBalance(), name=name, **arguments).fit(model, datamodule=data)
    one, two = read_metrics("one"), read_metrics("two")
    assert one.keys() == two.keys() and "val/austen/router/mri/layer_01" in one
    for key in one.keys() - {"train/tokens_per_second"}:
        assert [value for _, value in two[key]] == pytest.approx([value for _, value in one[key]], rel=1e-4), key
    weights = [torch.load(place / name / "weights.pt", weights_only=True) for name in ("one", "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], atol=2e-5, rtol=1e-4)


# slow, with two runs: the test above shows that two processes are one, test_routing_steps.py that they sum loads
@pytest.mark.slow
def test_losses_of_steps_and_sequences_and_biases_are_those_of_one_process(
    place, token_root, make_trainer, read_metrics
):
    class Kept(MoELanguageModel):
        def on_train_end(self):
            if self.trainer.is_global_zero:
                torch.save(self.state_dict(), f"{self.trainer.default_root_dir}/weights.pt")

    sgd = partial(torch.optim.SGD, lr=0.1)
    shape = yaml.safe_load((CONFIGS / "deepseek.yaml").read_text())["model"]["init_args"]["hugging_face"]["config"]
    losses = {"global_weight": 0.3, "sequence_weight": 0.2, "z_weight": 0.01, "selection_bias": "loss_free"}
    sizes = {"sequence_length": 32, "global_batch_size": 4, "validation_samples": 5}
    for name, micro, arguments in (("one", 4, {}), ("two", 2, {"devices": 2, "strategy": "ddp_fork"})):
        fields = HFConfig(config=shape | {"vocab_size": 384}, activation_checkpointing=name == "two", **losses)
        data = TokenDataModule(str(token_root), {"austen": 1.0}, micro_batch_size=micro, **sizes)
        trainer = make_trainer(RouterBalance(), name=name, max_steps=3, val_check_interval=3, **arguments)
        trainer.fit(Kept(DecoderConfig(384), optimizer=sgd, hugging_face=fields, seed=0), datamodule=data)
    weights = [torch.load(place / name / "weights.pt", weights_only=True) for name in ("one", "two")]
    biases = [name for name in weights[0] if name.endswith("e_score_correction_bias")]
    assert len(biases) == 2 and all(weights[0][name].any() for name in biases)
    for name in weights[0]:
        torch.testing.assert_close(weights[1][name], weights[0][name], atol=2e-5, rtol=1e-4)
    one, two = read_metrics("one"), read_metrics("two")
    ranges = [value for _, value in one["train/router/bias_range/layer_01"]]
    assert ranges[0] == 0 and ranges[-1] > 0.001  # before the first move and before the last
    for key in ("train/auxiliary_loss", "train/router/balance_loss/layer_01", "train/router/bias_range/layer_01"):
        assert [value for _, value in two[key]] == pytest.approx([value for _, value in one[key]], rel=1e-4), key


def test_a_checkpoint_that_describes_a_decoder_as_well_is_still_read(place, token_root):
    """Such fields had no effect; they are refused now."""
    assert main(["fit", "--config", "run.yaml", "--run", "hf", "--trainer.max_steps", "1"]) == 0
    last = Path("runs/moe/hf/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    router = {"class_path": "lit_moe.nn.PenaltyRouter", "init_args": {"balance_weight": 0.5}}
    checkpoint["hyper_parameters"] |= {"router": router}
    checkpoint["hyper_parameters"]["decoder"] = {"vocab_size": 384, "n_layers": 2, "feed_forward": "granular"}
    checkpoint["config"]["model"]["init_args"] |= {"decoder": {"n_layers": 2}, "router": router}
    sign(checkpoint)
    torch.save(checkpoint, last)
    model = MoELanguageModel.load_from_checkpoint(last, weights_only=True)
    assert torch.equal(model.decoder.model.lm_head.weight, checkpoint["state_dict"]["decoder.model.lm_head.weight"])
    assert main(["fit", "--ckpt_path", str(last), "--trainer.max_steps", "2"]) == 0


def test_data_of_another_tokenizer_are_refused_in_one_sentence(place, byte_root):
    code, lines = said(["fit", "--config", "run.yaml", "--run", "x", "--data.init_args.root", str(byte_root)])
    assert code == 2 and len(lines) == 1
    assert "The model's tokenizer is " in lines[0] and "prepare the data with `tokenizer` set to the model" in lines[0]


def test_the_packaged_configs_run_and_parse(token_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--data.init_args.root", str(token_root), "--data.init_args.sequence_length", "16"]
    small += ["--data.init_args.global_batch_size", "2", "--data.init_args.micro_batch_size", "2"]
    small += ["--data.init_args.validation_samples", "2", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]
    base = ["--config", "configs/moe/quickstart/hugging_face.yaml", "--config", "configs/moe/hugging_face/mixtral.yaml"]
    assert main(["fit", *base, *small, "--run", "mixtral", "--trainer.enable_progress_bar", "false"]) == 0
    model = MoELanguageModel.load_from_checkpoint("runs/moe/mixtral/checkpoints/last.ckpt", weights_only=True)
    assert len(moe_layers(model)) == 3 and model.config.vocab_size == 384

    path = CONFIGS / "olmoe.yaml"
    capsys.readouterr()
    assert main(["fit", "--config", str(path), *small[:2], "--print_config"]) == 0
    chosen = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["hugging_face"]
    assert yaml.safe_load(path.read_text())["model"]["init_args"]["hugging_face"].items() <= chosen.items()
    assert {path.name for path in CONFIGS.glob("*.yaml")} == {
        *("deepseek.yaml", "lora.yaml", "mixtral.yaml", "olmoe.yaml")
    }


@pytest.mark.slow  # two runs and an export; tests/moe/nn/test_hf_bias.py moves biases in a decoder
def test_a_selection_bias_moves_through_the_command_line(token_root, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("lit_moe.nn.gates.rank_zero_info", said.append)
    monkeypatch.chdir(tmp_path)
    small = ["--data.init_args.root", str(token_root), "--data.init_args.sequence_length", "16"]
    small += ["--data.init_args.global_batch_size", "4", "--data.init_args.micro_batch_size", "2"]
    small += ["--data.init_args.validation_samples", "2", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]
    small += ["--trainer.precision", "bf16-true", "--trainer.enable_progress_bar", "false"]
    base = [
        "--config",
        "configs/moe/quickstart/hugging_face.yaml",
        "--config",
        "configs/moe/hugging_face/deepseek.yaml",
    ]
    assert main(["fit", *base, *small, "--run", "moved"]) == 0
    checkpoint = "runs/moe/moved/checkpoints/last.ckpt"
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    biases = {name: value for name, value in saved.items() if name.endswith("e_score_correction_bias")}
    assert len(biases) == 2 and all(bias.dtype == torch.float32 for bias in biases.values())
    for bias in biases.values():  # two moves by 0.001, up or down or none, each without their mean
        assert 0.0005 < float(bias.abs().max()) < 0.004 and abs(float(bias.mean())) < 1e-7
    assert said == []
    assert main(["export", "--ckpt_path", checkpoint, "--output", "exported"]) == 0
    exported = transformers.AutoModelForCausalLM.from_pretrained("exported", dtype="auto").state_dict()
    for name, bias in biases.items():
        assert torch.equal(exported[name.removeprefix("decoder.model.")].float(), bias)
    assert main(["fit", *base, *small, "--run", "frozen", "--model.hugging_face.selection_bias", "frozen"]) == 0
    (line,) = said
    assert "The selection bias of 2 gates of DeepseekV3ForCausalLM stays as it is" in line


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_divided_weights_equal_one_process_that_accumulates(place, token_root, tied):
    save_model(token_root, tie_word_embeddings=tied)
    whole = ["--trainer.devices", "1", "--trainer.val_check_interval", "4"]
    divided = ["--config", "configs/moe/trainer/fsdp2_cpu2.yaml", "--trainer.val_check_interval", "2"]
    for name, arguments in (("one", whole), ("two", divided)):
        fit_run.run("fit", "--config", "run.yaml", *arguments, "--run", name, log=f"{name}.log")
    one, two = (fit_run.rows(name) for name in ("one", "two"))
    assert len(one) > 3
    fit_run.assert_close_rows(two, one)
    one, two = (fit_run.checkpoint(name) for name in ("one", "two"))
    fit_run.assert_close_weights(two, one)
