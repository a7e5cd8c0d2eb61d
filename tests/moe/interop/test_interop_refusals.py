"""What cannot be imported or exported is refused in one sentence, and nothing is written."""

import json
from unittest.mock import Mock

import pytest
import torch

pytest.importorskip("transformers")

from hugging_face import TOKENIZER, make, save

from lit_core.cli.messages import sentence
from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_moe.cli import main
from lit_moe.interop import FAMILIES, export_model, exporting, import_model
from lit_moe.interop.importing import new_checkpoint
from lit_moe.nn import Decoder, DecoderConfig, MoEConfig


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model of each family, in shards."""
    root = tmp_path_factory.mktemp("models")
    for family in ("Llama", "Mixtral", "Olmoe", "Qwen2Moe", "Qwen3Moe"):
        save(make(family), root / family, max_shard_size="60KB")
    return root


@pytest.fixture
def copy(folders, tmp_path):
    """Makes a copy of a model whose config.json is changed."""

    def change(family, **changes):
        folder = tmp_path / str(len(list(tmp_path.iterdir()))) / family
        folder.mkdir(parents=True)
        for path in (folders / family).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return change


def refused(folder, *named, **options):
    output = folder.parent / "out.ckpt"
    with pytest.raises(UserError) as error:
        import_model(str(folder), str(output), **options)
    assert "\n" not in str(error.value) and all(name in str(error.value) for name in (str(folder), *named))
    assert not [path for path in folder.parent.iterdir() if path != folder]


SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("Llama", dict(rope_parameters=SCALED), "rope_type to linear"),
        (
            "Llama",
            dict(rope_parameters=None, rope_theta=1e4, rope_scaling=dict(type="linear", factor=2.0)),
            "rope_type",
        ),
        ("Llama", dict(attention_bias=True), "attention_bias to True"),
        ("Llama", dict(mlp_bias=True), "mlp_bias to True"),
        ("Llama", dict(hidden_act="relu"), "hidden_act to relu"),
        ("Llama", dict(quantization_config=dict(quant_method="fp8")), "quantization_config"),
        (
            "Llama",
            dict(rope_parameters=dict(rope_type="default", rope_theta=1e4, partial_rotary_factor=0.5)),
            "partial_",
        ),
        ("Mixtral", dict(sliding_window=16), "sliding_window to 16"),
        ("Mixtral", dict(num_experts_per_tok=1), "num_experts_per_tok to 1"),
        ("Qwen2Moe", dict(use_sliding_window=True, sliding_window=16, max_window_layers=0), "sliding_window to 16"),
        ("Qwen2Moe", dict(decoder_sparse_step=2), "decoder_sparse_step to 2"),
        ("Qwen3Moe", dict(mlp_only_layers=[1]), "mlp_only_layers to [1]"),
        ("Qwen2Moe", dict(shared_expert_intermediate_size=25), "shared_expert_intermediate_size to 25"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_our_decoder_lacks_is_named_by_its_key(copy, family, changes, named):
    refused(copy(family, **changes), named)


@pytest.mark.parametrize("model_type", ["gpt2", "deepseek_v3", None])
def test_another_architecture_gets_the_list_of_supported_ones(copy, model_type):
    refused(copy("Llama", model_type=model_type), f"model_type {model_type}", *FAMILIES)


def test_missing_and_damaged_files_are_named(copy):
    folder = copy("Mixtral")
    index = folder / "model.safetensors.index.json"
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    content = shards[1].read_bytes()
    shards[1].unlink()
    refused(folder, shards[1].name, "no such file")
    shards[1].write_bytes(content[: len(content) // 2])
    refused(folder, shards[1].name, "torn")
    shards[1].write_bytes(content)
    index.write_text(index.read_text().replace("experts.3.w2", "experts.9.w2"))
    refused(folder, "experts.3.w2.weight is missing")
    index.unlink()
    refused(folder, "a part of its weights, without model.safetensors.index.json")
    for shard in shards:
        shard.unlink()
    refused(folder, "save the model as safetensors")
    (folder / "config.json").write_text("{")
    refused(folder, "config.json is not valid JSON")
    (folder / "config.json").unlink()
    refused(folder, "no config.json")


def test_weights_that_the_config_does_not_describe_are_named(copy):
    refused(copy("Mixtral", num_local_experts=5), "gate.weight has the shape (6, 32)")
    refused(copy("Qwen2Moe", qkv_bias=False), "_proj.bias", "correct config.json")
    refused(copy("Llama", hidden_size=16, head_dim=8), "embed_tokens.weight has the shape (260, 32)", "(260, 16)")


def test_a_tokenizer_of_another_size_or_none_is_refused(copy, token_root):
    folder = copy("Llama")
    larger = Tokenizer.load(token_root / "tokenizer.json")
    assert larger.vocab_size > 260 > TOKENIZER.vocab_size
    larger.save(folder)
    refused(folder, f"{larger.vocab_size} tokens", "vocab_size 260")
    (folder / "tokenizer.json").unlink()
    refused(folder, "no tokenizer.json")


def test_impossible_arguments_are_refused_by_the_command(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "there.ckpt").write_text("mine")
    model, good = str(folders / "Llama"), str(tmp_path / "good.ckpt")
    for arguments, named in (
        (["import", "--model", str(tmp_path / "none"), "--output", good], "none"),
        (["import", "--model", "nobody/nothing", "--output", good], "nobody/nothing"),
        (["import", "--model", model, "--output", str(tmp_path / "there.ckpt")], "exists already"),
        (["import", "--model", model, "--output", str(tmp_path / "x.pt")], "ends with .ckpt"),
        (["import", "--model", model, "--output", str(tmp_path / "there.ckpt" / "x.ckpt")], "is a file"),
        (["import", "--model", model, "--output", good, "--layers", "3"], "layers is 3"),
        (["export", "--ckpt_path", str(tmp_path / "there.ckpt"), "--output", str(tmp_path / "o")], "--ckpt_path is"),
    ):
        assert main(arguments) == 2
        message = capsys.readouterr().err.strip()
        assert named in message and "\n" not in message and "Traceback" not in message, message
    assert [path.name for path in tmp_path.iterdir()] == ["there.ckpt"]


def write(path, router="lit_moe.nn.PenaltyRouter", **changes):
    shape = dict(vocab_size=40, n_layers=2, d_model=32, n_heads=4, d_ff=48, max_seq_len=64)
    decoder = Decoder(DecoderConfig(**{**shape, **changes}))
    weights = {f"decoder.{name}": tensor for name, tensor in decoder.state_dict().items()}
    checkpoint = new_checkpoint(decoder.config, weights)
    checkpoint["hyper_parameters"]["router"]["class_path"] = router
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (dict(norm="layernorm"), "norm layernorm"),
        (dict(rope_fraction=0.5), "rope_fraction 0.5"),
        (dict(clip_qkv=1.0), "clip_qkv 1.0"),
        (dict(qk_norm="head", qkv_bias=True), "qk_norm head, and Qwen2,"),
        (dict(feed_forward=MoEConfig(4, 2, 12, n_shared=1), qk_norm="head"), "qk_norm head, and Qwen2Moe"),
        (dict(feed_forward="switch", router="lit_moe.nn.SinkhornRouter"), "SinkhornRouter"),
        (dict(feed_forward="granular", router="lit_moe.nn.UniformRouter"), "UniformRouter"),
    ],
    ids=str,
)
def test_what_hugging_face_lacks_is_named(tmp_path, changes, named):
    write(tmp_path / "ours.ckpt", **changes)
    with pytest.raises(UserError, match=named) as error:
        export_model(str(tmp_path / "ours.ckpt"), str(tmp_path / "out"))
    assert "\n" not in str(error.value) and [path.name for path in tmp_path.iterdir()] == ["ours.ckpt"]


@pytest.mark.parametrize("name", ["../escaped.txt", "/escaped.txt", "config.json"])
def test_a_companion_that_would_lie_elsewhere_is_refused(tmp_path, name):
    write(tmp_path / "ours.ckpt")
    checkpoint = torch.load(tmp_path / "ours.ckpt")
    torch.save(checkpoint | {"companions": {name: "text"}}, tmp_path / "ours.ckpt")
    with pytest.raises(UserError, match="whose companions name"):
        export_model(str(tmp_path / "ours.ckpt"), str(tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["ours.ckpt"]


def test_weights_on_a_full_disk_are_named_as_any_file_is(tmp_path, monkeypatch):
    safetensors = pytest.importorskip("safetensors")
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    monkeypatch.setattr("safetensors.torch.save_file", Mock(side_effect=safetensors.SafetensorError(said)))
    with pytest.raises(OSError) as raised:
        exporting._write_weights(tmp_path, {"a": ((9,), torch.float32, lambda: torch.zeros(9))}, 1 << 20)
    assert sentence(raised.value).startswith(f"The disk is full: {tmp_path}/model.safetensors could not be written; ")
