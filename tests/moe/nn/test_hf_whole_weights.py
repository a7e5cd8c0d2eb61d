"""A config that contradicts its weights: no number of a model that is trained on is random without a word."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, BertConfig, T5Config

from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_core.lm.transformers_loading import load_whole, loading
from lit_moe.doctor.families import build, small_config
from lit_moe.nn import HFConfig, HFDecoder


@pytest.fixture
def folder(tmp_path):
    """Save a small model of a type, with some keys of its config changed afterwards."""

    def save(kind="mixtral", **changes):
        if not (tmp_path / "config.json").exists():
            build(small_config(kind)).save_pretrained(tmp_path)
            Tokenizer.bytes().save(tmp_path)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return str(tmp_path)

    return save


def refused(folder, *parts):
    with pytest.raises(UserError) as error:
        HFDecoder(HFConfig(model=folder))
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value), error.value


def test_layers_without_weights_are_refused_and_weights_without_a_layer_are_named(folder):
    layers = HFDecoder(HFConfig(model=folder())).config.num_hidden_layers
    refused(folder(num_hidden_layers=layers + 1), "its weights lack", f"model.layers.{layers}.", "random")
    with pytest.warns(UserWarning, match=rf"no place, such as model\.layers\.{layers - 1}\..*left out"):
        HFDecoder(HFConfig(model=folder(num_hidden_layers=layers - 1)))


def test_other_shapes_are_named_with_both(folder):
    experts = json.loads(open(f"{folder()}/config.json").read())["num_local_experts"]
    refused(folder(num_local_experts=experts + 1), "experts", f"({experts + 1}, ", f"({experts}, ")


def test_a_weight_that_is_not_a_number_is_named(folder):
    weights = Path(folder(), "model.safetensors")
    tensors = load_file(weights)
    name = "model.layers.1.block_sparse_moe.experts.3.w2.weight"
    tensors[name].view(-1)[5] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    refused(folder(), "its model.layers.1.mlp.experts.down_proj holds NaN", "may be damaged")


def test_a_gate_that_chooses_more_experts_than_there_are_is_refused_in_a_sentence(folder):
    refused(folder(num_experts_per_tok=99), "MixtralForCausalLM that cannot run")


@pytest.mark.parametrize(
    ("kind", "config", "more"),
    [
        (AutoModelForCausalLM, None, "num_hidden_layers"),
        (
            AutoModelForMaskedLM,
            BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9),
            "num_hidden_layers",
        ),
        (
            AutoModelForSeq2SeqLM,
            T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2),
            "num_layers",
        ),
    ],
    ids=["causal", "masked", "seq2seq"],
)
def test_each_kind_of_model_is_read_whole_or_refused(kind, config, more, tmp_path):
    saved = kind.from_config(small_config("mixtral") if config is None else config)
    saved.save_pretrained(tmp_path)
    read = load_whole(kind, str(tmp_path))
    assert all(torch.equal(weight, read.state_dict()[name]) for name, weight in saved.state_dict().items())
    path = tmp_path / "config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {more: described[more] + 1}))
    with pytest.raises(UserError, match="its weights lack"), loading("model is it", "correct it", tmp_path):
        load_whole(kind, str(tmp_path))
