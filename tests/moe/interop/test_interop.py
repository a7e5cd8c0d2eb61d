"""Checkpoints of every family, in and out, against transformers itself."""

from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("transformers")

from hugging_face import CASES, TOKENIZER, load, logits, make, save, tokens

from lit_core.cli.show import facts_of
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.cli import main
from lit_moe.interop import export_model, import_model
from lit_moe.interop.importing import new_checkpoint
from lit_moe.lm import DecoderLM
from lit_moe.nn import Decoder, DecoderConfig, MoEConfig


@pytest.mark.parametrize(("family", "number"), CASES, ids=lambda value: str(value))
def test_in_and_out_gives_equal_logits_and_tokens(family, number, tmp_path):
    theirs = make(family, number)
    save(theirs, tmp_path / "theirs", max_shard_size="40KB")
    checkpoint = tmp_path / "ours.ckpt"
    assert main(["import", "--model", str(tmp_path / "theirs"), "--output", str(checkpoint)]) == 0
    ours = DecoderLM.from_checkpoint(checkpoint)
    ids = tokens(2, 40)
    torch.testing.assert_close(logits(ours.module, ids), logits(theirs, ids), rtol=0, atol=1e-4)

    export = ["export", "--ckpt_path", str(checkpoint), "--output", str(tmp_path / "again"), "--shard_bytes", "40000"]
    assert main(export) == 0
    assert len(list((tmp_path / "again").glob("model-*.safetensors"))) > 1
    again = load(tmp_path / "again")
    assert type(again) is type(theirs)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name
    torch.testing.assert_close(logits(again, ids), logits(theirs, ids), rtol=0, atol=0)

    padded = list(range(ours.tokenizer.vocab_size, 260))  # ids that mean nothing, which we never choose
    greedy = again.generate(ids[:1, :10], max_new_tokens=10, do_sample=False, suppress_tokens=padded)[0, 10:].tolist()
    mine = ours.generate_ids([ids[0, :10].tolist()], max_new_tokens=10, temperature=0)[0]
    assert mine == [token for token in greedy if token != ours.tokenizer.end_of_text]


@pytest.mark.parametrize(
    ("shape", "family"),
    [
        (dict(feed_forward="granular"), "Qwen2Moe"),
        (dict(feed_forward="switch", activation="gelu"), "Qwen2Moe"),
        (dict(feed_forward=MoEConfig(4, 2, 24, n_shared=2, normalize_top_k=True), qkv_bias=True), "Qwen2Moe"),
        (dict(feed_forward=MoEConfig(4, 3, 24, normalize_top_k=True), tie_embeddings=True), "Mixtral"),
        (dict(feed_forward=MoEConfig(4, 1, 24), qk_norm="head", head_dim=12), "Qwen3Moe"),
        (dict(), "Llama"),
    ],
    ids=str,
)
def test_our_own_shapes_come_out_with_equal_logits(shape, family, tmp_path):
    torch.manual_seed(0)
    own = dict(vocab_size=300, n_layers=2, d_model=32, n_heads=4, d_ff=48, max_seq_len=64)
    decoder = Decoder(DecoderConfig(**{**own, **shape})).eval()
    for name, parameter in decoder.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if name.endswith("norm.weight") else 0.0, 0.15)
    weights = {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    torch.save(new_checkpoint(decoder.config, weights), tmp_path / "ours.ckpt")
    export_model(str(tmp_path / "ours.ckpt"), str(tmp_path / "out"))
    theirs = load(tmp_path / "out")
    assert type(theirs).__name__ == f"{family}ForCausalLM"
    torch.testing.assert_close(logits(theirs, tokens(2, 40)), logits(decoder, tokens(2, 40)), rtol=0, atol=1e-4)


def test_a_model_without_a_tokenizer_comes_back_without_one(tmp_path, capsys):
    decoder = Decoder(DecoderConfig(64, n_layers=1, d_model=16, n_heads=2, d_ff=16, max_seq_len=32))
    weights = {f"decoder.{name}": value for name, value in decoder.state_dict().items()}
    torch.save(new_checkpoint(decoder.config, weights), tmp_path / "ours.ckpt")
    for number, source in enumerate(("ours.ckpt", "again.ckpt")):
        export_model(str(tmp_path / source), str(tmp_path / f"exported{number}"))
        if number == 0:
            import_model(str(tmp_path / "exported0"), str(tmp_path / "again.ckpt"))
            assert "Tokenizer    none" in capsys.readouterr().out
    first, second = (tmp_path / f"exported{number}" / "model.safetensors" for number in (0, 1))
    assert first.read_bytes() == second.read_bytes()
    assert "tokenizer" not in torch.load(tmp_path / "again.ckpt", weights_only=True)


def test_the_first_layers_alone_equal_a_model_that_has_no_others(tmp_path):
    save(make("Qwen3Moe", 1, num_hidden_layers=4), tmp_path / "theirs")
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours.ckpt"), layers=3)
    import transformers

    config = transformers.AutoConfig.from_pretrained(tmp_path / "theirs", num_hidden_layers=3)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", config=config).eval()
    ours = DecoderLM.from_checkpoint(tmp_path / "ours.ckpt").module
    torch.testing.assert_close(logits(ours, tokens(2, 40)), logits(theirs, tokens(2, 40)), rtol=0, atol=1e-4)


def test_low_precision_stays_on_the_disk_bit_for_bit(tmp_path):
    theirs = make("Mixtral", 0).bfloat16()
    save(theirs, tmp_path / "theirs")
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours.ckpt"))
    weights = torch.load(tmp_path / "ours.ckpt", weights_only=True)["state_dict"]
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    export_model(str(tmp_path / "ours.ckpt"), str(tmp_path / "again"))
    again = load(tmp_path / "again")
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in theirs.state_dict().items())


def test_an_export_and_its_import_tell_what_they_were_made_from(tmp_path):
    save(make("Mixtral", 0), tmp_path / "theirs")
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours.ckpt"))
    export_model(str(tmp_path / "ours.ckpt"), str(tmp_path / "out"))
    import_model(str(tmp_path / "out"), str(tmp_path / "again.ckpt"))
    parent, paths = facts_of(tmp_path / "again.ckpt")["parent"], []
    while parent:
        paths.append(Path(parent["path"]).name)
        parent = parent["parent"]
    assert paths == ["out", "ours.ckpt", "theirs"]


TRAIN = """
data:
  class_path: lit_moe.TokenDataModule
  init_args: {root: ROOT, sources: {austen: 1}, sequence_length: 32, global_batch_size: 4, micro_batch_size: 4,
    validation_samples: 2, test_samples: 2, padded_vocab_size: 400}
trainer: {accelerator: cpu, max_steps: 2, limit_val_batches: 1, enable_progress_bar: false, enable_model_summary: false}
"""


def test_an_import_is_tested_upcycled_trained_on_and_exported(token_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = make("Llama", 1, vocab_size=400)
    theirs.generation_config.update(do_sample=True, top_k=7)
    theirs.save_pretrained("theirs")
    Tokenizer.load(token_root / "tokenizer.json").save(tmp_path / "theirs")
    (tmp_path / "theirs" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "run.yaml").write_text(TRAIN.replace("ROOT", str(token_root)))
    assert main(["import", "--model", "theirs", "--output", "dense.ckpt"]) == 0
    assert main(["upcycle", "--ckpt_path", "dense.ckpt", "--output", "moe.ckpt", "--noise", "0.01"]) == 0
    assert main(["test", "--ckpt_path", "moe.ckpt", "--config", "run.yaml", "--run", "before"]) == 0
    last = "runs/moe/{}/checkpoints/last.ckpt"
    assert main(["fit", "--ckpt_path", "dense.ckpt", "--config", "run.yaml", "--run", "resumed"]) == 0
    assert main(["fit", "--branch_from", "moe.ckpt", "--config", "run.yaml", "--run", "branched"]) == 0
    assert main(["export", "--ckpt_path", last.format("branched"), "--output", "out"]) == 0
    ours, again = DecoderLM.from_checkpoint(last.format("branched")), load("out")
    assert type(again).__name__ == "MixtralForCausalLM" and again.generation_config.top_k == 7
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    torch.testing.assert_close(logits(again, tokens(2, 40)), logits(ours.module, tokens(2, 40)), rtol=0, atol=1e-4)
    import transformers

    text = "It is a truth universally acknowledged"
    assert transformers.AutoTokenizer.from_pretrained("out")(text)["input_ids"] == ours.tokenizer.encode(text)
    start = DecoderLM.from_checkpoint("dense.ckpt").module.state_dict()
    resumed = DecoderLM.from_checkpoint(last.format("resumed")).module.state_dict()
    moved = (resumed["embedding.weight"] - start["embedding.weight"]).abs().max()
    assert 0 < moved < 0.01  # two small steps from the imported weights


def test_the_run_on_real_weights_parses_after_a_branch_from_an_upcycled_model(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(make("Llama", 1), tmp_path / "theirs")
    import_model("theirs", "dense.ckpt")
    assert main(["upcycle", "--ckpt_path", "dense.ckpt", "--output", "moe.ckpt"]) == 0
    capsys.readouterr()
    config = ["--config", "configs/moe/fit/smollm2_german.yaml", "--branch_from", "moe.ckpt"]
    assert main(["fit", *config, "--print_config"]) == 0
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert model["decoder"]["feed_forward"]["n_experts"] == 8 and model["scheduler"]["init_args"]["total_steps"] == 300
    assert main(["prepare", "--config", "configs/moe/prepare/smollm2_german.yaml", "--print_config"]) == 0


def test_a_checkpoint_of_a_hugging_face_model_comes_out_as_it_is(token_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(TRAIN.replace("ROOT", str(token_root)).replace(", padded_vocab_size: 400", ""))
    theirs = make("Olmoe", 1, vocab_size=400)
    theirs.save_pretrained("theirs")
    Tokenizer.load(token_root / "tokenizer.json").save(tmp_path / "theirs")
    flags = ["--model", "lit_moe.MoELanguageModel", "--model.hugging_face.model", "theirs"]
    assert main(["fit", *flags, "--config", "run.yaml", "--run", "theirs"]) == 0
    last = "runs/moe/theirs/checkpoints/last.ckpt"
    assert main(["export", "--ckpt_path", last, "--output", "out", "--shard_bytes", "50000"]) == 0
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    trained, again = torch.load(last, weights_only=True)["state_dict"], load("out").state_dict()
    assert all(torch.equal(weight, trained[f"decoder.model.{name}"]) for name, weight in again.items())
    assert not torch.equal(again["model.embed_tokens.weight"], theirs.state_dict()["model.embed_tokens.weight"])
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_lit_detect_scores_with_an_imported_model(tmp_path):
    from lit_core.lm.language_model import HuggingFaceLM
    from lit_detect.detectors import LogLikelihood

    theirs = make("Qwen2Moe", 1)
    save(theirs, tmp_path / "theirs")
    import_model(str(tmp_path / "theirs"), str(tmp_path / "ours.ckpt"))
    texts = ["It is a truth universally acknowledged.", "Call me Ishmael."]
    models = [HuggingFaceLM(theirs, TOKENIZER), DecoderLM.from_checkpoint(tmp_path / "ours.ckpt")]
    scores = [torch.as_tensor(LogLikelihood(model, max_tokens=60).score(texts)) for model in models]
    torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)
